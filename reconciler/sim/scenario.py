"""A scenario is a script that an operator can read, and the log that comes of it.

    # The master loses its power: another one follows.
    nodes r1 r2 r3

    0    power-on
    0    expect master r1 within 3
    10   power-off r1
    10   expect master r2 within 8

Lines without a time are settings and come first: `nodes NAME...` (r1 r2 r3), `seed N` (1), `log-size N`
(transactions that the store remembers). Whatever is expected is looked at after every event, and so are the
invariants. The log has what people and faults did, what changed, and what the daemons logged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from reconciler.planning.manifest_parsed import ParseFile
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import load
from reconciler.resources.status import VmNodeStatus
from reconciler.resources.transactions import Conflict, Txn, TxnResult
from reconciler.sim import scenario_verbs
from reconciler.sim.cluster import SimCluster
from reconciler.sim.invariants import MASTERS, Invariants
from reconciler.sim.scenario_expect import Expectation, differing, parse_expectation
from reconciler.sim.world import BadScript, Line, SimulationError, World

AFTERWARDS = 1.0
"""Seconds that a scenario goes on after its last line."""
NOISE = ("the directory is now marked as",)
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


class ScenarioFailed(SimulationError):
    """Something was not as expected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line: `at` in virtual seconds."""

    number: int
    at: float
    verb: str
    words: tuple[str, ...]
    expectation: Expectation | None = None


@dataclass(slots=True)
class Script:
    """What a script says."""

    nodes: tuple[str, ...] = ("r1", "r2", "r3")
    seed: int = 1
    log_size: int = 10_000
    steps: list[Step] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it takes at most."""
        ends = (step.at + (step.expectation.seconds if step.expectation else 0.0) for step in self.steps)
        return max(ends, default=0.0) + AFTERWARDS


def parse_script(text: str) -> Script:
    """Raises BadScript with the line's number."""
    script = Script()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            _read(script, number, words)
        except (BadScript, ValueError) as error:
            raise BadScript(f"line {number}: {error}") from None
    return script


def run(script: Script, parse: ParseFile) -> str:
    """Let it happen; the log. Raises ScenarioFailed, InvariantBroken, NodeFailed and BadScript, with the end
    of the log as a note."""
    with World(seed=script.seed, log_size=script.log_size) as world:
        cluster = SimCluster(world, script.nodes, parse)
        _Observer(cluster)
        Invariants(cluster)
        play = _Play(cluster)
        cluster.found()
        for step in script.steps:
            world.at(step.at, partial(play.step, step))
        world.always(play.look)
        try:
            world.run_for(script.seconds)
        except Exception as error:
            error.add_note(readable(world.log.lines[-60:]))
            raise
        return readable(world.log.lines)


def readable(lines: Sequence[Line]) -> str:
    """The log for people: tenths of seconds, without the noise."""
    kept = (line for line in lines if not any(noise in line.text for noise in NOISE))
    return "".join(f"{line.at:7.1f}  {line.node or '*':<4}  {_plain(line.text)}\n" for line in kept)


def _plain(text: str) -> str:
    """Without the names of loggers, and with nothing in it that is random."""
    level, space, rest = text.partition(" ")
    if space and level in ("INFO", "WARNING", "ERROR"):
        _, _, said = rest.partition(": ")
        text = said if level == "INFO" else f"{level}: {said}"
    return _UUID.sub("ID", text)


def _read(script: Script, number: int, words: list[str]) -> None:
    match words:
        case ["nodes", *names]:
            script.nodes = tuple(names)
        case ["seed", seed]:
            script.seed = int(seed)
        case ["log-size", size]:
            script.log_size = int(size)
        case [at, "expect", *rest]:
            expectation = parse_expectation(rest)
            script.steps.append(_step(number, at, "expect", rest, expectation))
        case [at, verb, *rest]:
            scenario_verbs.check(verb, rest)
            script.steps.append(_step(number, at, verb, rest, None))
        case _:
            raise BadScript("write: SECONDS VERB WORDS...")


