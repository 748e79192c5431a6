"""The loop that follows the manifest directory: what is written there becomes records in the store, and what
other nodes wrote comes into the directory.

Hints only make it look sooner; every look is a full scan merged with the whole store, and what is written was
planned from that and compares the revisions it was planned on. When the directory is not there, or not the
right one, or the store does not answer, nothing changes, `status` says why, and it goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.loops.manifest_memory import SyncMemory
from reconciler.loops.manifest_pull import Pulled, Puller
from reconciler.loops.manifest_reader import ManifestReader
from reconciler.loops.manifest_remarks import CrossChecker
from reconciler.loops.manifest_report import RecordEvent, Round, SyncReporter, SyncStatus, no_event
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.manifest_base import update_base
from reconciler.planning.manifest_marker import Adopt, Create, Known, Refuse, judge_marker
from reconciler.planning.manifest_merge import Merge, merge
from reconciler.planning.manifest_parsed import ParseFile
from reconciler.planning.manifest_sync import BATCH_FILES, plan_sync
from reconciler.planning.manifest_values import (
    Absences,
    Asked,
    Held,
    Moment,
    ObjectKey,
    Standing,
    SyncPlan,
    SyncView,
    Write,
)
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.manifests import BaseStore, ManifestDirectory
from reconciler.resources import keys
from reconciler.resources.crosscheck import KnownObjects
from reconciler.resources.errors import ConflictError, ManifestDirectoryError, StoreUnavailable, VclError
from reconciler.resources.records import SpecRecord, dump
from reconciler.resources.scans import Base, Scan
from reconciler.resources.transactions import Committed

log = logging.getLogger(__name__)

RESCAN_SECONDS = 30.0
RETRY_SECONDS = 1.0
BLOCKED_SECONDS = 5.0
"""How long until a file that could not be written is tried again."""
SCAN_SECONDS = 10.0
ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPorts:
    """What the loop works with. `builtin`: what exists without a manifest, for checks of references.

    `is_master`: whether this node writes the objects' manifest status now; one node does, since all would
    write the same. `event` tells of what concerns this `node` alone.
    """

    directory: ManifestDirectory
    bases: BaseStore
    views: Views
    writer: Writer
    clock: Clock
    ids: Ids
    parse: ParseFile
    builtin: KnownObjects = field(default_factory=KnownObjects)
    node: str = ""
    is_master: Callable[[], bool] = lambda: True
    event: RecordEvent = no_event


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one look saw, and what it changed in the directory."""

    view: SyncView
    merged: Merge
    pulled: Pulled

    @property
    def unwritten(self) -> dict[str, str]:
        return {**self.merged.blocked, **self.pulled.failed}


