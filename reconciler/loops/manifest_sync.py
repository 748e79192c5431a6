"""The loop that follows the manifest directory: what is written there becomes records in the store.

Hints only make it look sooner; every look is a full scan, and what is written was planned from that scan and
compares the revisions it was planned on. When the directory is not there, or not the right one, or the store
does not answer, nothing changes, the reason is kept in `status`, and it goes on by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from reconciler.loops.manifest_reader import ManifestReader
from reconciler.loops.manifest_remarks import CrossChecker
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.manifest_marker import Adopt, Create, Known, Refuse, judge_marker
from reconciler.planning.manifest_parsed import ParseFile
from reconciler.planning.manifest_sync import BATCH_FILES, plan_sync
from reconciler.planning.manifest_values import (
    Absences,
    Asked,
    FileVerdict,
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
from reconciler.resources.errors import ConflictError, ManifestDirectoryError, VclError
from reconciler.resources.records import SpecRecord, dump
from reconciler.resources.scans import Base, Scan

log = logging.getLogger(__name__)

RESCAN_SECONDS = 30.0
RETRY_SECONDS = 1.0
SCAN_SECONDS = 10.0
ATTEMPTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPorts:
    """What the loop works with. `builtin`: what exists without a manifest, for checks of references."""

    directory: ManifestDirectory
    bases: BaseStore
    views: Views
    writer: Writer
    clock: Clock
    ids: Ids
    parse: ParseFile
    builtin: KnownObjects = field(default_factory=KnownObjects)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """What the loop says of itself. `problem`: why the directory is not followed, or deletions wait."""

    problem: str = ""
    files: int = 0
    invalid: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    ignored: dict[str, str] = field(default_factory=dict)
    held: str = ""
    scanned: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One look at the directory and what came of it."""

    view: SyncView
    plan: SyncPlan


