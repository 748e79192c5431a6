"""The network between the hosts: one state per direction, who listens where, and who is connected to whom.

Invariant: it behaves as TCP over cables does. Within a connection nothing is lost in the middle or reordered:
frames come late, or the connection ends. Whoever is cut off is told nothing and finds out by silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import TYPE_CHECKING

from reconciler.ports.transport import Endpoint, LinkState
from reconciler.resources.errors import VclError
from reconciler.sim.world.connection import Connection, Direction
from reconciler.sim.world.schedule import Schedule

if TYPE_CHECKING:
    from reconciler.sim.world.transport import SimTransport

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTimes:
    """Seconds. `latency` and `jitter` of a frame on a healthy link; `dead_after` without an answer a
    connection is given up; a dial is given up after `dial`, and tried again after `retry` growing to
    `retry_most`."""

    latency: float = 0.0003
    jitter: float = 0.0002
    dead_after: float = 3.0
    dial: float = 2.0
    retry: float = 0.25
    retry_most: float = 2.0


@dataclass(slots=True, kw_only=True)
class Host:
    """A machine. `listening`: by port."""

    name: str
    address: str
    on: bool
    listening: dict[int, SimTransport]


class Network:
    """Every direction is fine until told otherwise. What changes it writes a line with `say`."""

    def __init__(
        self, schedule: Schedule, random: Random, say: Say, *, times: NetworkTimes | None = None
    ) -> None:
        self.times = times if times is not None else NetworkTimes()
        self.schedule = schedule
        self.random = random
        self._say = say
        self._hosts: dict[str, Host] = {}
        self._addresses: dict[str, Host] = {}
        self._directions: dict[tuple[str, str], Direction] = {}
        self._connections: dict[tuple[str, str], Connection] = {}

    # -- faults ----------------------------------------------------------------------------------------

    def cut_one_way(self, source: str, target: str) -> None:
        """What `source` sends does not reach `target`; the other way is fine."""
        self._cut([(source, target)], f"cut: nothing gets from {source} to {target}")

    def cut(self, one: str, other: str) -> None:
        """Nothing passes between them."""
        self._cut(_both(one, other), f"cut: {one} - {other}")

    def halves(self, *groups: Sequence[str]) -> None:
        """Nothing passes from one group to another; within a group all is as it was."""
        pairs = [
            pair
            for left, right in combinations(groups, 2)
            for a in left
            for b in right
            for pair in _both(a, b)
        ]
        self._cut(pairs, "cut: " + " | ".join(" ".join(group) for group in groups))

    def isolate(self, node: str) -> None:
        """It reaches nobody, and nobody reaches it."""
        pairs = [pair for other in sorted(self._hosts) if other != node for pair in _both(node, other)]
        self._cut(pairs, f"cut: {node} from all others")

    def bridge(self, left: str, middle: str, right: str) -> None:
        """`middle` reaches both, which do not reach each other."""
        self._cut(_both(left, right), f"cut: {left} - {right}; {middle} reaches both")

    def delay(self, one: str, other: str, seconds: float, jitter: float = 0.0) -> None:
        """Every frame between them takes so much longer, and up to `jitter` more."""
        for pair in _both(one, other):
            direction = self.direction(*pair)
            direction.delay, direction.jitter = seconds, jitter
        self._say(f"delay: {one} - {other} by {seconds:g} s, up to {jitter:g} s more")

    def flap(self, one: str, other: str, period: float) -> None:
        """From now on the link is down for half of each `period` and up for the other half."""
        self._say(f"flap: {one} - {other} every {period:g} s")
        directions = [self.direction(*pair) for pair in _both(one, other)]
        for direction in directions:
            direction.flap_serial += 1
        self._flap(one, other, period, directions[0].flap_serial)

    def heal(self, *nodes: str) -> None:
        """Two nodes: all faults between them. One: all with anybody. None: everything."""
        self._say(f"heal: {' - '.join(nodes) or 'the network'}")
        for pair in sorted(self._directions):
            if set(nodes) <= set(pair):
                self._directions[pair].mend()
                self._review(*pair)

    # -- hosts and processes ---------------------------------------------------------------------------

    def add(self, name: str, address: str) -> None:
        """A host that is switched off."""
        host = Host(name=name, address=address, on=False, listening={})
        self._hosts[name] = self._addresses[name] = self._addresses[address] = host

    def switch(self, name: str, *, on: bool) -> None:
        """Power; what listened there is gone with it."""
        host = self._hosts[name]
        host.on = on
        host.listening.clear()
        self.review_host(name)

    def listen(self, transport: SimTransport) -> None:
        """Raises VclError when somebody listens there already."""
        host = self._hosts[transport.host]
        if transport.port in host.listening:
            raise VclError(f"port {transport.port} of {host.name} is in use")
        host.listening[transport.port] = transport

    def leave(self, transport: SimTransport) -> None:
        """Its process has gone or ends: the host closes what it left open, if it still can."""
        host = self._hosts[transport.host]
        if host.listening.get(transport.port) is transport:
            del host.listening[transport.port]
        for connection in list(self._connections.values()):
            if connection.has(transport):
                connection.close(transport)

    def review_host(self, name: str) -> None:
        """Something about it has changed (power, pause): see what that does to its connections."""
        for key in [key for key in self._connections if name in key]:
            self._review(*key)

    def direction(self, source: str, target: str) -> Direction:
        """The way from one host to another."""
        found = self._directions.get((source, target))
        if found is None:
            found = self._directions[source, target] = Direction()
        return found

    def is_on(self, host: str) -> bool:
        """Whether it has power."""
        return self._hosts[host].on

    def travel(self, direction: Direction) -> float:
        """How long one frame takes, in seconds."""
        times = self.times
        return times.latency + direction.delay + self.random.random() * (times.jitter + direction.jitter)

    # -- dialling: what is not answered stays silent ---------------------------------------------------

    def dial(self, caller: SimTransport, peer: str, endpoint: Endpoint, attempt: int) -> None:
        """Try once. Answers by `caller.dialled` or `caller.connected`, or never."""
        target = self._addresses.get(endpoint.address)
        if target is None:
            return
        there = self.direction(caller.host, target.name)
        if there.up:
            self.schedule.call_later(
                self.travel(there), self._knock, caller, peer, attempt, target, endpoint.port
            )

    def _knock(self, caller: SimTransport, peer: str, attempt: int, target: Host, port: int) -> None:
        there, back = self.direction(caller.host, target.name), self.direction(target.name, caller.host)
        if not target.on or not back.up:
            return
        listener = target.listening.get(port)
        if listener is None:
            reason = f"{target.address} port {port} refuses connections: the host is up, nobody listens"
            answer = (caller.dialled, peer, attempt, LinkState.REFUSED, reason)
            self.schedule.call_later(self.travel(back), caller.loop.call_soon, *answer)
        elif not listener.loop.paused:
            handshake = self.travel(back) + self.travel(there) + self.travel(back)
            self.schedule.call_later(handshake, self._greet, caller, peer, attempt, listener)

    def _greet(self, caller: SimTransport, peer: str, attempt: int, listener: SimTransport) -> None:
        there, back = self.direction(caller.host, listener.host), self.direction(listener.host, caller.host)
        if not (there.up and back.up) or not (caller.waits(peer, attempt) and listener.works()):
            return
        if denied := listener.denies(caller, peer):
            caller.loop.call_soon(caller.dialled, peer, attempt, LinkState.DENIED, denied)
            return
        key = _key(caller.name, listener.name)
        existing = self._connections.get(key)
        if existing is not None and existing.works(caller, listener):
            return
        if existing is not None:
            existing.replace()
        self._connections[key] = connection = Connection(self, caller, listener)
        for end, other in ((caller, listener), (listener, caller)):
            end.loop.call_soon(end.connected, other.name, connection)

    # -- inside ----------------------------------------------------------------------------------------

    def _cut(self, pairs: Iterable[tuple[str, str]], text: str) -> None:
        self._say(text)
        for pair in pairs:
            self.direction(*pair).cut = True
            self._review(*pair)

    def _flap(self, one: str, other: str, period: float, serial: int) -> None:
        directions = [self.direction(*pair) for pair in _both(one, other)]
        if any(direction.flap_serial != serial for direction in directions):
            return
        for direction in directions:
            direction.flapped = not direction.flapped
        self._review(one, other)
        self.schedule.call_later(period / 2, self._flap, one, other, period, serial)

    def _review(self, one: str, other: str) -> None:
        key = _key(one, other)
        connection = self._connections.get(key)
        if connection is not None and not connection.review():
            del self._connections[key]


def _both(one: str, other: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (one, other), (other, one)


def _key(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
