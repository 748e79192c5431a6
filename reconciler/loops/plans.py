"""What would happen: reads what the master decides from, supposes what is asked for, and shows the plan.

Invariant: nothing is written, and nothing is decided here. Any node can tell, as it sees the others; the plan
is made on a thread, one at a time, so that large ones hold up nobody.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from reconciler.loops.manifest_reader import ManifestReader
from reconciler.loops.placement_input import read_nodes, read_vm, records_of
from reconciler.loops.views import Views
from reconciler.planning.eviction import Evictions
from reconciler.planning.headroom import Cluster, Headroom, headroom
from reconciler.planning.manifest_values import Manifest, ObjectKey
from reconciler.planning.master import VmRecords, demand_of, demanded, evictions_of, guests_of
from reconciler.planning.placement import NamedConstraint, VmDemand
from reconciler.planning.prospect import Prospect, Situation, Supposed, index_of, prospect, suppose_node
from reconciler.planning.rebalancing import Draft, draft
from reconciler.ports.clock import Clock
from reconciler.ports.manifests import ApplyInput, ManifestService
from reconciler.resources import keys
from reconciler.resources.codec import decode
from reconciler.resources.errors import ConflictError, InvalidInput, NotFound
from reconciler.resources.infrastructure import ClusterSpec, NodeSpec, Power
from reconciler.resources.kinds import Kind
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.rebalancing import RebalanceScope
from reconciler.resources.records import ObjectMeta, Source, SpecRecord
from reconciler.resources.virtualmachine import VirtualMachineSpec

READ_BEFORE_YIELDING = 50
"""After so many VMs the event loop gets a turn."""
ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """`warnings`: what the files to apply get wrong without being refused for it."""

    prospect: Prospect
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Like:
    """VMs like which are counted: one that there is (`vm`), or the one that `file` defines."""

    vm: str = ""
    file: ApplyInput | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """`headroom` for VMs of so many CPUs and so much memory (bytes)."""

    vm: str
    cpu: int
    memory: int
    headroom: Headroom


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edits:
    """What files to apply define, by kind and name."""

    vms: Mapping[str, Manifest] = field(default_factory=dict)
    nodes: Mapping[str, Manifest] = field(default_factory=dict)
    constraints: Mapping[str, Manifest] = field(default_factory=dict)
    cluster: Manifest | None = None


class Plans:
    """`absent(node)`: why a node takes no work because of what is heard of it, or nothing."""

    def __init__(
        self,
        views: Views,
        clock: Clock,
        reader: ManifestReader,
        manifests: ManifestService,
        absent: Callable[[str], str],
    ) -> None:
        self._views = views
        self._clock = clock
        self._reader = reader
        self._manifests = manifests
        self._absent = absent
        self._one = asyncio.Lock()

    async def plan(self, files: Sequence[ApplyInput], supposed: Supposed) -> Planned:
        """What would happen now, after applying the files, with nodes down or drained.

        Raises InvalidInput for files that would be refused, NotFound for nodes that there are not.
        """
        now = await self._situation(_Edits())
        self._require_nodes(now, supposed.down | supposed.drained)
        warnings = await self._check(files) if files else ()
        then = await self._situation(self._edits(files)) if files else now
        async with self._one:
            found = await asyncio.to_thread(_prospect, now, then, supposed, _contents(files))
        return Planned(prospect=found, warnings=warnings)

    async def drain(self, name: str) -> Evictions:
        """Who would leave the node for where, if it were drained now, and who would have to stay; all at
        once. Raises NotFound."""
        now = await self._situation(_Edits())
        self._require_nodes(now, {name})
        nodes = [suppose_node(node, Supposed(drained=frozenset({name}))) for node in now.nodes]
        all_of_them = max(1, len(now.vms))
        only = [
            replace(node, leaving=node.name == name, recalls=frozenset(), parallel=all_of_them)
            for node in nodes
        ]
        async with self._one:
            return await asyncio.to_thread(evictions_of, now.vms, only, now.constraints, {})

    async def rebalance(self, scope: RebalanceScope) -> Draft:
        """The moves that are worth it now, and who is not moved."""
        now = await self._situation(_Edits())
        uids = {vm.metadata.name: vm.metadata.uid for vm in now.vms}
        async with self._one:
            return await asyncio.to_thread(draft, now.nodes, guests_of(now.vms), uids, now.constraints, scope)

    async def require(self, index: str, files: Sequence[ApplyInput]) -> None:
        """ConflictError when a plan of these files, made now, would not be the one with this index."""
        now = await self._situation(_Edits())
        if await asyncio.to_thread(index_of, now, _contents(files)) != index:
            raise ConflictError(
                f"the cluster, or the manifests, are not as they were when {index} was planned",
                cure="look at 'vcl plan --apply FILE' again, and use the index that it shows",
            )

    async def room(self, like: Like) -> Room:
        """How many more fit. Raises NotFound, InvalidInput."""
        now = await self._situation(_Edits())
        demand = self._like(now, like)
        cluster = Cluster(
            nodes=now.nodes,
            vms=tuple(each for vm in now.vms if (each := demanded(vm)) is not None),
            constraints=now.constraints,
        )
        gone = threading.Event()
        try:
            async with self._one:
                found = await asyncio.to_thread(headroom, cluster, demand, gone.is_set)
        finally:
            gone.set()
        return Room(vm=demand.name, cpu=demand.cpu, memory=demand.memory, headroom=found)

    def _like(self, now: Situation, like: Like) -> VmDemand:
        if like.file is None:
            found = next((vm for vm in now.vms if vm.metadata.name == like.vm), None)
            if found is None:
                raise NotFound(f"virtualmachine '{like.vm}' not found")
            return demand_of(found)
        parsed = self._reader.parse(like.file.name, like.file.content)
        vms = [m for m in parsed.manifests if m.key.kind is Kind.VIRTUAL_MACHINE]
        if not parsed.valid or len(vms) != 1:
            raise InvalidInput(
                f"{like.file.name} does not define one VM", problems=parsed.problems, cure="name such a file"
            )
        return demand_of(self._edited(vms[0], power_on=True))

    async def _check(self, files: Sequence[ApplyInput]) -> tuple[str, ...]:
        """The warnings of applying them. Raises InvalidInput when any would be refused."""
        report = await self._manifests.apply(files, dry_run=True)
        refused = next((result for result in report.results if result.error), None)
        if refused is not None:
            raise InvalidInput(
                f"{refused.source} would be refused: {refused.error}",
                problems=tuple(report.problems),
                cure="correct it, then plan again",
            )
        return tuple(dict.fromkeys(w for result in report.results for w in result.warnings))

    def _edits(self, files: Sequence[ApplyInput]) -> _Edits:
        found: dict[ObjectKey, Manifest] = {}
        for file in files:
            found |= {m.key: m for m in self._reader.parse(file.name, file.content).manifests}

        def of(kind: Kind) -> dict[str, Manifest]:
            return {key.name: manifest for key, manifest in found.items() if key.kind is kind}

        return _Edits(
            vms=of(Kind.VIRTUAL_MACHINE),
            nodes=of(Kind.NODE),
            constraints=of(Kind.PLACEMENT_CONSTRAINT),
            cluster=next(iter(of(Kind.CLUSTER).values()), None),
        )

    async def _situation(self, edits: _Edits) -> Situation:
        """All that placement is decided from, with these edits; as of one revision of the store, unless it
        changes faster than it can be read."""
        for _ in range(ATTEMPTS):
            revision = self._views.cache.revision
            found = await self._read(edits)
            if self._views.cache.revision == revision:
                break
        return found

    async def _read(self, edits: _Edits) -> Situation:
        views = self._views
        power = views.power_on()
        if edits.cluster is not None:
            cluster = decode(ClusterSpec, edits.cluster.spec)
            power = cluster.power is Power.ON and not views.exists(keys.POWER_INTENT)
        records: dict[str, VmRecords] = {}
        for number, name in enumerate(views.names(Kind.VIRTUAL_MACHINE)):
            vm = read_vm(views, name, power_on=power, now=self._clock.wall())
            if vm is not None:
                records[name] = vm
            if number % READ_BEFORE_YIELDING == 0:
                await asyncio.sleep(0)
        records |= {name: self._edited(edit, power_on=power) for name, edit in edits.vms.items()}
        specs = views.specs(Kind.PLACEMENT_CONSTRAINT)
        specs |= {n: decode(PlacementConstraintSpec, e.spec) for n, e in edits.constraints.items()}
        nodes = {n: (decode(NodeSpec, e.spec), e.labels) for n, e in edits.nodes.items()}
        return Situation(
            vms=tuple(records[name] for name in sorted(records)),
            nodes=tuple(read_nodes(views, self._absent, nodes)),
            constraints=tuple(NamedConstraint(name=n, spec=s) for n, s in sorted(specs.items())),
        )

    def _edited(self, manifest: Manifest, *, power_on: bool) -> VmRecords:
        """The VM as it would be after this edit; a new one is nowhere yet."""
        name = manifest.key.name
        before = self._views.spec_record(Kind.VIRTUAL_MACHINE, name)
        if before is None:
            meta = ObjectMeta(name=name, uid="")
            before = SpecRecord(kind=Kind.VIRTUAL_MACHINE, metadata=meta, spec={}, source=Source(path=""))
        record = replace(
            before, metadata=replace(before.metadata, labels=manifest.labels), spec=manifest.spec
        )
        spec = decode(VirtualMachineSpec, manifest.spec)
        return records_of(self._views, record, spec, power_on=power_on, now=self._clock.wall())

    @staticmethod
    def _require_nodes(now: Situation, names: Iterable[str]) -> None:
        known = sorted(node.name for node in now.nodes)
        for name in sorted(names):
            if name not in known:
                raise NotFound(f"node '{name}' not found", cure=f"there are {', '.join(known) or 'none yet'}")


def _prospect(now: Situation, then: Situation, supposed: Supposed, contents: Mapping[str, bytes]) -> Prospect:
    return prospect(now, then, supposed, index_of(now, contents))


def _contents(files: Sequence[ApplyInput]) -> Mapping[str, bytes]:
    return {f"{number}": file.content for number, file in enumerate(files)}
