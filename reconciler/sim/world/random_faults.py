"""Random faults from a seed: any number of them at a time, of every kind, and all healed at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from reconciler.sim.world.faults import Fault

SHORTEST = 0.3
"""Seconds that a fault lasts at least; most are of a few seconds, where the timers are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFaults:
    """`density`: how many faults begin in a second on the average. `longest` of one fault, and `seconds`
    until everything is healed. `str` is the line that makes the same faults again."""

    seed: int
    density: float = 0.3
    seconds: float = 60.0
    longest: float = 20.0

    def schedule(self, nodes: Sequence[str]) -> tuple[Fault, ...]:
        """The faults for these nodes, by time; the last one heals everything."""
        random = Random(f"{self.seed}/faults")
        kinds = [kind for kind, least in _KINDS if len(nodes) >= least]
        found: list[Fault] = []
        at = random.expovariate(self.density)
        while at < self.seconds:
            lasts = min(SHORTEST + random.expovariate(1 / 4.0), self.longest)
            for offset, line in random.choice(kinds)(random, nodes, lasts):
                verb, *words = line.split()
                found.append(
                    Fault(at=min(round(at + offset, 3), self.seconds), verb=verb, words=tuple(words))
                )
            at += random.expovariate(self.density)
        found.sort(key=lambda fault: fault.at)
        return (*found, Fault(at=self.seconds, verb="heal"))


_Episode = list[tuple[float, str]]
_Kind = Callable[[Random, Sequence[str], float], _Episode]


def _one(random: Random, nodes: Sequence[str]) -> str:
    return random.choice(list(nodes))


def _some(random: Random, nodes: Sequence[str], count: int) -> list[str]:
    return random.sample(list(nodes), count)


def _cut(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    pair = " ".join(_some(random, nodes, 2))
    return [(0, f"cut {pair}"), (lasts, f"heal-network {pair}")]


def _one_way(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    pair = " ".join(_some(random, nodes, 2))
    return [(0, f"one-way {pair}"), (lasts, f"heal-network {pair}")]


def _halves(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    mixed = _some(random, nodes, len(nodes))
    border = random.randrange(1, len(mixed))
    return [(0, f"halves {','.join(mixed[:border])} {','.join(mixed[border:])}"), (lasts, "heal-network")]


def _isolate(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    node = _one(random, nodes)
    return [(0, f"isolate {node}"), (lasts, f"heal-network {node}")]


def _gone(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    """Cut from everything, the store too: what looks like a power cut and is none."""
    node = _one(random, nodes)
    return [
        (0, f"isolate {node}"),
        (0, f"store-cut {node}"),
        (lasts, f"heal-network {node}"),
        (lasts + random.random(), f"store-heal {node}"),
    ]


def _bridge(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    left, middle, right = _some(random, nodes, 3)
    return [(0, f"bridge {left} {middle} {right}"), (lasts, f"heal-network {left} {right}")]


def _delay(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    pair = " ".join(_some(random, nodes, 2))
    seconds, jitter = random.choice((0.01, 0.2, 1.0, 2.5)), random.random()
    return [(0, f"delay {pair} {seconds:g} {jitter:.3f}"), (lasts, f"heal-network {pair}")]


def _flap(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    pair = " ".join(_some(random, nodes, 2))
    return [(0, f"flap {pair} {random.choice((0.5, 2.0, 5.0, 8.0)):g}"), (lasts, f"heal-network {pair}")]


def _store(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    verb = random.choice(("store-cut", "store-stall"))
    node = random.choice((_one(random, nodes), _one(random, nodes), ""))
    return [(0, f"{verb} {node}"), (lasts, f"store-heal {node}")]


def _pause(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    node = _one(random, nodes)
    return [(0, f"pause {node}"), (lasts, f"resume {node}")]


def _power(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    node = _one(random, nodes)
    return [(0, f"power-off {node}"), (lasts, f"power-on {node}")]


def _blackout(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    """Several at once, back one after the other."""
    chosen = _some(random, nodes, random.randrange(2, len(nodes) + 1))
    back = [(lasts + random.random() * 5, f"power-on {node}") for node in chosen]
    return [*((0.0, f"power-off {node}") for node in chosen), *back]


def _daemon(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    node = _one(random, nodes)
    return [(0, f"{random.choice(('kill', 'stop'))} {node}"), (lasts, f"start {node}")]


def _jump(random: Random, nodes: Sequence[str], _: float) -> _Episode:
    return [(0, f"jump {_one(random, nodes)} {random.choice((-86400, -3600, -1.5, 1.5, 3600, 86400)):g}")]


def _drift(random: Random, nodes: Sequence[str], lasts: float) -> _Episode:
    node = _one(random, nodes)
    return [(0, f"drift {node} {random.choice((0.95, 0.999, 1.001, 1.05)):g}"), (lasts, f"drift {node} 1")]


_KINDS: tuple[tuple[_Kind, int], ...] = (
    (_cut, 2),
    (_one_way, 2),
    (_halves, 2),
    (_isolate, 2),
    (_gone, 2),
    (_bridge, 3),
    (_delay, 2),
    (_flap, 2),
    (_store, 1),
    (_pause, 1),
    (_power, 1),
    (_blackout, 2),
    (_daemon, 1),
    (_jump, 1),
    (_drift, 1),
)
"""Each kind of fault, and how many nodes it needs."""
