"""`vcl adopt`: makes existing domains VMs of the cluster, and takes over what runs without stopping it.

Invariants (SAFETY rule 9): what could start a second copy is gone before one transaction commits manifest,
spec, binding, claim and images. Until then everybody leaves the domain alone: a mark without a record ends
nothing. An adoption that was cut off anywhere is completed by adopting again; the domain is given back
only when it is certain that no record of it exists or can still arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reconciler.loops.adoption_checks import AdoptionChecks, Draft, Running, Wanted
from reconciler.loops.agent_disks import DiskWork
from reconciler.loops.agent_state import NodeContext
from reconciler.loops.manifest_sync import ManifestSync
from reconciler.loops.writer import conflicts
from reconciler.planning.adopting import Adoption, Known, Ownership, lost_to, records, runs_here
from reconciler.planning.manifest_apply import Places, Refusal, choose, index
from reconciler.ports.controller import Adopter
from reconciler.resources import keys
from reconciler.resources.domains import Definition
from reconciler.resources.errors import ConflictError, InvalidInput, OutcomeUnknown, VclError
from reconciler.resources.kinds import Kind
from reconciler.resources.problems import Severity, render
from reconciler.resources.records import Binding, Claim, ClaimPhase, EventType, Pin, SpecRecord, dump

log = logging.getLogger(__name__)

__all__ = ["AdoptResult", "Adoptions", "Wanted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptResult:
    """What became of one. `result`: 'adopted' (it runs, and goes on), 'created' (it is off) or 'failed'.
    `here`: it is a domain of this node's hypervisor, which keeps no definition of it any more."""

    source: str
    name: str
    result: str
    path: str = ""
    error: str = ""
    here: bool = False


