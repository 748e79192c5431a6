"""A whole node in one process: the production loops on whatever store, controllers and pools it is given.

What is not here is the outside: the manifest directory and the API. Objects are put straight into the store.
Killing it (`kill`) is like kill -9 of the daemon: nothing is released, guests go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from reconciler.loops.agent import Agent
from reconciler.loops.agent_state import Deadlines, NodeContext
from reconciler.loops.cache import StoreCache
from reconciler.loops.disk_locks import DiskLocks
from reconciler.loops.elector import Elector, ElectorContext
from reconciler.loops.master import Master, MasterContext
from reconciler.loops.membership import Membership, MembershipContext
from reconciler.loops.node_status import NodeFacts, NodeReporter
from reconciler.loops.pools import Pools
from reconciler.loops.session import Entry, HostIdentity, begin
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.planning.schema import KNOWN_SCHEMAS
from reconciler.planning.timers import Timers
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.controller import Controller
from reconciler.ports.disks import DiskBackend
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.errors import NotFound, StoreError
from reconciler.resources.infrastructure import DirectoryPool, PoolType, StoragePoolSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import NodeHealth
from reconciler.resources.records import Epoch, EventType, Intent, ObjectMeta, Source, SpecRecord, dump
from reconciler.resources.status import VmNodeStatus
from reconciler.resources.transactions import Committed, Put, Txn


class SimNode:
    """One node and its master. Use `await start()`, then `apply`, `intend`, `delete`, `until`."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock,
        ids: Ids,
        controllers: Mapping[str, Controller],
        backends: Mapping[str, DiskBackend] | None = None,
        name: str = "r1",
        deadlines: Deadlines | None = None,
    ) -> None:
        self.store = store
        self.name = name
        self.events: list[tuple[str, str, str]] = []
        self._clock = clock
        self._ids = ids
        self._controllers = controllers
        self._backends = dict(backends or {})
        self._deadlines = deadlines or Deadlines(observe=1.0, create=1.0, act=1.0, guest=0.5, disk=5.0)
        self._tasks: list[asyncio.Task[Any]] = []
        self.frozen = ""

    async def start(self) -> None:
        """Begin a session, run the loops, and return when this node is master."""
        host = HostIdentity(node=self.name, boot_id="boot-1", machine_id="machine-1")
        begun = await begin(self.store, Entry(host=host, cluster="sim"), self._clock, self._ids)
        self.cache = StoreCache(self.store)
        await self.cache.step(0.0)
        self.views = Views(self.cache)
        self.writer = Writer(self.store, self.cache, self._ids)
        self.writer.guard(keys.SCHEMA, begun.schema_revision)
        self.writer.guard(keys.session(self.name), begun.session_revision)
        self._spawn(self._follow())
        builtin = {
            name: StoragePoolSpec(type=PoolType.DIRECTORY, directory=DirectoryPool(path=f"/sim/{name}"))
            for name in self._backends
        }
        context = NodeContext(
            node=self.name,
            cluster_uid=begun.cluster.uid,
            boot_id=host.boot_id,
            session=begun.session,
            clock=self._clock,
            ids=self._ids,
            views=self.views,
            writer=self.writer,
            controllers=self._controllers,
            pools=Pools(self.views, lambda name, _spec: self._backends[name], builtin),
            event=self._event,
            frozen=lambda: self.frozen,
            deadlines=self._deadlines,
        )
        self.context = context
        self.agent = Agent(context)
        self.locks = DiskLocks(context)
        facts = NodeFacts(version="sim", address="127.0.0.1", cpus=4, memory=8 * 2**30)
        elector = self._elector(begun.session)
        for life in (
            self.agent.run(),
            self.locks.run(),
            elector.run(),
            NodeReporter(context, self.agent, facts).run(),
        ):
            self._spawn(life)
        await self.until(lambda: elector.epoch is not None)

    def _elector(self, session: int) -> Elector:
        timers = Timers()
        membership = Membership(
            MembershipContext(
                node=self.name,
                boot_id="boot-1",
                session=session,
                version="sim",
                schemas=KNOWN_SCHEMAS,
                clock=self._clock,
                views=self.views,
                timers=timers,
                transport=None,
                leases=None,
                health=NodeHealth,
            )
        )
        return Elector(
            ElectorContext(
                node=self.name,
                clock=self._clock,
                views=self.views,
                writer=self.writer,
                membership=membership,
                timers=timers,
                problems=lambda: (),
                run_master=self._run_master,
                elected=lambda reason, words: None,
            )
        )

    async def _run_master(self, epoch: Epoch) -> None:
        context = MasterContext(
            node=self.name,
            epoch=epoch,
            clock=self._clock,
            views=self.views,
            writer=self.writer,
            event=self._event,
        )
        await Master(context).run()

    async def kill(self) -> None:
        """End the loops at once, as kill -9 would; the guests and the store stay as they are."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def _spawn(self, life: Any) -> None:
        self._tasks.append(asyncio.create_task(life))

    async def _follow(self) -> None:
        while True:
            try:
                await self.cache.step(5.0)
            except StoreError:
                await asyncio.sleep(0.05)

    def _event(self, type: EventType, kind: Kind, name: str, reason: str, message: str) -> None:
        self.events.append((name, reason, message))

    async def put(self, key: str, value: bytes | None) -> None:
        """Write one key as its own writer would, without comparing."""
        puts = (Put(key=key, value=value),) if value is not None else ()
        txn = Txn(id=self._ids.uuid(), puts=puts, deletes=() if puts else (key,))
        assert isinstance(await self.store.txn(txn), Committed)

    async def apply(
        self, name: str, spec: Mapping[str, Any], kind: Kind = Kind.VIRTUAL_MACHINE, **labels: str
    ) -> None:
        """Put an object as the manifest loop would."""
        before = self.views.spec_record(kind, name)
        meta = before.metadata if before is not None else None
        changed = before is not None and before.spec != spec
        record = SpecRecord(
            kind=kind.value,
            metadata=ObjectMeta(
                name=name,
                uid=meta.uid if meta is not None else self._ids.uuid(),
                generation=(meta.generation if meta is not None else 0) + (1 if changed or not meta else 0),
                labels=labels,
                creation_timestamp=self._clock.wall(),
            ),
            spec=spec,
            source=Source(path=f"{name}.yaml"),
        )
        await self.put(keys.spec(kind, name), dump(record))

    async def delete(self, name: str, *, purge: bool = False) -> None:
        """Begin a VM's deletion as the manifest loop would."""
        record = self.views.spec_record(Kind.VIRTUAL_MACHINE, name)
        if record is None:
            raise NotFound(f"there is no VM '{name}'")
        ended = ObjectMeta(
            name=name,
            uid=record.metadata.uid,
            generation=record.metadata.generation,
            deletion_timestamp=self._clock.wall(),
        )
        gone = SpecRecord(
            kind=record.kind, metadata=ended, spec=record.spec, source=record.source, purge=purge
        )
        await self.put(keys.spec(Kind.VIRTUAL_MACHINE, name), dump(gone))

    async def intend(self, name: str, intent: Intent) -> None:
        """Record what a verb asks for."""
        await self.put(keys.intent(Kind.VIRTUAL_MACHINE, name), dump(intent))

    def status(self, name: str) -> VmNodeStatus | None:
        """What the agent reports of a VM."""
        return self.views.node_status(name)

    def phase(self, name: str) -> str:
        """The phase that the agent reports, or an empty string."""
        status = self.status(name)
        return status.phase.value if status is not None else ""

    async def until(self, condition: Callable[[], object], seconds: float = 20.0) -> None:
        """Wait until the condition holds as this node's copy of the store shows it."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - anything may be waited for
                await asyncio.sleep(0.01)
