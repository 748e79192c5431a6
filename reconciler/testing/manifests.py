"""A node's manifest loop with nothing around it: an in-memory store, a held clock, a directory to play with.

Shipped so that people who write another ManifestDirectory can see what the loop makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from reconciler.adapters.schema_files import load_schemas
from reconciler.loops.apply import Manifests
from reconciler.loops.cache import StoreCache
from reconciler.loops.manifest_sync import ManifestSync, SyncPorts
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.ports.clock import Clock
from reconciler.ports.manifests import BaseStore, ManifestDirectory
from reconciler.ports.store import Store
from reconciler.resources import keys
from reconciler.resources.crosscheck import KnownObjects
from reconciler.resources.errors import StoreError, StoreUnavailable
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import (
    STORE_SCHEMA,
    ClusterRecord,
    EventType,
    Intent,
    SchemaRecord,
    SpecRecord,
    dump,
    load,
)
from reconciler.resources.scans import Base, Scan
from reconciler.resources.status import ManifestStatus
from reconciler.resources.transactions import (
    Committed,
    KeyValue,
    Listing,
    Put,
    Resolution,
    Txn,
    TxnResult,
    WatchResult,
)
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.killpoints import Killpoint
from reconciler.sim.manifest_directory import MemoryBaseStore, MemoryManifestDirectory

BUILTIN = KnownObjects(names={Kind.STORAGE_POOL: frozenset({"default"})})


def vm(name: str, *, memory: str = "64Mi", extra: str = "", labels: str = "", comment: str = "") -> bytes:
    """A VirtualMachine's manifest. `extra`: more lines of the spec, indented by two spaces."""
    head = f"# {comment}\n" if comment else ""
    more = f"  labels: {{{labels}}}\n" if labels else ""
    return (
        f"{head}apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata:\n  name: {name}\n{more}"
        f"spec:\n  cpu: {{cores: 1}}\n  memory: {memory}\n{extra}"
    ).encode()


def pool(name: str) -> bytes:
    """A StoragePool's manifest: a kind that is deleted at once."""
    return (
        f"apiVersion: vcl/v1\nkind: StoragePool\nmetadata: {{name: {name}}}\n"
        f"spec:\n  type: directory\n  directory: {{path: /srv/{name}}}\n"
    ).encode()


def together(*documents: bytes) -> bytes:
    """One file of several documents."""
    return b"---\n".join(documents)


def parse(path: str, data: bytes) -> ParsedFile:
    """The real parser with the real schemas."""
    return parse_manifest(path, data, load_schemas())


class KillDirectory:
    """A manifest directory whose changes can be the daemon's last act."""

    def __init__(self, inner: ManifestDirectory, point: Killpoint) -> None:
        self._inner = inner
        self._point = point

    async def scan(self, *, timeout: float) -> Scan:
        return await self._inner.scan(timeout=timeout)

    async def initialise(self, marker: str) -> None:
        await self._point.pass_through("initialise", lambda: self._inner.initialise(marker))

    async def write(self, path: str, data: bytes, *, expect: str | None) -> None:
        await self._point.pass_through(f"write {path}", lambda: self._inner.write(path, data, expect=expect))

    async def remove(self, path: str, *, expect: str) -> None:
        await self._point.pass_through(f"remove {path}", lambda: self._inner.remove(path, expect=expect))

    async def keep(self, path: str, data: bytes) -> str:
        return await self._point.pass_through(f"keep {path}", lambda: self._inner.keep(path, data))

    def changes(self) -> AsyncIterator[None]:
        return self._inner.changes()


class KillBases:
    """A node's memory whose saving can be the daemon's last act."""

    def __init__(self, inner: BaseStore, point: Killpoint) -> None:
        self._inner = inner
        self._point = point

    async def load(self) -> Base:
        return await self._inner.load()

    async def save(self, base: Base) -> None:
        await self._point.pass_through("save the base", lambda: self._inner.save(base))


