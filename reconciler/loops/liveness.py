"""What this node sees of the others, for people: the cluster as one value, each node's line, and a log line
for each change.

Invariant: nothing is decided here. The elector and the master judge for themselves, from the same sights.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from reconciler.planning.cluster_view import ClusterView, NodeLine
from reconciler.planning.liveness import Standing
from reconciler.planning.merge import merged_object
from reconciler.planning.merge_node import with_liveness
from reconciler.planning.merge_vm import as_seen
from reconciler.planning.snapshots import Snapshot
from reconciler.ports.clock import Clock
from reconciler.resources.kinds import Kind

log = logging.getLogger(__name__)

FRESH = 0.05
"""Seconds for which one look serves all who ask: a list of a hundred nodes is one look."""

Listener = Callable[[frozenset[str]], None]
"""Called with the nodes of which something else is seen than before."""


class Liveness:
    """`look`: the cluster as this node sees it now (loops/cluster_status). `run` for ever."""

    def __init__(self, look: Callable[[], ClusterView], clock: Clock, interval: float) -> None:
        self._look = look
        self._clock = clock
        self._interval = interval
        self._known: dict[str, tuple[object, ...]] = {}
        self._since: dict[str, str] = {}
        self._latest: tuple[float, ClusterView, Mapping[str, NodeLine]] | None = None
        self._listeners: list[Listener] = []

    def view(self) -> ClusterView:
        """The cluster as it is seen now."""
        return self._looked()[0]

    def line(self, node: str) -> NodeLine | None:
        """What is seen of one node; None when it is no member."""
        return self._looked()[1].get(node)

    def merged(self, snapshot: Snapshot, kind: Kind, name: str) -> Mapping[str, Any] | None:
        """The merged object for a file that is written at changes only: what is seen of a node is in it as it
        was at the change, and nothing that grows old by itself."""
        found = merged_object(snapshot, kind, name)
        if found is not None and kind is Kind.VIRTUAL_MACHINE:
            return as_seen(found, self.line)
        line = self.line(name) if found is not None and kind is Kind.NODE else None
        if found is None or line is None:
            return found
        lasting = replace(
            line, link=None, heartbeat_age=None, lease_age=None, load=None, disk_free=None, revision=None
        )
        return with_liveness(found, lasting)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` when a node's standing, or the master, is seen to change; returns the undo."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """Look as often as heartbeats come."""
        while True:
            self.step()
            await asyncio.sleep(self._interval)

    def step(self) -> frozenset[str]:
        """One look; the nodes of which something else is seen than before."""
        lines = {line.name: line for line in self._look().nodes}
        changed = {name for name in self._known if name not in lines}
        for name, line in lines.items():
            before, now = self._known.get(name), _outline(line)
            if before == now:
                continue
            changed.add(name)
            if before is None or before[0] != line.standing:
                self._note(line, str(before[0]) if before is not None else "")
        self._known = {name: _outline(line) for name, line in lines.items()}
        if changed:
            self._latest = None
            for listener in list(self._listeners):
                listener(frozenset(changed))
        return frozenset(changed)

    def _note(self, line: NodeLine, before: str) -> None:
        """One line in the log for each change of standing; the first look is none."""
        if not before:
            return
        self._since[line.name] = self._clock.wall()
        level = logging.INFO if line.standing in (Standing.READY, Standing.STOPPED) else logging.WARNING
        because = f": {line.reason}" if line.reason else ""
        log.log(level, "node %s: %s -> %s%s", line.name, before, line.standing, because)

    def _looked(self) -> tuple[ClusterView, Mapping[str, NodeLine]]:
        now = self._clock.monotonic()
        if self._latest is None or now - self._latest[0] > FRESH:
            view = self._look()
            nodes = tuple(replace(line, since=self._since.get(line.name, "")) for line in view.nodes)
            view = replace(view, nodes=nodes)
            self._latest = (now, view, {line.name: line for line in nodes})
        return self._latest[1], self._latest[2]


def _outline(line: NodeLine) -> tuple[object, ...]:
    """What people are told of when it changes."""
    return line.standing, line.master, bool(line.held), line.ending