def _step(number: int, at: str, verb: str, words: list[str], expectation: Expectation | None) -> Step:
    return Step(number=number, at=float(at), verb=verb, words=tuple(words), expectation=expectation)


@dataclass(slots=True)
class _Awaited:
    """An expectation on its way: `held_since` is when it came true, while it has to last."""

    step: Step
    expectation: Expectation
    since: float
    held_since: float | None = None


class _Play:
    """Does the steps, and looks after what is expected."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._awaited: list[_Awaited] = []

    def step(self, step: Step) -> None:
        """The line's time has come."""
        world = self._cluster.world
        if step.expectation is None:
            scenario_verbs.do(self._cluster, step.verb, step.words)
            return
        self._awaited.append(_Awaited(step, step.expectation, world.now))
        for seconds in sorted({step.expectation.within, step.expectation.seconds}):
            world.schedule.call_later(seconds, self.look)

    def look(self) -> None:
        """After every event. Raises ScenarioFailed."""
        for awaited in list(self._awaited):
            self._look(awaited)

    def _look(self, awaited: _Awaited) -> None:
        world, expected = self._cluster.world, awaited.expectation
        problem = expected.problem(self._cluster, awaited.since)
        if problem:
            if awaited.held_since is not None or world.now >= awaited.since + expected.within:
                line = awaited.step.number
                raise ScenarioFailed(
                    f"line {line}: at {world.now:.3f} s: expected {expected.text}: {problem}"
                )
            return
        if awaited.held_since is None:
            awaited.held_since = world.now
            if expected.lasts:
                world.schedule.call_later(expected.lasts, self.look)
        if world.now >= awaited.held_since + expected.lasts:
            self._awaited.remove(awaited)
            world.say(f"as expected: {expected.text}")


class _Observer:
    """Writes into the log what no daemon logs: who is master, how VMs are, which files differ."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._masters = "nobody"
        self._files = ""
        self._present: tuple[int, list[dict[str, bytes]]] = (-1, [])
        self._vms: dict[str, str] = {}
        cluster.world.storage.cluster.judges.append(self._judge)
        cluster.world.always(self._look)

    def _look(self) -> None:
        world = self._cluster.world
        masters = ", ".join(
            f"{name} (epoch {epoch}{', paused' * world.node(name).paused})"
            for name, epoch in self._cluster.masters().items()
        )
        if (masters or "nobody") != self._masters:
            self._masters = masters or "nobody"
            world.say(f"master: {self._masters}")
        hosts = self._cluster.hosts.values()
        present = world.storage.cluster.revision, [dict(host.directory.files) for host in hosts]
        if present != self._present:
            self._present = present
            self._compare()

    def _compare(self) -> None:
        found = differing(self._cluster)
        files = "; ".join(f"{path} differs on {' '.join(names)}" for path, names in found.items())
        if files != self._files:
            self._files = files
            self._cluster.world.say(f"files: {files or 'the same everywhere'}")

    def _judge(self, txn: Txn, result: TxnResult) -> None:
        world = self._cluster.world
        if isinstance(result, Conflict):
            keys_written = [*(put.key for put in txn.puts), *txn.deletes]
            stale = keys.EPOCH in result.keys and any(key.startswith(MASTERS) for key in keys_written)
            if stale:
                world.say(f"store: refused {', '.join(keys_written)}: it is of an old epoch")
            return
        prefix = f"{keys.NODE_STATUS}{Kind.VIRTUAL_MACHINE}/"
        for put in txn.puts:
            if put.key.startswith(prefix):
                status = load(VmNodeStatus, put.value)
                self._note_vm(put.key.removeprefix(prefix), f"{status.phase} on {status.node}")
        for key in txn.deletes:
            if key.startswith(prefix):
                self._note_vm(key.removeprefix(prefix), "gone")

    def _note_vm(self, name: str, state: str) -> None:
        if self._vms.get(name) != state:
            self._vms[name] = state
            self._cluster.world.say(f"vm {name}: {state}")