class CutStore:
    """A way to a store that can be cut: while `cut`, every call fails at once, and nothing arrives."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.cut = False

    async def get(self, keys: Sequence[str], *, timeout: float = 2.0) -> Mapping[str, KeyValue]:
        await self._pass()
        return await self._inner.get(keys, timeout=timeout)

    async def list(self, prefix: str, *, timeout: float = 2.0) -> Listing:
        await self._pass()
        return await self._inner.list(prefix, timeout=timeout)

    async def txn(self, txn: Txn, *, timeout: float = 2.0) -> TxnResult:
        await self._pass()
        return await self._inner.txn(txn, timeout=timeout)

    async def watch(self, since: int, *, timeout: float) -> WatchResult:
        await self._pass()
        result = await self._inner.watch(since, timeout=min(timeout, 0.02))
        await self._pass()
        return result

    async def resolve(self, txn_id: str, *, timeout: float = 2.0) -> Resolution:
        await self._pass()
        return await self._inner.resolve(txn_id, timeout=timeout)

    async def txn_at(self, revision: int, *, timeout: float = 2.0) -> str | None:
        await self._pass()
        return await self._inner.txn_at(revision, timeout=timeout)

    async def close(self) -> None:
        await self._inner.close()

    async def _pass(self) -> None:
        if self.cut:
            await asyncio.sleep(0.002)
            raise StoreUnavailable("the way to the store is cut")


class ManifestWorld:
    """Use `await start()`, change the directory, `await look()`, and ask; `await stop()` at the end."""

    def __init__(
        self,
        store: Store,
        *,
        node: str = "r1",
        directory: ManifestDirectory | None = None,
        bases: BaseStore | None = None,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        memory = directory if isinstance(directory, MemoryManifestDirectory) else None
        self.node = node
        self.memory = memory or MemoryManifestDirectory(node)
        self.files = self.memory.files
        self.master = True
        self.events: list[tuple[Kind, str, str, str]] = []
        self.directory: ManifestDirectory = directory or self.memory
        self.bases: BaseStore = bases or MemoryBaseStore()
        self.clock = clock if isinstance(clock, VirtualClock) else VirtualClock()
        self.store = store
        self.cache = StoreCache(store)
        self.views = Views(self.cache)
        ids = SeededIds(seed)
        self.ids = ids
        self.writer = Writer(store, self.cache, ids)
        self.sync = ManifestSync(
            SyncPorts(
                directory=self.directory,
                bases=self.bases,
                views=self.views,
                writer=self.writer,
                clock=clock or self.clock,
                ids=ids,
                parse=parse,
                builtin=BUILTIN,
                node=node,
                is_master=lambda: self.master,
                event=self._record,
            )
        )
        self.service = Manifests(self.sync)
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make the store usable, and follow it."""
        if keys.SCHEMA not in await self.store.get([keys.SCHEMA]):
            await self.put(keys.SCHEMA, dump(SchemaRecord(version=STORE_SCHEMA)))
        await self.cache.step(0.0)
        self._follower = asyncio.create_task(self._follow())

    async def store_cluster(self, uid: str) -> None:
        """Say which cluster the store belongs to."""
        await self.put(keys.CLUSTER, dump(ClusterRecord(uid=uid, name="test", created="")))

    async def stop(self) -> None:
        """Stop following the store; what it holds stays."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    async def look(self, after: float = 0.0) -> float:
        """One step of the loop, `after` virtual seconds; the answer is in how many seconds it looks again."""
        self.clock.advance(after)
        return await self.sync.step() - self.clock.monotonic()

    async def settle(self) -> None:
        """Let everything that has to last for a moment last."""
        for _ in range(3):
            await self.look(1.1)

    async def put(self, key: str, value: bytes | None) -> None:
        """Write to the store as somebody else."""
        puts = (Put(key=key, value=value),) if value is not None else ()
        deletes = (key,) if value is None else ()
        result = await self.store.txn(Txn(id=self.ids.uuid(), puts=puts, deletes=deletes))
        if self._follower is not None and isinstance(result, Committed):
            await self.cache.wait_for(result.revision)

    def record(self, name: str, kind: Kind = Kind.VIRTUAL_MACHINE) -> SpecRecord | None:
        """What the store says the object is."""
        item = self.cache.get(keys.spec(kind, name))
        return load(SpecRecord, item.value) if item else None

    def living(self) -> list[str]:
        """The names of all objects that are not being deleted, sorted."""
        found = []
        for item in self.cache.prefix(keys.SPECS):
            metadata = load(SpecRecord, item.value).metadata
            if metadata.deletion_timestamp is None:
                found.append(metadata.name)
        return sorted(found)

    def stored(self, path: str) -> bytes | None:
        """The bytes of a manifest in the store."""
        item = self.cache.get(keys.manifest(path))
        return item.value if item else None

    def condition(self, name: str, kind: Kind = Kind.VIRTUAL_MACHINE) -> ManifestStatus | None:
        """What is said of the object's manifest; None when all is well."""
        status = self.manifest_status(name, kind)
        well = status is None or (status.valid and not status.message and not status.problems)
        return None if well else status

    def manifest_status(self, name: str, kind: Kind = Kind.VIRTUAL_MACHINE) -> ManifestStatus | None:
        """The whole record about the object's manifest."""
        item = self.cache.get(keys.manifest_status(kind, name))
        return load(ManifestStatus, item.value) if item else None

    def intent(self, name: str) -> Intent | None:
        """What verbs asked for."""
        item = self.cache.get(keys.intent(Kind.VIRTUAL_MACHINE, name))
        return load(Intent, item.value) if item else None

    async def finish_deletion(self, name: str) -> None:
        """What the master does when a VM is gone."""
        await self.put(keys.spec(Kind.VIRTUAL_MACHINE, name), None)

    def _record(self, type: EventType, kind: Kind, name: str, reason: str, message: str) -> None:
        self.events.append((kind, name, reason, message))

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(StoreError):
                await self.cache.step(0.5)
