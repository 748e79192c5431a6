"""Recording what a person asked of a VM (start, stop, ...) or of a node (cordon, ...), for the master and the
agents to act on.

Invariant: the record is changed only if neither it nor the object's spec changed since they were looked at;
when one did, the verb is judged again from what is there now.
"""

from __future__ import annotations

from reconciler.loops.intent_records import ATTEMPTS, IntentRecords
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.desired import desired
from reconciler.planning.intents import Target, Verb, VerbRequest, apply_verb, is_empty
from reconciler.planning.node_intents import NodeRequest, NodeVerb, apply_node_verb, asks_nothing
from reconciler.ports.clock import Clock, Ids
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, InvalidInput, NotFound
from reconciler.resources.infrastructure import NodeSpec, ShutdownPolicy
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent, NodeIntent
from reconciler.resources.virtualmachine import RunStrategy


class Intents:
    """The verbs of the API."""

    def __init__(self, views: Views, writer: Writer, clock: Clock, ids: Ids) -> None:
        self._views = views
        self._clock = clock
        self._ids = ids
        self._vms = IntentRecords(Kind.VIRTUAL_MACHINE, views, writer)
        self._nodes = IntentRecords(Kind.NODE, views, writer)

    async def apply(self, verb: Verb, name: str, *, force: bool = False) -> bool:
        """Record the verb; True when it changed something, and the copy of the store shows it.

        Raises NotFound, ConflictError (the verb makes no sense now, or others keep changing the record),
        StoreError.
        """
        request = VerbRequest(verb=verb, id=self._ids.uuid(), now=self._clock.wall(), force=force)
        for _ in range(ATTEMPTS):
            before = self._vms.read(name, Intent)
            after = apply_verb(request, self._target(name, before), before)
            if after == before:
                return False
            if await self._vms.commit(name, None if is_empty(after) else after):
                return True
            await self._vms.catch_up()
        raise ConflictError(
            f"the record of virtualmachine '{name}' keeps changing; nothing was recorded",
            cure=f"try `vcl {verb} {name}` again",
        )

    async def apply_to_node(
        self,
        verb: NodeVerb,
        name: str,
        *,
        bring_back: bool = False,
        policy: ShutdownPolicy | None = None,
        timeout_seconds: int | None = None,
    ) -> bool:
        """As `apply`, of a node. `policy` and `timeout_seconds` of a shutdown: by default the cluster's."""
        usual = self._views.cluster_spec().node_shutdown
        request = NodeRequest(
            verb=verb,
            id=self._ids.uuid(),
            now=self._clock.wall(),
            bring_back=bring_back,
            policy=policy or usual.policy,
            timeout_seconds=usual.timeout_seconds if timeout_seconds is None else timeout_seconds,
            boot_id=self._views.boot_id(name),
        )
        for _ in range(ATTEMPTS):
            before = self._nodes.read(name, NodeIntent)
            after = apply_node_verb(request, name, self._node(name), before)
            if after == before:
                return False
            if await self._nodes.commit(name, None if asks_nothing(after) else after):
                return True
            await self._nodes.catch_up()
        raise ConflictError(f"the record of node '{name}' keeps changing; nothing was recorded")

    def _node(self, name: str) -> NodeSpec:
        """Its manifest; a node needs none."""
        spec = self._views.spec(Kind.NODE, name, NodeSpec)
        if spec is not None:
            return spec
        if self._views.exists(keys.spec(Kind.NODE, name)):
            raise InvalidInput(f"the spec of node '{name}' cannot be used; apply its manifest again")
        known = (keys.node_status(Kind.NODE, name), keys.member(name))
        if not any(self._views.exists(key) for key in known):
            raise NotFound(f"node '{name}' not found")
        return NodeSpec()

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
