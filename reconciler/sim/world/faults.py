"""Faults by name: what a script, a random run and a test can do to the world, each as one line of text.

    5      cut a b              nothing passes between a and b
    7.5    halves a,b c         nothing passes between the groups
    9      store-stall a        requests of a wait, and are applied late
    20     heal                 everything is well again, what was off is on

Invariant: a fault that makes no sense at the moment (to resume what runs) does nothing, so that any sequence
of them can be played.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from reconciler.sim.world.errors import BadScript

if TYPE_CHECKING:
    from reconciler.sim.world.world import World

Act = Callable[["World", tuple[str, ...]], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """`usage`: the words after the verb, in capitals; those in brackets may be left out."""

    usage: str
    help: str
    act: Act

    @property
    def takes(self) -> tuple[int, int]:
        """The least and the largest number of words."""
        words = self.usage.split()
        needed = sum(1 for word in words if not word.startswith("["))
        return needed, 1_000 if self.usage.endswith("...]") else len(words)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One line: `at` in virtual seconds, the verb and its words."""

    at: float
    verb: str
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((f"{self.at:.3f}", self.verb, *self.words))


class Faults:
    """The faults of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def do(self, text: str) -> None:
        """Now: `cut a b`. Raises BadScript."""
        verb, words = _parse(text)
        VERBS[verb].act(self._world, words)

    def play(self, faults: Iterable[Fault], *, reproducer: str = "") -> float:
        """Let them happen when they are due, counted from now; returns the last one's time. `reproducer`
        is added to what the world's errors say about how to see them again."""
        base = last = self._world.now
        for fault in faults:
            _check(fault.verb, fault.words)
            last = max(last, base + fault.at)
            self._world.schedule.call_at(base + fault.at, VERBS[fault.verb].act, self._world, fault.words)
        if reproducer:
            self._world.reproducer += f", {reproducer}"
            self._world.say(f"faults: {reproducer}")
        return last

    def heal(self) -> None:
        """Everything is well again: network, store, clock rates; every host is on and every process runs."""
        world = self._world
        world.network.heal()
        world.storage.heal()
        for node in world.nodes:
            if node.rate != 1.0:
                node.drift(1.0)
            node.resume()
            node.power_on()
            node.start()


def parse(text: str) -> tuple[Fault, ...]:
    """A script: one fault a line, `SECONDS VERB WORDS`; `#` begins a comment. Raises BadScript with the
    line's number."""
    faults = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            verb, rest = _parse(" ".join(words[1:]))
            faults.append(Fault(at=_seconds(words[0]), verb=verb, words=rest))
        except BadScript as error:
            raise BadScript(f"line {number}: {error}") from None
    return tuple(faults)


def _parse(text: str) -> tuple[str, tuple[str, ...]]:
    verb, *words = text.split() or [""]
    _check(verb, tuple(words))
    return verb, tuple(words)


def _check(verb: str, words: tuple[str, ...]) -> None:
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}"
        raise BadScript(f"{verb!r} is no fault; {hint}")
    least, most = VERBS[verb].takes
    if not least <= len(words) <= most:
        raise BadScript(f"write: {verb} {VERBS[verb].usage}".rstrip())


def _seconds(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise BadScript(f"{word!r} is no number of seconds") from None


def _groups(words: tuple[str, ...]) -> list[list[str]]:
    return [word.split(",") for word in words]


def _delay(world: World, words: tuple[str, ...]) -> None:
    jitter = _seconds(words[3]) if len(words) > 3 else 0.0
    world.network.delay(words[0], words[1], _seconds(words[2]), jitter)


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "cut": Verb(
            usage="A B", help="nothing passes between them", act=lambda world, w: world.network.cut(*w)
        ),
        "one-way": Verb(
            usage="A B",
            help="nothing gets from A to B; B's frames reach A",
            act=lambda world, w: world.network.cut_one_way(*w),
        ),
        "halves": Verb(
            usage="A,B C,D [E,F...]",
            help="nothing passes between the groups",
            act=lambda world, w: world.network.halves(*_groups(w)),
        ),
        "isolate": Verb(
            usage="A",
            help="it reaches no other node, but the store",
            act=lambda world, w: world.network.isolate(*w),
        ),
        "bridge": Verb(
            usage="A B C",
            help="B reaches A and C, which do not reach each other",
            act=lambda world, w: world.network.bridge(*w),
        ),
        "delay": Verb(usage="A B SECONDS [JITTER]", help="frames between them are late", act=_delay),
        "flap": Verb(
            usage="A B PERIOD",
            help="the link is down for half of each period",
            act=lambda world, w: world.network.flap(w[0], w[1], _seconds(w[2])),
        ),
        "heal-network": Verb(
            usage="[A] [B]",
            help="between two nodes, around one, or everywhere",
            act=lambda world, w: world.network.heal(*w),
        ),
        "store-cut": Verb(
            usage="[A...]",
            help="they (none: all) do not reach the store",
            act=lambda world, w: world.storage.cut(*w),
        ),
        "store-stall": Verb(
            usage="[A...]",
            help="their requests wait, and are applied late",
            act=lambda world, w: world.storage.stall(*w),
        ),
        "store-heal": Verb(
            usage="[A...]", help="they reach the store", act=lambda world, w: world.storage.heal(*w)
        ),
        "pause": Verb(usage="A", help="SIGSTOP", act=lambda world, w: world.node(w[0]).pause()),
        "resume": Verb(usage="A", help="SIGCONT", act=lambda world, w: world.node(w[0]).resume()),
        "power-off": Verb(
            usage="A", help="the cable is pulled", act=lambda world, w: world.node(w[0]).power_off()
        ),
        "power-on": Verb(
            usage="A",
            help="it boots, and its daemon starts",
            act=lambda world, w: world.node(w[0]).power_on(),
        ),
        "kill": Verb(
            usage="A",
            help="SIGKILL to the daemon; the host lives",
            act=lambda world, w: world.node(w[0]).kill(),
        ),
        "stop": Verb(usage="A", help="SIGTERM to the daemon", act=lambda world, w: world.node(w[0]).stop()),
        "start": Verb(usage="A", help="start the daemon", act=lambda world, w: world.node(w[0]).start()),
        "jump": Verb(
            usage="A SECONDS",
            help="its wall clock is set forward, or back",
            act=lambda world, w: world.node(w[0]).jump(_seconds(w[1])),
        ),
        "drift": Verb(
            usage="A RATE",
            help="its clocks run fast (1.01) or slow (0.99)",
            act=lambda world, w: world.node(w[0]).drift(_seconds(w[1])),
        ),
        "heal": Verb(
            usage="", help="everything is well again, and on", act=lambda world, _: world.faults.heal()
        ),
    }
)
"""Every fault there is, and how it ends."""
