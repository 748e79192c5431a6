"""The store's server side: one for the whole world, reached by every node over a way that can fail.

A way is open, cut (requests and answers vanish) or stalled (requests wait and are applied late, as by a
frozen OSD). What a node has sent is applied even when the node is dead by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from reconciler.resources.transactions import Changes, NotApplied, Resolution, Txn, TxnResult, WatchResult
from reconciler.sim.store import MemoryCluster
from reconciler.sim.world.loop import NodeLoop
from reconciler.sim.world.schedule import Schedule

LATENCY = 0.0008
JITTER = 0.0006
LATE_WITHIN = 0.5
"""Seconds after the end of a stall, at most, until a transaction that waited is applied."""

Answer = Callable[[Any], None]
Say = Callable[[str], None]


class Reach(StrEnum):
    """What becomes of a node's requests."""

    OPEN = "Open"
    CUT = "Cut"
    STALLED = "Stalled"


class _Cluster(MemoryCluster):
    """Tells of each commit, without an event that would belong to one loop."""

    def __init__(self, *, log_size: int, moved: Callable[[], None]) -> None:
        super().__init__(log_size=log_size)
        self._tell = moved

    def wake(self) -> None:
        """See MemoryCluster.wake."""
        self._tell()


class Watcher:
    """A watch that waits at the server: answered by the first commit after `since`, or at its end."""

    __slots__ = ("answer", "loop", "node", "open", "since")

    def __init__(self, node: str, loop: NodeLoop, since: int, answer: Answer) -> None:
        self.node = node
        self.loop = loop
        self.since = since
        self.answer = answer
        self.open = True


@dataclass(frozen=True, slots=True)
class _Held:
    """A request that waits for the end of a stall. Those in order are applied in the order of sending."""

    node: str
    arrive: Callable[[], None]
    in_order: bool


