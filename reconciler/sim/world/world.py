"""The world: nodes, network and storage on one virtual time line.

Invariant: everything that happens follows from the seed and from what the test does. So a run that failed can
be seen again.
"""

from __future__ import annotations

import contextlib
import logging
from asyncio import events
from collections.abc import Callable, Coroutine, Iterable, Iterator
from random import Random
from types import TracebackType
from typing import Any, Self

from reconciler.sim.world.errors import NodeFailed, NotInTime, SimulationError
from reconciler.sim.world.faults import Faults
from reconciler.sim.world.loop import NodeLoop, nobody_running
from reconciler.sim.world.network import Network, NetworkTimes
from reconciler.sim.world.node import Node, NodePorts, Program
from reconciler.sim.world.record import Log, NodeLogs
from reconciler.sim.world.schedule import Schedule
from reconciler.sim.world.storage import Storage

PRODUCTION = ("reconciler", "vcld")
"""Whose log records are the nodes' own."""
LOOK_GRACE = 5.0
"""Virtual seconds that a node has to look at a task of its own that failed."""


class World:
    """Use it with `with`: at the end everything that was suspended is closed.

    `level`: log records of production code from this level on are kept. `log_size`: transactions that the
    store remembers.
    """

    def __init__(
        self,
        seed: int,
        *,
        times: NetworkTimes | None = None,
        log_size: int = 10_000,
        level: int = logging.INFO,
    ) -> None:
        self.seed = seed
        self.schedule = Schedule()
        self.log: Log = Log(lambda: self.schedule.now)
        self.network: Network = Network(self.schedule, Random(f"{seed}/network"), self.say, times=times)
        self.storage: Storage = Storage(self.schedule, Random(f"{seed}/storage"), self.say, log_size=log_size)
        self.faults: Faults = Faults(self)
        self.reproducer = f"World(seed={seed})"
        self._nodes: dict[str, Node] = {}
        self._loops: list[NodeLoop] = []
        self._failures: list[tuple[str, BaseException | None]] = []
        self._checks: list[Callable[[], object]] = []
        self._handler = NodeLogs(self.log, _running_node, level)
        self._loggers: list[tuple[logging.Logger, int, bool]] = []

    # -- building --------------------------------------------------------------------------------------

    def add(self, name: str, program: Program, *, address: str | None = None) -> Node:
        """A host that is switched off; `program` runs on it whenever it is on."""
        if name in self._nodes:
            raise SimulationError(f"there is a node {name} already")
        number = len(self._nodes) + 1
        where = address if address is not None else f"10.0.{number >> 8}.{number & 255}"
        node = self._nodes[name] = Node(self, name, program, address=where)
        return node

    def node(self, name: str) -> Node:
        """One of them. SimulationError when there is none of that name."""
        if name not in self._nodes:
            raise SimulationError(f"there is no node {name!r}; there are {', '.join(self.names) or 'none'}")
        return self._nodes[name]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In the order in which they were added."""
        return tuple(self._nodes.values())

    @property
    def names(self) -> tuple[str, ...]:
        """The same, by name."""
        return tuple(self._nodes)

    def power_on(self, names: Iterable[str] = ()) -> None:
        """These hosts, or all."""
        for name in tuple(names) or self.names:
            self.node(name).power_on()

    # -- running ---------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual seconds since the world began."""
        return self.schedule.now

    def always(self, check: Callable[[], object]) -> None:
        """Call `check` after every event from now on; what it raises ends the run."""
        self._checks.append(check)

    def at(self, when: float, happen: Callable[[], object]) -> None:
        """Let something happen at that time."""
        self.schedule.call_at(when, happen)

    def run_for(self, seconds: float) -> None:
        """Let so much time pass. Raises NodeFailed at the first failure that nobody handled."""
        self._run(self.now + seconds, None)

    def run_until(self, condition: Callable[[], object], limit: float = 60.0, what: str = "") -> float:
        """Let time pass until the condition holds after an event; the seconds that took. Raises NotInTime
        after `limit` seconds."""
        began = self.now
        if not condition() and not self._run(began + limit, condition):
            what = what or getattr(condition, "__name__", "the condition")
            raise NotInTime(f"not within {limit:g} s, at {self.now:.3f} s: {what} ({self.reproducer})")
        return self.now - began

    def call(
        self, name: str, factory: Callable[[NodePorts], Coroutine[Any, Any, Any]], limit: float = 60.0
    ) -> Any:
        """Run a coroutine in that node's process until it is done, and give its result."""
        task = self.node(name).spawn(factory)
        self.run_until(task.done, limit, f"{name} is done with {factory}")
        return task.result()

    def _run(self, end: float, condition: Callable[[], object] | None) -> bool:
        schedule, failures, checks = self.schedule, self._failures, self._checks
        with nobody_running():
            self._listen()
            try:
                while schedule.next() <= end:
                    schedule.step()
                    for check in checks:
                        self._check(check)
                    if failures:
                        break
                    if condition is not None and condition():
                        return True
                else:
                    schedule.now = end
            finally:
                self._deafen()
            self._raise_failures(schedule.now - LOOK_GRACE)
        return False

    def _check(self, check: Callable[[], object]) -> None:
        try:
            check()
        except Exception as error:
            error.add_note(f"at {self.now:.3f} s of {self.reproducer}")
            raise

    # -- what happened ---------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """A line of the world's own."""
        self.log.write("", text)

    def fail(self, node: str, what: str, error: BaseException | None) -> None:
        """Something that nobody handled: the run ends with it."""
        said = f": {type(error).__name__}: {error}" if error is not None else ""
        self.log.write(node, f"FAILED: {what}{said}")
        text = f"{node} at {self.now:.3f} s: {what}{said} ({self.reproducer})"
        self._failures.append((text, error))

    def _raise_failures(self, before: float) -> None:
        for loop in self._loops:
            if not loop.dropped:
                for what, cause in loop.forgotten(before):
                    self.fail(loop.name, what, cause)
        if self._failures:
            text, error = self._failures[0]
            self._failures.clear()
            raise NodeFailed(text) from error

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, *, look: bool = True) -> None:
        """The world is over. With `look`, raises NodeFailed for a failure that nobody has seen."""
        try:
            if look:
                self._raise_failures(float("inf"))
        finally:
            loops, self._loops = self._loops, []
            for loop in loops:
                loop.drop()
            with _silence():
                for loop in loops:
                    loop.bury()
            self.schedule.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(look=error is None)

    # -- for its parts ---------------------------------------------------------------------------------

    def make_loop(self, name: str, *, origin: float, rate: float) -> NodeLoop:
        """A loop for a new process."""
        loop = NodeLoop(
            self.schedule, name, lambda what, error: self.fail(name, what, error), origin=origin, rate=rate
        )
        self._loops.append(loop)
        return loop

    def _listen(self) -> None:
        """Hear the loggers of production code, at the level that this world wants."""
        for logger in map(logging.getLogger, PRODUCTION):
            self._loggers.append((logger, logger.level, logger.propagate))
            logger.setLevel(self._handler.level)
            logger.propagate = False
            logger.addHandler(self._handler)

    def _deafen(self) -> None:
        for logger, level, propagate in self._loggers:
            logger.removeHandler(self._handler)
            logger.setLevel(level)
            logger.propagate = propagate
        self._loggers.clear()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The dead say nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _running_node() -> str | None:
    loop = events._get_running_loop()
    return loop.name if isinstance(loop, NodeLoop) else None
