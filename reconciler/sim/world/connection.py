"""One connection between two processes: frames come in order, late or never, and silence tells of the end."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from reconciler.ports.transport import LinkState, Message, Topic

if TYPE_CHECKING:
    from reconciler.sim.world.network import Network
    from reconciler.sim.world.transport import SimTransport

QUEUE_BYTES = 4 << 20
"""What one side may have under way before `send` refuses more; heartbeats pass always."""
HELD_HEARTBEATS = 4
"""So many heartbeats wait in a silent connection; then the newest takes the place of the last."""
RESENT_WITHIN = 0.4
"""Seconds after a link has come back, at most, until TCP sends again what was lost."""


class Direction:
    """The way from one host to another; `up` when frames pass."""

    __slots__ = ("cut", "delay", "flap_serial", "flapped", "jitter")

    def __init__(self) -> None:
        self.flap_serial = 0
        self.mend()

    def mend(self) -> None:
        """As good as new."""
        self.cut = False
        self.flapped = False
        self.delay = 0.0
        self.jitter = 0.0
        self.flap_serial += 1

    @property
    def up(self) -> bool:
        """Whether frames pass."""
        return not (self.cut or self.flapped)


class Frame:
    """An encoded message."""

    __slots__ = ("data", "topic")

    def __init__(self, message: Message) -> None:
        self.topic = message.topic
        self.data = json.dumps(message.body, ensure_ascii=False, separators=(",", ":")).encode()

    def message(self) -> Message:
        """A new message with a body of its own."""
        return Message(topic=self.topic, body=json.loads(self.data))


class Pipe:
    """One direction of a connection. `open`: the sending process believes in the connection."""

    __slots__ = (
        "_arrives",
        "_connection",
        "_direction",
        "_held",
        "_network",
        "open",
        "source",
        "target",
        "under_way",
    )

    def __init__(self, connection: Connection, source: SimTransport, target: SimTransport) -> None:
        self.source = source
        self.target = target
        self.open = True
        self.under_way = 0
        self._connection = connection
        self._network = connection.network
        self._direction = connection.network.direction(source.host, target.host)
        self._held: deque[Frame] = deque()
        self._arrives = 0.0

    def send(self, frame: Frame) -> bool:
        """Take it, or not when too much is under way already."""
        heartbeat = frame.topic is Topic.HEARTBEAT
        size = len(frame.data)
        if not heartbeat and self.under_way + size > QUEUE_BYTES:
            return False
        self.under_way += size
        if self._direction.up and not self._held:
            self._fly(frame, 0.0)
        else:
            held = self._held
            if heartbeat and len(held) >= HELD_HEARTBEATS and held[-1].topic is Topic.HEARTBEAT:
                self.under_way -= len(held.pop().data)
            held.append(frame)
        return True

    def flush(self) -> None:
        """The link is back: what was lost is sent again."""
        late = self._network.random.random() * RESENT_WITHIN
        while self._held:
            self._fly(self._held.popleft(), late)

    @property
    def holds(self) -> bool:
        """Whether frames wait for the link to come back."""
        return bool(self._held) and self._direction.up

    def _fly(self, frame: Frame, late: float) -> None:
        schedule = self._network.schedule
        arrives = schedule.now + late + self._network.travel(self._direction)
        self._arrives = max(arrives, self._arrives)
        schedule.call_at(self._arrives, self._arrive, frame)

    def _arrive(self, frame: Frame) -> None:
        if self._connection.open_at(self.target):
            self.target.loop.call_soon(self._deliver, frame)

    def _deliver(self, frame: Frame) -> None:
        self.under_way -= len(frame.data)
        self.target.heard(self._connection, self.source.name, frame)


class Connection:
    """Between two transports. `dead`: one of them has left it, and the other may not know yet."""

    __slots__ = ("_pipes", "_serial", "_silent", "dead", "network")

    def __init__(self, network: Network, one: SimTransport, other: SimTransport) -> None:
        self.network = network
        self.dead = False
        self._pipes = (Pipe(self, one, other), Pipe(self, other, one))
        self._silent = False
        self._serial = 0

    def pipe(self, source: SimTransport) -> Pipe:
        """The one that `source` sends into."""
        return self._pipes[0] if self._pipes[0].source is source else self._pipes[1]

    def has(self, transport: SimTransport) -> bool:
        """Whether it is one of the ends."""
        return any(pipe.source is transport for pipe in self._pipes)

    def open_at(self, transport: SimTransport) -> bool:
        """Whether that end believes in it."""
        return self.pipe(transport).open

    def works(self, one: SimTransport, other: SimTransport) -> bool:
        """Whether these two need no other one."""
        return self.has(one) and self.has(other) and not self.dead and not self._broken()

    def replace(self) -> None:
        """Another one takes its place; nobody is told."""
        self.dead = True
        for pipe in self._pipes:
            pipe.open = False

    def close(self, by: SimTransport) -> None:
        """That end has gone."""
        self.pipe(by).open = False
        self.dead = True
        self.review()

    def review(self) -> bool:
        """Something has changed: see who is cut off, or told. False when nobody cares any more."""
        left = [pipe for pipe in self._pipes if pipe.open]
        if not left:
            return False
        if self.dead and self._hears_of_the_end(left[0]):
            delay = self.network.travel(self.network.direction(left[0].target.host, left[0].source.host))
            self.network.schedule.call_later(
                delay, self._end, left[0], LinkState.CONNECTING, "the other side closed the connection"
            )
        elif self.dead or self._broken():
            self._grow_silent()
        elif self._silent:
            self._silent = False
            self._serial += 1
        if not self.dead:
            for pipe in self._pipes:
                if pipe.holds:
                    pipe.flush()
        return True

    def _broken(self) -> bool:
        return any(
            pipe.source.loop.paused or not self.network.direction(pipe.source.host, pipe.target.host).up
            for pipe in self._pipes
        )

    def _hears_of_the_end(self, pipe: Pipe) -> bool:
        network, here, there = self.network, pipe.source.host, pipe.target.host
        return (
            network.is_on(there) and network.direction(here, there).up and network.direction(there, here).up
        )

    def _grow_silent(self) -> None:
        if not self._silent:
            self._silent = True
            self._serial += 1
            self.network.schedule.call_later(self.network.times.dead_after, self._give_up, self._serial)

    def _give_up(self, serial: int) -> None:
        if serial != self._serial:
            return
        self.dead = True
        reason = f"no answer for {self.network.times.dead_after:g} s"
        for pipe in self._pipes:
            self._end(pipe, LinkState.UNREACHABLE, reason)

    def _end(self, pipe: Pipe, state: LinkState, reason: str) -> None:
        if pipe.open:
            pipe.open = False
            pipe.source.loop.call_soon(pipe.source.lost, self, pipe.target.name, state, reason)