class Storage:
    """The cluster's state and leases, and the way of every node to them."""

    def __init__(self, schedule: Schedule, random: Random, say: Say, *, log_size: int = 10_000) -> None:
        self.cluster = _Cluster(log_size=log_size, moved=self._moved)
        self.leases: dict[str, bytes] = {}
        self._schedule = schedule
        self._random = random
        self._say = say
        self._ways: dict[str, Reach] = {}
        self._barred: set[str] = set()
        self._held: list[_Held] = []
        self._watchers: dict[Watcher, None] = {}
        self._resolved: dict[str, int] = {}
        self._sent = 0
        self._last: dict[str, float] = {}
        self._losses: dict[str, list[Callable[[], None]]] = {}

    # -- faults ----------------------------------------------------------------------------------------

    def add(self, node: str) -> None:
        """Its way is open."""
        self._ways[node] = Reach.OPEN

    def reach(self, node: str) -> Reach:
        """What becomes of its requests now."""
        return Reach.CUT if node in self._barred else self._ways[node]

    def way(self, node: str) -> Reach:
        """The same of a client that the blocklist's entry for the daemon does not concern."""
        return self._ways[node]

    def refuses(self, node: str) -> bool:
        """Whether it is told at once that it is fenced: the blocklist has it, and its way is open."""
        return node in self._barred and self._ways[node] is Reach.OPEN

    def bar(self, node: str, *, barred: bool) -> None:
        """The blocklist refuses its daemon from now on, or does so no more; whatever its way is like."""
        if barred == (node in self._barred):
            return
        self._say(f"store: {node} is {'fenced' if barred else 'let in'}")
        if not barred:
            self._barred.remove(node)
            self._moved()
            return
        reached = self.reach(node) is Reach.OPEN
        self._barred.add(node)
        for lost in list(self._losses.get(node, ())) if reached else ():
            lost()

    def cut(self, *nodes: str) -> None:
        """These nodes (none: all) do not reach the store, and hear nothing from it."""
        self._set(Reach.CUT, nodes)

    def stall(self, *nodes: str) -> None:
        """Requests of these nodes (none: all) wait until `heal`, and are then applied, late."""
        self._set(Reach.STALLED, nodes)

    def heal(self, *nodes: str) -> None:
        """The ways of these nodes (none: all) are open again."""
        self._set(Reach.OPEN, nodes)

    def _set(self, reach: Reach, nodes: Iterable[str]) -> None:
        chosen = list(nodes) or sorted(self._ways)
        self._say(f"store: {reach.lower()} for {' '.join(nodes) or 'all'}")
        for node in chosen:
            before, self._ways[node] = self._ways[node], reach
            if before is Reach.OPEN and reach is not Reach.OPEN and node not in self._barred:
                for lost in list(self._losses.get(node, ())):
                    lost()
            if before is Reach.STALLED and reach is not Reach.STALLED:
                self._release(node, lost=reach is Reach.CUT)
        self._moved()

    def _release(self, node: str, *, lost: bool) -> None:
        """What waited goes on: transactions at any time soon, the rest in order. A cut loses half of it."""
        waiting = [held for held in self._held if held.node == node]
        self._held = [held for held in self._held if held.node != node]
        for held in waiting:
            if lost and self._random.random() < 0.5:
                continue
            if held.in_order:
                self._schedule.call_at(self._in_order(node), held.arrive)
            else:
                self._schedule.call_later(self._random.random() * LATE_WITHIN, held.arrive)

    # -- requests: `answer` is called on the node's loop, or never -------------------------------------

    def request(
        self, node: str, loop: NodeLoop, work: Callable[[], Any], answer: Answer, *, in_order: bool = True
    ) -> bool:
        """Send; False when it is certain that it will not arrive. `work` runs at the server; None from it
        is no answer."""

        def arrive() -> None:
            reach = self.reach(node)
            if reach is Reach.STALLED:
                self._held.append(_Held(node, arrive, in_order))
            elif reach is Reach.OPEN:
                self._reply(node, loop, answer, work())

        if self.reach(node) is Reach.CUT:
            return False
        self._schedule.call_at(self._in_order(node), arrive)
        return True

    def transact(self, node: str, loop: NodeLoop, txn: Txn, answer: Answer) -> bool:
        """The same for a transaction, which a later `resolve` keeps from being applied."""
        self._sent += 1
        sent = self._sent

        def work() -> TxnResult | None:
            if self._resolved.get(txn.id, 0) > sent:
                return None
            return self.cluster.apply(txn)

        return self.request(node, loop, work, answer, in_order=False)

    def resolve(self, txn_id: str) -> Resolution:
        """At the server: what became of it. NotApplied holds for what is still on its way."""
        resolution = self.cluster.resolve(txn_id)
        if isinstance(resolution, NotApplied):
            self._sent += 1
            self._resolved[txn_id] = self._sent
        return resolution

    def write_lease(self, node: str, value: bytes) -> bool:
        """At the server: the newest value of that node's lease."""
        self.leases[node] = value
        return True

    def watch(self, node: str, loop: NodeLoop, since: int, timeout: float, answer: Answer) -> Watcher:
        """Wait at the server for up to `timeout` s; `leave` it in the end. Not answered when the way is not
        open at that moment."""
        watcher = Watcher(node, loop, since, answer)

        def look() -> WatchResult | None:
            result = self._changes(watcher)
            if _is_news(result) or timeout <= 0:
                return result
            if watcher.open:
                self._watchers[watcher] = None
                self._schedule.call_later(timeout, self._end, watcher)
            return None

        self.request(node, loop, look, answer)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Nobody waits for it any more."""
        watcher.open = False
        self._watchers.pop(watcher, None)

    def on_loss(self, node: str, lost: Callable[[], None]) -> Callable[[], None]:
        """Call `lost` whenever the node's way is not open any more; returns the undo."""
        losses = self._losses.setdefault(node, [])
        losses.append(lost)
        return lambda: losses.remove(lost)

    # -- inside ----------------------------------------------------------------------------------------

    def _changes(self, watcher: Watcher) -> WatchResult:
        return self.cluster.changes(watcher.since)

    def _end(self, watcher: Watcher) -> None:
        if watcher in self._watchers:
            del self._watchers[watcher]
            self._reply(watcher.node, watcher.loop, watcher.answer, self._changes(watcher))

    def _moved(self) -> None:
        for watcher in list(self._watchers):
            if self.reach(watcher.node) is Reach.OPEN:
                result = self._changes(watcher)
                if _is_news(result):
                    del self._watchers[watcher]
                    self._reply(watcher.node, watcher.loop, watcher.answer, result)

    def _reply(self, node: str, loop: NodeLoop, answer: Answer, result: Any) -> None:
        if result is None:
            return

        def arrive() -> None:
            if self.reach(node) is Reach.OPEN:
                loop.call_soon(answer, result)

        self._schedule.call_later(self._travel(), arrive)

    def _in_order(self, node: str) -> float:
        """When the next request of this node arrives: never before the one before it."""
        at = max(self._schedule.now + self._travel(), self._last.get(node, 0.0))
        self._last[node] = at
        return at

    def _travel(self) -> float:
        return LATENCY + self._random.random() * JITTER


def _is_news(result: WatchResult) -> bool:
    return not isinstance(result, Changes) or bool(result.events)