class ManifestSync:
    """`step` scans, plans and commits; `run` does so for ever."""

    def __init__(self, ports: SyncPorts) -> None:
        self.ports = ports
        self.reader = ManifestReader(ports.parse, ports.views)
        self.checker = CrossChecker(ports.builtin, ports.views)
        self._puller = Puller(ports.directory, ports.clock)
        self._memory = SyncMemory(ports.bases, ports.views)
        self._reporter = SyncReporter(ports.node, ports.event)
        self.lock = asyncio.Lock()
        self.held: Held | None = None
        self.last: Round | None = None
        self._absences = Absences()
        self._deletions: dict[ObjectKey, bool] = {}
        self._confirmed: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._written = 0
        self._refusal = ""

    async def step(self) -> float:
        """Look once; the answer is when to look again, in monotonic seconds."""
        async with self.lock:
            try:
                return await self.round()
            except VclError as error:
                self._reporter.report(str(error))
                return self.ports.clock.monotonic() + RETRY_SECONDS

    async def run(self) -> None:
        """Follow the directory until cancelled."""
        hints = asyncio.create_task(self._listen(), name="manifest hints")
        unsubscribe = self.ports.views.cache.subscribe(self._store_changed)
        try:
            while True:
                self._wake.clear()
                deadline = await self.step()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(deadline - self.ports.clock.monotonic(), 0.01)):
                        await self._wake.wait()
        finally:
            unsubscribe()
            hints.cancel()
            await asyncio.gather(hints, return_exceptions=True)

    async def round(self) -> float:
        """As `step`, for callers that hold `lock`. Raises StoreError and ManifestDirectoryError."""
        await self._begin()
        now = self.ports.clock.monotonic()
        scan = await self._scan()
        batch = BATCH_FILES
        for _ in range(ATTEMPTS):
            look = await self._look(scan)
            plan = plan_sync(look.view, batch=batch)
            self.last = Round(view=look.view, plan=plan, unwritten=look.unwritten)
            self._reporter.conflicts(look.pulled.conflicts, plan)
            if await self._commit(plan):
                deadline = self._after(look, plan)
                return deadline if not await self._remark(look.view, plan) else now
            if look.pulled.changed:
                return now  # the scan is not true any more
            batch = 1
        raise ConflictError("others keep changing the same objects in the store; trying again")

    async def look(self) -> SyncView:
        """A fresh view, with what other nodes saved brought in, and nothing written to the store.
        ManifestDirectoryError when the directory is not the one that this node knows, so that nothing may be
        written there either."""
        await self._begin()
        look = await self._look(await self._scan())
        if look.pulled.changed:
            look = await self._look(await self._scan())
        if not look.view.ours:
            raise ManifestDirectoryError(
                "the manifest directory is not followed: "
                + (self._refusal or look.view.scan.problem or "it is not the one that the node knows")
            )
        await self._memory.keep(update_base(look.view, (), ()))
        return look.view

    def ask_deletion(self, key: ObjectKey, *, purge: bool) -> None:
        """A person deletes this object: its absence needs no further proof."""
        self._deletions[key] = purge or self._deletions.get(key, False)

    def withdraw(self, key: ObjectKey) -> None:
        """Forget `ask_deletion`: the file could not be changed."""
        self._deletions.pop(key, None)

    def confirm(self, ident: str) -> bool:
        """Let held deletions pass at the next step; False when none with this id are held."""
        if self.held is None or self.held.id != ident:
            return False
        self._confirmed |= {ident}
        self.wake()
        return True

    def wake(self) -> None:
        """Look again now."""
        self._wake.set()

    def status(self) -> SyncStatus:
        """What is going on, for people."""
        return self._reporter.status(self.last)

    async def _begin(self) -> None:
        """ManifestDirectoryError when the store cannot be worked with."""
        if self.ports.views.cache.get(keys.SCHEMA) is None:
            raise ManifestDirectoryError("the store is not ready yet")
        await self._memory.begin()
        if self._memory.doubt:
            raise ManifestDirectoryError(self._memory.doubt)

    async def _scan(self) -> Scan:
        """Scan, and settle whether it is the right directory."""
        directory = self.ports.directory
        scan = await directory.scan(timeout=SCAN_SECONDS)
        self._refusal = ""
        match judge_marker(scan, self._memory.base, self.reader.store().files):
            case Known():
                pass
            case Adopt(marker=marker):
                await self._memory.keep(Base(marker=marker, cluster=self._memory.base.cluster))
            case Create(marker=marker):
                marker = marker or self.ports.ids.uuid()
                await directory.initialise(marker)
                log.info("manifests: the directory is now marked as %s", marker)
                if marker != self._memory.base.marker:
                    await self._memory.keep(Base(marker=marker, cluster=self._memory.base.cluster))
                scan = await directory.scan(timeout=SCAN_SECONDS)
            case Refuse(problem=problem):
                self._refusal = problem
        return scan

    async def _look(self, scan: Scan) -> _Look:
        """Merge the scan with the store, and bring the directory to what came of it. Never with a copy from
        before the last write of this loop: that would look as if somebody had saved the older file again."""
        if self.ports.views.cache.revision < self._written:
            raise StoreUnavailable("the copy of the store does not show the last write of manifests yet")
        now = self.ports.clock.monotonic()
        store, ages = self.reader.store(), self.reader.ages(scan, now)
        base = self._memory.base
        ours = bool(scan.marker) and scan.marker == base.marker
        wait = scan.git_busy or not self.ports.views.cache.healthy
        merged = merge(scan, store.files if ours else {}, base if ours else Base(), ages, wait=wait)
        contents = self.reader.contents(merged.steps)
        files = await self.reader.files(scan, merged.sides, now)
        pulled = await self._pull(merged, contents, scan)
        view = SyncView(
            scan=scan,
            files=files,
            store=store,
            base=self._memory.base,
            absences=self._absences,
            moment=Moment(monotonic=now, wall=self.ports.clock.wall(), seed=self.ports.ids.uuid()),
            asked=Asked(deletions=dict(self._deletions), confirmed=self._confirmed),
            remarks=self.checker.remarks,
            foreign=merged.foreign,
            master=self.ports.is_master(),
        )
        return _Look(view=view, merged=merged, pulled=pulled)

    async def _pull(self, merged: Merge, contents: Mapping[str, bytes], scan: Scan) -> Pulled:
        if not merged.steps:
            return Pulled()
        await self._memory.keep(merged.base)
        pulled = await self._puller.carry_out(merged.steps, contents, scan)
        self._memory.forget(pulled.removed)
        return pulled

    async def _remark(self, view: SyncView, plan: SyncPlan) -> bool:
        """Check what was taken against each other; True when there is something new to tell."""
        if not view.master:
            return False
        good = {verdict.path for verdict in plan.verdicts if verdict.standing is Standing.GOOD}
        return await self.checker.refresh([file for file in view.files if file.path in good])

    async def _commit(self, plan: SyncPlan) -> bool:
        """Write the plan; False when it was decided on a copy of the store that was too old."""
        await self._memory.keep(plan.base)
        done: list[Write] = []
        try:
            for write in (*plan.writes, *plan.statuses):
                if not await self._write(write):
                    return False
                done.append(write)
        finally:
            await self._memory.committed(done)
        return True

    async def _write(self, write: Write) -> bool:
        result = await self.ports.writer.commit(
            compares=write.compares, puts=write.puts, deletes=sorted(write.deletes)
        )
        lost = conflicts(result)
        if lost:
            log.info("manifests: %s changed meanwhile, deciding again", ", ".join(lost[:3]))
            await self._catch_up(write, lost)
            return False
        if isinstance(result, Committed):
            self._written = result.revision
        for reason in write.reasons:
            log.info("manifests: %s", reason)
        return True

    async def write_record(self, key: str, record: SpecRecord, revision: int) -> None:
        """Replace one record as it was at `revision`. ConflictError when it changed meanwhile."""
        if not await self._write(Write(compares={key: revision}, puts={key: dump(record)})):
            raise ConflictError("the object changed meanwhile", cure="try again")

    async def _catch_up(self, write: Write, lost: Iterable[str]) -> None:
        """Let the copy of the store see what a write lost against."""
        cache = self.ports.views.cache
        expected = {key: write.compares[key] for key in lost if key in write.compares}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                while all(cache.revision_of(key) == revision for key, revision in expected.items()):
                    await cache.wait_for(cache.revision + 1)

    def _after(self, look: _Look, plan: SyncPlan) -> float:
        """Keep what the next look needs, tell what changed, and say when to look again."""
        self._absences = plan.absences
        self.held = plan.held
        objects = self.reader.store().objects
        self._deletions = {
            key: purge
            for key, purge in self._deletions.items()
            if key in objects and not objects[key].terminating
        }
        if not plan.held and not plan.absences.objects:
            self._confirmed = frozenset()
        self._reporter.report(self._refusal or plan.problem)
        if self.last is not None:
            self._reporter.tell(self.last)
        return self.ports.clock.monotonic() + self._pause(look, plan)

    def _pause(self, look: _Look, plan: SyncPlan) -> float:
        """Seconds until the next look, unless something happens before."""
        if look.pulled.changed:
            return 0.0
        waits = [seconds for seconds in (plan.again, look.merged.again) if seconds is not None]
        if not look.view.ours or not look.view.trusted or look.merged.waiting:
            waits.append(RETRY_SECONDS)
        if look.pulled.failed:
            waits.append(BLOCKED_SECONDS)
        return min(waits) if waits else RESCAN_SECONDS * (0.9 + 0.2 * self.ports.ids.jitter())

    async def _listen(self) -> None:
        async for _ in self.ports.directory.changes():
            self.wake()

    def _store_changed(self, changed: frozenset[str]) -> None:
        """Look when another node saved a file, when this node may have become master, and, for a file that
        waits for an object to be gone, when an object has changed."""
        waiting = self.last is not None and any(
            verdict.standing is Standing.WAITING for verdict in self.last.plan.verdicts
        )
        prefixes = (keys.MANIFESTS, keys.SPECS) if waiting else keys.MANIFESTS
        if any(key.startswith(prefixes) or key in (keys.SCHEMA, keys.EPOCH) for key in changed):
            self.wake()
