"""What the manifest loop tells people: status, log lines and events. Each transition is told once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from reconciler.loops.manifest_pull import Conflict
from reconciler.planning.manifest_values import FileVerdict, Standing, SyncPlan, SyncView
from reconciler.resources.kinds import Kind
from reconciler.resources.records import EventType

log = logging.getLogger(__name__)

RecordEvent = Callable[[EventType, Kind, str, str, str], None]
"""Type, kind, name, reason, message."""


def no_event(type: EventType, kind: Kind, name: str, reason: str, message: str) -> None:
    """For a loop that nobody listens to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """What the loop says of itself. `problem`: why the directory is not followed, or deletions wait.

    `conflicts`: the conflict files that are there, for a person to look at and remove; `unwritten`: what is
    not in this directory as it is in the store, path -> why.
    """

    problem: str = ""
    files: int = 0
    invalid: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    ignored: dict[str, str] = field(default_factory=dict)
    held: str = ""
    scanned: str = ""
    conflicts: tuple[str, ...] = ()
    unwritten: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One look at the directory and what came of it."""

    view: SyncView
    plan: SyncPlan
    unwritten: Mapping[str, str] = field(default_factory=dict)


class SyncReporter:
    """Remembers what it has said."""

    def __init__(self, node: str, event: RecordEvent) -> None:
        self._node = node
        self._event = event
        self._said: dict[str, str] = {}
        self.problem = ""

    def report(self, problem: str) -> None:
        """Why the directory is not followed, or nothing."""
        if problem != self.problem:
            if problem:
                log.warning("manifests: %s", problem)
            else:
                log.info("manifests: the directory is followed")
        self.problem = problem

    def conflicts(self, found: Iterable[Conflict], plan: SyncPlan) -> None:
        """Tell of files that lost against another node's, where their objects' events are looked for."""
        objects = {verdict.path: verdict.objects for verdict in plan.verdicts}
        for conflict in found:
            message = (
                f"{conflict.path} was saved here and on another node; the other node's bytes count, and what "
                f"was here is kept in {conflict.kept}: take over from it what you need, then remove it"
            )
            log.warning("manifests: %s", message)
            named = [(key.kind, key.name) for key in objects.get(conflict.path, ())]
            for kind, name in named or [(Kind.NODE, self._node)]:
                self._event(EventType.WARNING, kind, name, "ManifestConflict", message)

    def tell(self, round: Round) -> None:
        """Log each file's transitions, and what is held, once."""
        view, plan = round.view, round.plan
        said = {f"file {verdict.path}": _line(verdict) for verdict in plan.verdicts}
        said |= {f"file {path}": f"{path} is left alone: it {why}" for path, why in view.scan.ignored.items()}
        said |= {f"unwritten {path}": why for path, why in round.unwritten.items()}
        if plan.held:
            said["held"] = plan.held.reason
        for key in sorted(said.keys() | self._said.keys()):
            before, now = self._said.get(key, ""), said.get(key, "")
            if now and now != before:
                log.warning("manifests: %s", now)
                self._record(key, now)
            elif before and not now and not key.startswith("held"):
                log.info("manifests: %s is as it should be again, or gone", key.partition(" ")[2])
        self._said = {key: text for key, text in said.items() if text}

    def status(self, last: Round | None) -> SyncStatus:
        """What is going on, for people."""
        if last is None:
            return SyncStatus(problem=self.problem)
        view, plan = last.view, last.plan
        bad = (Standing.BROKEN, Standing.CLASHING)
        return SyncStatus(
            problem=self.problem,
            files=len(view.files),
            invalid=tuple(verdict.path for verdict in plan.verdicts if verdict.standing in bad),
            waiting=tuple(
                f"{verdict.path}: {verdict.waiting}" for verdict in plan.verdicts if verdict.waiting
            ),
            ignored=dict(view.scan.ignored),
            held=plan.held.reason if plan.held else "",
            scanned=view.moment.wall,
            conflicts=view.scan.conflicts,
            unwritten=dict(sorted(last.unwritten.items())),
        )

    def _record(self, key: str, message: str) -> None:
        """What concerns this node alone is an event of the node: objects are told of by the master only."""
        if key == "held":
            self._event(EventType.WARNING, Kind.NODE, self._node, "DeletionsHeld", message)
        elif key.startswith("unwritten "):
            self._event(EventType.WARNING, Kind.NODE, self._node, "ManifestNotWritten", message)


def _line(verdict: FileVerdict) -> str:
    if verdict.standing in (Standing.BROKEN, Standing.CLASHING):
        more = f" (and {len(verdict.problems) - 1} more)" if len(verdict.problems) > 1 else ""
        return f"not taken: {verdict.problems[0].splitlines()[0]}{more}"
    return f"{verdict.path} waits: {verdict.waiting}" if verdict.waiting else ""