class Adoptions:
    """Adopts on this node, one domain at a time."""

    def __init__(self, context: NodeContext, sync: ManifestSync) -> None:
        self._context = context
        self._sync = sync
        self._disks = DiskWork(context)
        self._checks = AdoptionChecks(context, self._disks)
        self._one_at_a_time = asyncio.Lock()
        self._in_doubt: set[str] = set()
        """UUIDs of whose records it is not known whether they were written."""

    async def adopt(self, wanted: Sequence[Wanted], *, dry_run: bool) -> tuple[AdoptResult, ...]:
        """Each by itself; what is wrong with one does not hold up the others."""
        async with self._one_at_a_time:
            return tuple([await self._one(each, dry_run) for each in wanted])

    async def _one(self, wanted: Wanted, dry_run: bool) -> AdoptResult:
        name, context = wanted.domain, self._context
        try:
            self._checks.refuse_now()
            draft = self._checks.draft(wanted, self._sync.reader.parse(wanted.source, wanted.content))
            name = draft.names.vm
            found = await self._checks.find(draft)
            runs = runs_here(draft.names, found, context.node, context.cluster_uid)
            running = await self._checks.running(draft, found) if runs and found is not None else None
            here = found is not None and found.uuid == draft.names.uuid
            path = ""
            if not dry_run:
                path = await self._adopt(draft, running, here=here)
        except VclError as error:
            log.warning("domain %s is not adopted: %s", wanted.domain, error)
            return AdoptResult(source=wanted.source, name=name, result="failed", error=str(error))
        result = "created" if running is None else "adopted"
        return AdoptResult(source=wanted.source, name=name, result=result, path=path, here=here)

    async def _adopt(self, draft: Draft, running: Running | None, *, here: bool) -> str:
        """Raises VclError; the answer is the manifest's path."""
        adopter = draft.controller.lifecycle
        if not here or not isinstance(adopter, Adopter):
            return await self._commit(draft, None)
        uid, deadlines = draft.record.metadata.uid, self._context.deadlines
        definition = running.look.definition if running is not None else None
        if definition is None:
            definition = Definition(name=draft.names.domain, uid=uid, document="", machine="")
        await adopter.take_over(definition, timeout=deadlines.act)
        try:
            if running is not None:
                running = await self._checks.still(draft, running)
            return await self._commit(draft, running)
        except OutcomeUnknown as error:
            self._in_doubt.add(uid)
            raise _undecided(error) from error
        except VclError as error:
            if not await self._never_recorded(draft):
                raise _undecided(error) from error
            await adopter.give_back(draft.names.domain, uid=uid, timeout=deadlines.act)
            raise

    async def _never_recorded(self, draft: Draft) -> bool:
        """Whether no record of this domain is in the store, nor can still arrive."""
        uid, name = draft.record.metadata.uid, draft.names.vm
        if uid in self._in_doubt:
            return False
        wanted = [keys.spec(Kind.VIRTUAL_MACHINE, name), keys.claim(name)]
        try:
            fresh = await self._context.views.cache.read(wanted)
        except VclError as error:
            log.warning("domain %s stays marked: its records cannot be read: %s", draft.names.domain, error)
            return False
        return not any(uid.encode() in item.value for item in fresh.values())

    async def _commit(self, draft: Draft, running: Running | None) -> str:
        """One transaction; the file then comes into the directory from the store, as on every node."""
        context = self._context
        async with self._sync.lock:
            record = await self._placed(draft)
            adoption = await self._records(draft, record, running)
            result = await context.writer.commit(
                compares=adoption.compares,
                puts=adoption.puts,
                deletes=adoption.deletes,
                guards=(keys.SCHEMA, keys.session(context.node)),
            )
        if lost := conflicts(result):
            raise lost_to(lost)
        self._sync.wake()
        words = "it runs, and goes on" if running is not None else "it is off"
        context.event(EventType.NORMAL, Kind.VIRTUAL_MACHINE, draft.names.vm, "Adopted", words)
        return record.source.path

    async def _placed(self, draft: Draft) -> SpecRecord:
        """The record with the file that the manifest becomes. Raises VclError when it cannot be one."""
        view = await self._sync.look()
        self._checks.refuse_name(draft.names)
        found = await self._sync.checker.check_inputs([draft.file], view.files)
        errors = tuple(render(problem) for problem in found if problem.severity is Severity.ERROR)
        if errors:
            raise InvalidInput("; ".join(errors))
        files = {file.path: file for file in view.files}
        places = Places(files=files, store=view.store, definers=index(view.files))
        target = choose(draft.file.manifests, draft.wanted.source, None, places)
        if isinstance(target, Refusal):
            raise ConflictError(target.message)
        source = replace(draft.record.source, path=target.path, digest=draft.file.digest)
        return replace(draft.record, source=source)

    async def _records(self, draft: Draft, record: SpecRecord, running: Running | None) -> Adoption:
        context, cache, name = self._context, self._context.views.cache, draft.names.vm
        intent = cache.revision_of(keys.intent(Kind.VIRTUAL_MACHINE, name))
        known = Known(intent=intent, epoch=cache.revision_of(keys.EPOCH))
        if running is None:
            return records(record, draft.wanted.content, None, known, context.node)
        epoch = context.views.epoch()
        if epoch is None:
            raise ConflictError("no master was ever elected", cure="`vcl cluster status` says why")
        uid = record.metadata.uid
        bound = Binding(
            node=context.node,
            uid=uid,
            epoch=epoch.epoch,
            bound=context.clock.wall(),
            reason="adopted where it runs",
        )
        former = cache.revision_of(keys.claim(name))
        owned = Ownership(binding=bound, claim=self._claim(draft, running), former=former)
        adoption = records(record, draft.wanted.content, owned, known, context.node)
        pin = Pin(uid=uid, machine=running.observed.machine, domain_uuid=uid, spec=record.spec)
        volumes = await self._disks.record_volumes(record, draft.vm)
        return replace(adoption, puts={**adoption.puts, keys.pin(name): dump(pin), **volumes})

    def _claim(self, draft: Draft, running: Running) -> Claim:
        context, former = self._context, self._context.views.claim(draft.names.vm)
        return Claim(
            node=context.node,
            uid=draft.record.metadata.uid,
            boot_id=context.boot_id,
            session=context.session,
            phase=ClaimPhase.RUNNING,
            disks=running.look.prepared.identities,
            clients=running.clients,
            former_clients=former.former_clients if former is not None else (),
            generation=draft.record.metadata.generation,
            controller=draft.vm.controller,
            claimed=context.clock.wall(),
        )


def _undecided(error: VclError) -> VclError:
    """The error of an adoption that may yet turn out to have happened."""
    return VclError(
        f"{error.message}; it is not certain that nothing was recorded, so the domain stays as it is, "
        "without its definition, of which the node keeps a copy",
        cure="run vcl adopt again; `vcl get vms` shows whether it is a VM by now",
    )