class ManifestSync:
    """`step` scans, plans and commits; `run` does so for ever."""

    def __init__(self, ports: SyncPorts) -> None:
        self.ports = ports
        self.reader = ManifestReader(ports.parse, ports.views)
        self.checker = CrossChecker(ports.builtin, ports.views)
        self.lock = asyncio.Lock()
        self.held: Held | None = None
        self.last: Round | None = None
        self._base: Base | None = None
        self._absences = Absences()
        self._deletions: dict[ObjectKey, bool] = {}
        self._confirmed: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._unsaved = False
        self._refusal = ""
        self._problem = ""
        self._said: dict[str, str] = {}

    async def step(self) -> float:
        """Look once; the answer is when to look again, in monotonic seconds."""
        async with self.lock:
            try:
                return await self.round()
            except VclError as error:
                self._report(str(error))
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
        if self.ports.views.cache.get(keys.SCHEMA) is None:
            self._report("the store is not ready yet")
            return self.ports.clock.monotonic() + RETRY_SECONDS
        now = self.ports.clock.monotonic()
        scan = await self._scan()
        batch = BATCH_FILES
        for _ in range(ATTEMPTS):
            view = await self._view(scan)
            plan = plan_sync(view, batch=batch)
            self.last = Round(view=view, plan=plan)
            if await self._commit(plan):
                deadline = self._after(view, plan)
                return deadline if not await self._remark(view, plan) else now
            batch = 1
        raise ConflictError("others keep changing the same objects in the store; trying again")

    async def look(self) -> SyncView:
        """A fresh view without writing anything. ManifestDirectoryError when the directory is not the one
        that this node knows, so that nothing may be written there either."""
        if self.ports.views.cache.get(keys.SCHEMA) is None:
            raise ManifestDirectoryError("the store is not ready yet", cure="try again in a moment")
        view = await self._view(await self._scan())
        if not view.ours:
            raise ManifestDirectoryError(
                "the manifest directory is not followed: "
                + (self._refusal or view.scan.problem or "it is not the one that the node knows")
            )
        return view

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
        if self.last is None:
            return SyncStatus(problem=self._problem)
        view, plan = self.last.view, self.last.plan
        bad = (Standing.BROKEN, Standing.CLASHING)
        return SyncStatus(
            problem=self._problem,
            files=len(view.files),
            invalid=tuple(verdict.path for verdict in plan.verdicts if verdict.standing in bad),
            waiting=tuple(
                f"{verdict.path}: {verdict.waiting}" for verdict in plan.verdicts if verdict.waiting
            ),
            ignored=dict(view.scan.ignored),
            held=self.held.reason if self.held else "",
            scanned=view.moment.wall,
        )

    async def _scan(self) -> Scan:
        """Scan, and settle whether it is the right directory."""
        directory = self.ports.directory
        scan = await directory.scan(timeout=SCAN_SECONDS)
        if self._base is None:
            self._base = await self.ports.bases.load()
        self._refusal = ""
        match judge_marker(scan, self._base, self.reader.store().files):
            case Known():
                pass
            case Adopt(marker=marker):
                await self._save(Base(marker=marker))
            case Create(marker=marker):
                marker = marker or self.ports.ids.uuid()
                await directory.initialise(marker)
                log.info("manifests: the directory is now marked as %s", marker)
                if marker != self._base.marker:
                    await self._save(Base(marker=marker))
                scan = await directory.scan(timeout=SCAN_SECONDS)
            case Refuse(problem=problem):
                self._refusal = problem
        return scan

    async def _view(self, scan: Scan) -> SyncView:
        now = self.ports.clock.monotonic()
        files = await self.reader.files(scan, now)
        return SyncView(
            scan=scan,
            files=files,
            store=self.reader.store(),
            base=self._base or Base(),
            absences=self._absences,
            moment=Moment(monotonic=now, wall=self.ports.clock.wall(), seed=self.ports.ids.uuid()),
            asked=Asked(deletions=dict(self._deletions), confirmed=self._confirmed),
            remarks=self.checker.remarks,
        )

    async def _remark(self, view: SyncView, plan: SyncPlan) -> bool:
        """Check what was taken against each other; True when there is something new to tell."""
        good = {verdict.path for verdict in plan.verdicts if verdict.standing is Standing.GOOD}
        return await self.checker.refresh([file for file in view.files if file.path in good])

    async def _commit(self, plan: SyncPlan) -> bool:
        """Write the plan; False when it was decided on a copy of the store that was too old."""
        if plan.base != self._base or self._unsaved:
            await self._save(plan.base)
        for write in (*plan.writes, *plan.statuses):
            if not await self._write(write):
                return False
        return True

    async def _write(self, write: Write) -> bool:
        result = await self.ports.writer.commit(
            compares=write.compares, puts=write.puts, deletes=sorted(write.deletes)
        )
        lost = conflicts(result)
        if lost:
            log.info("manifests: %s changed meanwhile, deciding again", ", ".join(lost[:3]))
            await self._catch_up()
            return False
        for reason in write.reasons:
            log.info("manifests: %s", reason)
        return True

    async def write_record(self, key: str, record: SpecRecord, revision: int) -> None:
        """Replace one record as it was at `revision`. ConflictError when it changed meanwhile."""
        if not await self._write(Write(compares={key: revision}, puts={key: dump(record)})):
            raise ConflictError("the object changed meanwhile", cure="try again")

    async def _catch_up(self) -> None:
        """Let the copy of the store see what it lost against."""
        cache = self.ports.views.cache
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY_SECONDS):
                await cache.wait_for(cache.revision + 1)

    async def _save(self, base: Base) -> None:
        """Remember what this node has. Failing costs nothing but caution after a restart: go on."""
        self._base = base
        try:
            await self.ports.bases.save(base)
        except ManifestDirectoryError as error:
            if not self._unsaved:
                log.warning("manifests: %s", error)
            self._unsaved = True
        else:
            self._unsaved = False

    def _after(self, view: SyncView, plan: SyncPlan) -> float:
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
        self._report(self._refusal or plan.problem)
        self._tell(view, plan)
        now = self.ports.clock.monotonic()
        if plan.again is not None:
            return now + plan.again
        if not view.ours or not view.trusted:
            return now + RETRY_SECONDS
        return now + RESCAN_SECONDS * (0.9 + 0.2 * self.ports.ids.jitter())

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            if problem:
                log.warning("manifests: %s", problem)
            else:
                log.info("manifests: the directory is followed")
        self._problem = problem

    def _tell(self, view: SyncView, plan: SyncPlan) -> None:
        """Log each file's transitions, and what is held, once."""
        said = {f"file {verdict.path}": _line(verdict) for verdict in plan.verdicts}
        said |= {f"file {path}": f"{path} is left alone: it {why}" for path, why in view.scan.ignored.items()}
        if plan.held:
            said["held"] = plan.held.reason
        for key in sorted(said.keys() | self._said.keys()):
            before, now = self._said.get(key, ""), said.get(key, "")
            if now and now != before:
                log.warning("manifests: %s", now)
            elif before and not now and key.startswith("file "):
                log.info("manifests: %s is as it should be again, or gone", key.removeprefix("file "))
        self._said = {key: text for key, text in said.items() if text}

    async def _listen(self) -> None:
        async for _ in self.ports.directory.changes():
            self.wake()

    def _store_changed(self, changed: frozenset[str]) -> None:
        """A file that waits for an object to be gone is looked at as soon as it is."""
        waiting = self.last is not None and any(
            verdict.standing is Standing.WAITING for verdict in self.last.plan.verdicts
        )
        if (waiting and any(key.startswith(keys.SPECS) for key in changed)) or keys.SCHEMA in changed:
            self.wake()


def _line(verdict: FileVerdict) -> str:
    if verdict.standing in (Standing.BROKEN, Standing.CLASHING):
        more = f" (and {len(verdict.problems) - 1} more)" if len(verdict.problems) > 1 else ""
        return f"not taken: {verdict.problems[0].splitlines()[0]}{more}"
    return f"{verdict.path} waits: {verdict.waiting}" if verdict.waiting else ""
