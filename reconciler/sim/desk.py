"""What the API works from, without a cluster: a store in memory, its copy, and the read model over it.

Records are put by hand, as the manifest loop, the master and the nodes would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.loops.cache import StoreCache
from reconciler.loops.event_log import EventLog
from reconciler.loops.events import EventRecorder
from reconciler.loops.intents import Intents
from reconciler.loops.objects import Objects
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import (
    STORE_SCHEMA,
    Binding,
    Claim,
    ClaimPhase,
    ObjectMeta,
    SchemaRecord,
    Source,
    SpecRecord,
    dump,
)
from reconciler.resources.status import Condition, ConditionStatus, ConditionType, Phase, VmNodeStatus
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryStore

SMALL: Mapping[str, Any] = {"cpu": {"cores": 2}, "memory": "2Gi"}


class Desk:
    """The parts, and short ways to write records. `sync` after writing: the copy is then up to date."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = VirtualClock()
        self.ids = SeededIds()
        self.cache = StoreCache(self.store)
        self.views = Views(self.cache)
        self.writer = Writer(self.store, self.cache, self.ids)
        self.objects = Objects(self.cache)
        self.intents = Intents(self.views, self.writer, self.clock, self.ids)
        self.events = EventLog(self.cache)
        self.recorder = EventRecorder("r1", self.cache, self.writer, self.clock)

    async def start(self) -> None:
        """A new cluster's records, read."""
        await self.put({keys.SCHEMA: SchemaRecord(version=STORE_SCHEMA)})

    async def put(self, records: Mapping[str, Any], *, deletes: tuple[str, ...] = ()) -> None:
        """Write records (values or JSON-shaped), remove keys, and take the change."""
        puts = tuple(Put(key=key, value=dump(value)) for key, value in records.items())
        await self.store.txn(Txn(id=self.ids.uuid(), puts=puts, deletes=deletes))
        await self.sync()

    async def sync(self) -> None:
        """Bring the copy up to date."""
        await self.cache.step(0.01)

    async def vm(self, name: str, *, uid: str = "", **changes: Any) -> None:
        """The spec of a VM; `labels`, `deleted` and fields of the spec as changes."""
        await self.put({keys.spec(Kind.VIRTUAL_MACHINE, name): vm_record(name, uid=uid, **changes)})

    async def run(self, name: str, *, node: str = "r1", phase: Phase = Phase.RUNNING) -> None:
        """Binding, claim and the node's report of a VM that was placed and started."""
        await self.put(running(name, node=node, phase=phase))


def vm_record(
    name: str,
    *,
    uid: str = "",
    labels: Mapping[str, str] | None = None,
    deleted: str | None = None,
    **spec: Any,
) -> SpecRecord:
    """A VM's spec record: SMALL with changed fields."""
    meta = ObjectMeta(
        name=name,
        uid=uid or f"uid-{name}",
        labels=labels or {},
        creation_timestamp="2026-01-31T12:00:00Z",
        deletion_timestamp=deleted,
    )
    source = Source(path=f"{name}.yaml")
    return SpecRecord(kind=Kind.VIRTUAL_MACHINE.value, metadata=meta, spec={**SMALL, **spec}, source=source)


def running(
    name: str, *, uid: str = "", node: str = "r1", phase: Phase = Phase.RUNNING, message: str = ""
) -> dict[str, Any]:
    """The records of a VM that was placed on a node and started there, by key."""
    uid = uid or f"uid-{name}"
    ready = phase is Phase.RUNNING
    condition = Condition(
        type=ConditionType.READY,
        status=ConditionStatus.TRUE if ready else ConditionStatus.FALSE,
        reason=phase.value,
    )
    return {
        keys.binding(name): Binding(node=node, uid=uid, epoch=1, bound="2026-01-31T12:00:01Z", reason="fits"),
        keys.claim(name): Claim(node=node, uid=uid, phase=ClaimPhase.RUNNING, disks=("1/2",)),
        keys.node_status(Kind.VIRTUAL_MACHINE, name): VmNodeStatus(
            uid=uid,
            node=node,
            phase=phase,
            message=message,
            ip_addresses=("192.0.2.7",),
            conditions=(condition,),
        ),
    }
