"""Recording what a person asked of a VM (start, stop, ...), for the master and the agents to act on.

Invariant: the record is changed only if neither it nor the VM's spec changed since they were looked at; when
one did, the verb is judged again from what is there now.
"""

from __future__ import annotations

import asyncio

from reconciler.loops.cache import StoreCache
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.desired import desired
from reconciler.planning.intents import Target, Verb, VerbRequest, apply_verb, is_empty
from reconciler.ports.clock import Clock, Ids
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, InvalidInput, NotFound, OutcomeUnknown
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent, dump
from reconciler.resources.virtualmachine import RunStrategy

ATTEMPTS = 8
CATCH_UP_SECONDS = 1.0


class Intents:
    """The verbs of the API."""

    def __init__(self, views: Views, writer: Writer, clock: Clock, ids: Ids) -> None:
        self._views = views
        self._cache: StoreCache = views.cache
        self._writer = writer
        self._clock = clock
        self._ids = ids

    async def apply(self, verb: Verb, name: str, *, force: bool = False) -> bool:
        """Record the verb; True when it changed something, and the copy of the store shows it.

        Raises NotFound, ConflictError (the verb makes no sense now, or others keep changing the record),
        StoreError.
        """
        request = VerbRequest(verb=verb, id=self._ids.uuid(), now=self._clock.wall(), force=force)
        for _ in range(ATTEMPTS):
            before = self._intent(name)
            after = apply_verb(request, self._target(name, before), before)
            if after == before:
                return False
            if await self._commit(name, after):
                return True
            await self._catch_up()
        raise ConflictError(
            f"the record of virtualmachine '{name}' keeps changing; nothing was recorded",
            cure=f"try `vcl {verb} {name}` again",
        )

    def _intent(self, name: str) -> Intent:
        """The record; one that cannot be read must not be taken for an empty one and overwritten."""
        key = keys.intent(Kind.VIRTUAL_MACHINE, name)
        intent = self._views.record(key, Intent)
        if intent is None and self._views.exists(key):
            raise InvalidInput(f"the store's record {key} cannot be read, so nothing was changed")
        return intent or Intent()

    def _target(self, name: str, intent: Intent) -> Target:
        record = self._views.spec_record(Kind.VIRTUAL_MACHINE, name)
        if record is None:
            raise NotFound(f"virtualmachine '{name}' not found")
        vm = self._views.vm(name)
        if vm is None:
            raise InvalidInput(
                f"the spec of virtualmachine '{name}' cannot be used; apply its manifest again"
            )
        claim = self._views.claim(name)
        mine = claim if claim is not None and claim.uid == record.metadata.uid else None
        wanted = desired(record, vm, intent, mine, power_on=True)
        return Target(name=name, strategy=RunStrategy(vm.run_strategy), wish=wanted.wish, why=wanted.reason)

    async def _commit(self, name: str, intent: Intent) -> bool:
        """Write the record, or remove one that asks for nothing; False when it has to be judged again."""
        key = keys.intent(Kind.VIRTUAL_MACHINE, name)
        looked_at = (key, keys.spec(Kind.VIRTUAL_MACHINE, name))
        compares = {each: self._cache.revision_of(each) for each in looked_at}
        try:
            if is_empty(intent):
                result = await self._writer.commit(compares=compares, deletes=(key,))
            else:
                result = await self._writer.commit(compares=compares, puts={key: dump(intent)})
        except OutcomeUnknown as error:
            cure = f"look at `vcl get vm {name} -o yaml` before you ask again"
            raise OutcomeUnknown(error.message, txn_id=error.txn_id, cure=cure) from error
        return not conflicts(result)

    async def _catch_up(self) -> None:
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS):
                await self._cache.wait_for(self._cache.revision + 1)
        except TimeoutError:
            return
