"""SimTransport: a node's end of the simulated mesh; the twin of the one over TCP.

Both sides dial; whoever gets through first makes the one connection of the pair. A node answers only those
that it names itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from reconciler.ports.transport import Endpoint, Link, LinkState, Listener, Message
from reconciler.resources.membership import MESH_PORT
from reconciler.sim.world.connection import Connection, Frame
from reconciler.sim.world.loop import Call, NodeLoop
from reconciler.sim.world.network import Network

MAX_MESSAGE = 256 << 10


@dataclass(slots=True, kw_only=True)
class _Peer:
    endpoint: Endpoint
    link: Link
    connection: Connection | None = None
    attempt: int = 0
    failures: int = 0
    timer: Call | None = None


class SimTransport:
    """Implements the Transport port for the process that `loop` runs. `secret`: of the cluster; those with
    another one are denied. `refused`: how many messages were not taken."""

    def __init__(
        self,
        network: Network,
        loop: NodeLoop,
        name: str,
        *,
        host: str | None = None,
        port: int = MESH_PORT,
        secret: str = "secret",
    ) -> None:
        self.loop = loop
        self.name = name
        self.host = host if host is not None else name
        self.port = port
        self.secret = secret
        self.refused = 0
        self._network = network
        self._peers: dict[str, _Peer] = {}
        self._listeners: list[Listener] = []
        self._running = False
        self._last: tuple[Message, Frame] | None = None

    # -- the port --------------------------------------------------------------------------------------

    def connect(self, peers: Mapping[str, Endpoint]) -> None:
        """See Transport.connect."""
        for name in [name for name, peer in self._peers.items() if peers.get(name) != peer.endpoint]:
            self._leave(self._peers.pop(name))
        now = self.loop.time()
        for name, endpoint in sorted(peers.items()):
            if name not in self._peers:
                link = Link(state=LinkState.CONNECTING, since=now, reason="not tried yet")
                self._peers[name] = _Peer(endpoint=endpoint, link=link)
                if self._running:
                    self._dial(name)

    def links(self) -> Mapping[str, Link]:
        """See Transport.links."""
        return {name: peer.link for name, peer in self._peers.items()}

    def send(self, node: str, message: Message) -> bool:
        """See Transport.send."""
        peer = self._peers.get(node)
        if peer is not None and peer.connection is not None:
            frame = self._encoded(message)
            if len(frame.data) < MAX_MESSAGE and peer.connection.pipe(self).send(frame):
                return True
        self.refused += 1
        return False

    def listen(self, listener: Listener) -> Callable[[], None]:
        """See Transport.listen."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def run(self) -> None:
        """See Transport.run."""
        self._network.listen(self)
        self._running = True
        try:
            for name in list(self._peers):
                self._dial(name)
            await asyncio.Event().wait()
        finally:
            self._running = False
            if not self.loop.dropped:
                self._network.leave(self)
            for peer in self._peers.values():
                self._leave(peer)

    # -- what the network tells ------------------------------------------------------------------------

    def works(self) -> bool:
        """Whether somebody answers here at this moment."""
        return self._running and not self.loop.paused and not self.loop.dropped

    def waits(self, name: str, attempt: int) -> bool:
        """Whether that attempt to reach a peer is still being made."""
        peer = self._peers.get(name)
        return self.works() and peer is not None and peer.attempt == attempt

    def denies(self, caller: SimTransport, expected: str) -> str:
        """Why this end does not talk to `caller`, who looks for `expected`; empty when it does."""
        if caller.secret != self.secret:
            return f"{self.name} has another cluster secret; it does not take {caller.name} for a member"
        if expected != self.name:
            return f"{self.name} answers there, who is not the member {expected}"
        if caller.name not in self._peers:
            return f"{self.name} does not know {caller.name} as a member"
        return ""

    def connected(self, name: str, connection: Connection) -> None:
        """There is a new connection."""
        peer = self._peers.get(name)
        if peer is None or not self._running:
            connection.close(self)
            return
        self._leave(peer)
        peer.connection, peer.failures = connection, 0
        self._set(peer, LinkState.CONNECTED, "")

    def lost(self, connection: Connection, name: str, state: LinkState, reason: str) -> None:
        """A connection has ended."""
        peer = self._peers.get(name)
        if peer is None or peer.connection is not connection or not self._running:
            return
        peer.connection = None
        self._set(peer, state, reason)
        self._dial(name)

    def dialled(self, name: str, attempt: int, state: LinkState, reason: str) -> None:
        """An attempt was answered, and not by a connection."""
        peer = self._peers.get(name)
        if peer is None or peer.attempt != attempt or peer.connection is not None:
            return
        self._set(peer, state, reason)
        self._retry(name, peer)

    def heard(self, connection: Connection, sender: str, frame: Frame) -> None:
        """A frame has arrived."""
        peer = self._peers.get(sender)
        if peer is None or peer.connection is not connection:
            return
        message = frame.message()
        for listener in list(self._listeners):
            listener(sender, message)

    # -- inside ----------------------------------------------------------------------------------------

    def _dial(self, name: str) -> None:
        peer = self._peers.get(name)
        if peer is None or peer.connection is not None or not self._running:
            return
        peer.attempt += 1
        peer.timer = self.loop.call_later(self._network.times.dial, self._unanswered, name, peer.attempt)
        self._network.dial(self, name, peer.endpoint, peer.attempt)

    def _unanswered(self, name: str, attempt: int) -> None:
        self.dialled(name, attempt, LinkState.UNREACHABLE, f"no answer within {self._network.times.dial:g} s")

    def _retry(self, name: str, peer: _Peer) -> None:
        times = self._network.times
        peer.failures += 1
        wait = min(times.retry * 2 ** min(peer.failures - 1, 10), times.retry_most)
        wait *= 0.5 + self._network.random.random() / 2
        if peer.timer is not None:
            peer.timer.cancel()
        peer.attempt += 1
        peer.timer = self.loop.call_later(wait, self._dial, name)

    def _leave(self, peer: _Peer) -> None:
        """Hang up, whatever there is."""
        peer.attempt += 1
        if peer.timer is not None:
            peer.timer.cancel()
            peer.timer = None
        connection, peer.connection = peer.connection, None
        if connection is not None and not self.loop.dropped:
            connection.close(self)

    def _set(self, peer: _Peer, state: LinkState, reason: str) -> None:
        since = peer.link.since if peer.link.state is state else self.loop.time()
        peer.link = Link(state=state, since=since, reason=reason)

    def _encoded(self, message: Message) -> Frame:
        """Heartbeats go to everybody: encode them once."""
        if self._last is None or self._last[0] is not message:
            self._last = (message, Frame(message))
        return self._last[1]
