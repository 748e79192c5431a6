"""Brings the directory to what the store has: writes, removals, and conflict files for what would be lost.

The invariant: each change says what it expects to find, so bytes that a user saved a moment ago stay; and
what cannot be changed (a full disk, a directory of that name) is told, and keeps nothing else from going on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.planning.manifest_merge import Step
from reconciler.ports.clock import Clock
from reconciler.ports.manifests import ManifestDirectory
from reconciler.resources.errors import VclError
from reconciler.resources.scans import Scan

log = logging.getLogger(__name__)

PORTION = 100
"""Steps in one go; then the directory is looked at again."""
PATIENCE_SECONDS = 5.0
"""A directory that answers slowly is looked at again after so long, so that nothing waits for the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """What a user saved in `path` lost, and is in `kept` now."""

    path: str
    kept: str


@dataclass(slots=True, kw_only=True)
class Pulled:
    """What came of the steps. `failed`: path -> why; `rest`: some were left for the next look."""

    written: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    rest: bool = False

    @property
    def changed(self) -> bool:
        """Whether the directory is not as it was scanned."""
        return bool(self.written or self.removed)


class Puller:
    """Carries out the steps of a merge."""

    def __init__(self, directory: ManifestDirectory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._failed: frozenset[str] = frozenset()

    async def carry_out(self, steps: Iterable[Step], contents: Mapping[str, bytes], scan: Scan) -> Pulled:
        """Every step, or a portion; one that fails is noted, the others go on and go first next time.
        `contents`: the store's bytes for each path, as they were when the steps were decided."""
        done = Pulled()
        here = {file.path: file.data for file in scan.files}
        began = self._clock.monotonic()
        ordered = sorted(steps, key=lambda step: (step.path in self._failed, step.path))
        for number, step in enumerate(ordered):
            if number >= PORTION or self._clock.monotonic() - began > PATIENCE_SECONDS:
                done.rest = True
                break
            try:
                await self._step(step, contents, here, done)
            except VclError as error:
                done.failed[step.path] = str(error)
        self._failed = frozenset(done.failed)
        return done

    async def _step(
        self, step: Step, contents: Mapping[str, bytes], here: Mapping[str, bytes | None], done: Pulled
    ) -> None:
        if step.remove:
            await self._directory.remove(step.path, expect=step.expect or "")
            done.removed.append(step.path)
            log.info("manifests: %s was removed on another node, and so it is here", step.path)
            return
        mine, kept = here.get(step.path), ""
        if step.aside and mine is not None:
            kept = await self._directory.keep(step.path, mine)
        await self._directory.write(step.path, contents[step.path], expect=step.expect)
        done.written.append(step.path)
        if kept:
            done.conflicts.append(Conflict(path=step.path, kept=kept))
        log.info("manifests: %s is now as saved on another node", step.path)
