"""The mesh: keeps one link to each peer, whoever of the two dials, and counts what it refuses.

Both ends dial. Of each pair the node with the smaller name decides which connection is the link: it says
`use` on one, and `spare` on any other as long as that one is heard of. The other end follows, by the number
in `use`. So both always mean the same connection, and no race makes them close both.

Invariant: a listener hears only members that have proven the cluster's secret (and their certificate), in
order; and of a node that is not named in `connect` nothing is heard or kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from reconciler.adapters.mesh import handshake
from reconciler.adapters.mesh.connection import Connection
from reconciler.adapters.mesh.counts import Counts
from reconciler.adapters.mesh.dialling import Dialler, Failure, explain, failures_after, pause
from reconciler.adapters.mesh.door import Door, Visit, bind
from reconciler.adapters.mesh.frames import Control, FrameRefused, encode
from reconciler.adapters.mesh.handshake import Identity, Proven, Refused
from reconciler.adapters.mesh.options import MeshOptions
from reconciler.adapters.mesh.tls import Contexts, load_contexts
from reconciler.adapters.mesh.wire import Wire
from reconciler.ports.clock import Clock, Ids
from reconciler.ports.metrics import Sample
from reconciler.ports.transport import Endpoint, Link, LinkState, Listener, Message, Topic

log = logging.getLogger(__name__)

_TICK = 0.5
"""Seconds between two looks at whether links are silent."""


@dataclass(slots=True)
class _Peer:
    """`used`: the decider's life and number of the last connection that was adopted."""

    name: str
    endpoint: Endpoint
    link: Link
    connection: Connection | None = None
    used: tuple[str, int] = ("", 0)
    failures: int = 0
    unlinked: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    dialling: asyncio.Task[None] | None = None


class MeshTransport:
    """See `reconciler.ports.transport.Transport`. One per process; `connect`, `send` and `listen` belong to
    the thread of the event loop."""

    def __init__(self, options: MeshOptions, *, clock: Clock, ids: Ids) -> None:
        self.port: int | None = None
        """Where it listens; None while it does not."""
        self._options = options
        self._clock = clock
        self._ids = ids
        self._counts = Counts(clock.monotonic)
        self._peers: dict[str, _Peer] = {}
        self._listeners: list[Listener] = []
        self._life = uuid.uuid4().hex
        self._number = 0
        self._tasks: asyncio.TaskGroup | None = None
        self._dialler: Dialler | None = None
        self._encoded: tuple[Message | None, bytes | None] = (None, None)
        self._identity = Identity(
            node=options.node,
            cluster_uid=options.cluster_uid,
            protocols=options.protocols,
            secret=options.secret,
        )

    # The port

    def connect(self, peers: Mapping[str, Endpoint]) -> None:
        """Keep links to these nodes from now on, and to no others; this node's own name is left out."""
        for name in [name for name in self._peers if name not in peers]:
            self._forget(self._peers.pop(name))
        for name in sorted(peers):
            peer = self._peers.get(name)
            if name == self._options.node:
                continue
            if peer is None:
                link = Link(state=LinkState.CONNECTING, since=self._clock.monotonic(), reason="not tried yet")
                peer = self._peers[name] = _Peer(name, peers[name], link)
                peer.unlinked.set()
                self._start(peer)
            elif peer.endpoint != peers[name]:
                peer.endpoint, peer.failures = peers[name], 0
                peer.hurry.set()

    def links(self) -> Mapping[str, Link]:
        """Every peer that was named in `connect`."""
        return {name: peer.link for name, peer in self._peers.items()}

    def send(self, node: str, message: Message) -> bool:
        """Queue it; False (and counted) when there is no link, its queue is full, or it is too large."""
        peer = self._peers.get(node)
        if peer is None or peer.connection is None:
            self._counts.add("not_sent", "no-link")
            return False
        payload = self._encode(message)
        if payload is None:
            self._counts.add("not_sent", "too-large")
            return False
        if not peer.connection.outbox.put(message.topic, payload):
            self._counts.add("not_sent", "queue-full")
            return False
        return True

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hear every message; returns the undo."""
        self._listeners.append(listener)

        def undo() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return undo

    async def run(self) -> None:
        """Listen, connect and reconnect until cancelled. Raises VclError when it cannot listen at all, or
        when its TLS files cannot be used."""
        options = self._options
        tls = load_contexts(options.tls, options.node) if options.tls is not None else None
        listener = bind(options.bind, options.port)
        self.port = listener.getsockname()[1]
        door = Door(
            listener,
            tls=tls.server if tls else None,
            limits=options.limits,
            counts=self._counts,
            welcome=self._welcome,
        )
        try:
            await self._run(door, tls)
        finally:
            self._tasks = self._dialler = self.port = None
            for peer in self._peers.values():
                peer.dialling = None
                if peer.connection is not None:
                    peer.connection.end(ConnectionAbortedError("this daemon stops"))
            await door.close()

    # For the administrator

    def counters(self) -> Mapping[str, int]:
        """What was counted, by `what.which`, such as `refused_frames.replayed`."""
        return self._counts.mapping()

    def samples(self) -> Iterator[Sample]:
        """A MetricsSource."""
        yield from self._counts.samples()
        for name, peer in sorted(self._peers.items()):
            yield Sample(
                name="vcl_mesh_link_up",
                help="Whether there is a link to that node.",
                value=peer.connection is not None,
                labels={"peer": name},
            )
            yield Sample(
                name="vcl_mesh_queue_bytes",
                help="Bytes that wait to be sent to that node.",
                value=peer.connection.outbox.waiting_bytes if peer.connection is not None else 0,
                labels={"peer": name},
            )

    # Running

    async def _run(self, door: Door, tls: Contexts | None) -> None:
        async with Dialler(tls.client if tls else None) as dialler, asyncio.TaskGroup() as tasks:
            self._dialler, self._tasks = dialler, tasks
            for _, peer in sorted(self._peers.items()):
                self._start(peer)
            tasks.create_task(door.run(), name="mesh: listen")
            tasks.create_task(self._watch(), name="mesh: watch")

    def _start(self, peer: _Peer) -> None:
        if self._tasks is not None:
            peer.dialling = self._tasks.create_task(self._keep(peer), name=f"mesh: dial {peer.name}")

    def _forget(self, peer: _Peer) -> None:
        if peer.dialling is not None:
            peer.dialling.cancel()
        if peer.connection is not None:
            peer.connection.end(ConnectionAbortedError("it is named no more"))

    async def _watch(self) -> None:
        """End links that are silent, and speak on those on which nothing was said."""
        loop, limits = asyncio.get_running_loop(), self._options.limits
        looked = loop.time()
        while True:
            await asyncio.sleep(_TICK)
            now = loop.time()
            # This process was stopped for a while: what came meanwhile is still to be read (SAFETY rule 13).
            blind = now - looked if now - looked > 2 * _TICK else 0.0
            looked = now
            for peer in self._peers.values():
                connection = peer.connection
                if connection is None:
                    continue
                connection.heard_at = min(now, connection.heard_at + blind)
                if now - connection.heard_at > limits.silence:
                    connection.end(TimeoutError(f"nothing was heard for {limits.silence:g} s"))
                elif now - connection.sent_at > limits.ping - _TICK:
                    connection.say(Control.PING)

    # Making links

    async def _keep(self, peer: _Peer) -> None:
        limits = self._options.limits
        while True:
            await peer.unlinked.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause(limits, peer.failures, self._ids.jitter())):
                    await peer.hurry.wait()
            peer.hurry.clear()
            if peer.connection is None:
                await self._dial(peer)

    async def _dial(self, peer: _Peer) -> None:
        assert self._dialler is not None
        wire: Wire | None = None
        endpoint = peer.endpoint
        try:
            async with asyncio.timeout(self._options.limits.dial):
                wire = await self._dialler.dial(endpoint)
                proven = await handshake.dial(wire, self._identity, peer.name)
                connection = await self._settle(wire, proven)
            if connection is not None:
                await self._hold(peer, connection)
            else:
                peer.failures += 1
        except Failure as error:
            peer.failures += 1
            if isinstance(error, Refused) and not error.by_peer:
                self._counts.refuse("refused_connections", error.refusal, f"{peer.name}: {error.words}")
            if peer.connection is None:
                tls = self._options.tls is not None
                self._change(peer, *explain(error, endpoint, self._options.limits, tls=tls))
        finally:
            if wire is not None:
                await wire.close()

    async def _welcome(self, wire: Wire, visit: Visit) -> None:
        def is_member(name: str) -> bool:
            visit.trusted = name in self._peers
            return visit.trusted

        try:
            proven = await handshake.listen(wire, self._identity, is_member)
            connection = await self._settle(wire, proven)
        except Refused as error:
            detail = f"{wire.remote}: {error.words}"
            self._counts.refuse("refused_connections", error.refusal, detail, level=error.level)
            visit.refuse()
            return
        except FrameRefused as error:
            self._counts.refuse("refused_connections", error.problem, f"{wire.remote}: {error}")
            visit.refuse()
            return
        except ConnectionError:
            return
        visit.prove()
        peer = self._peers.get(proven.node)
        if connection is not None and peer is not None:
            await self._hold(peer, connection)

    async def _settle(self, wire: Wire, proven: Proven) -> Connection | None:
        """Whether this connection is the link, as the node with the smaller name decides. Raises
        ConnectionError and FrameRefused."""
        connection = Connection(
            wire,
            proven,
            limits=self._options.limits,
            counts=self._counts,
            hear=lambda message: self._hear(connection, message),
        )
        if self._options.node > proven.node:
            return await self._follow(connection)
        peer = self._peers.get(proven.node)
        current = peer.connection if peer is not None else None
        fresh_until = current.heard_at + self._options.limits.fresh if current is not None else 0.0
        if peer is None or (current is not None and asyncio.get_running_loop().time() < fresh_until):
            await connection.dismiss()
            return None
        self._number += 1
        connection.say(Control.USE, {"life": self._life, "number": self._number})
        self._adopt(peer, connection)
        return connection

    async def _follow(self, connection: Connection) -> Connection | None:
        verdict = await connection.verdict()
        peer = self._peers.get(connection.node)
        life, number = verdict.body.get("life"), verdict.body.get("number")
        if verdict.control is not Control.USE or peer is None:
            return None
        if not isinstance(life, str) or not isinstance(number, int):
            return None
        if peer.connection is not None and peer.used[0] == life and number < peer.used[1]:
            return None
        peer.used = (life, number)
        self._adopt(peer, connection)
        return connection

    def _adopt(self, peer: _Peer, connection: Connection) -> None:
        older, peer.connection = peer.connection, connection
        peer.unlinked.clear()
        if older is not None:
            older.end(ConnectionAbortedError("another connection replaced it"))
        self._counts.add("links", "made" if older is None else "replaced")
        self._change(peer, LinkState.CONNECTED, "")

    async def _hold(self, peer: _Peer, connection: Connection) -> None:
        """Until the connection ends."""
        reason: Exception = ConnectionAbortedError("this daemon stops")
        try:
            await connection.run()
        except FrameRefused as error:
            reason = error
            self._counts.refuse("refused_frames", error.problem, f"{connection.node}: {error}")
        except (ConnectionError, TimeoutError) as error:
            reason = error
        finally:
            self._lost(peer, connection, reason)

    def _lost(self, peer: _Peer, connection: Connection, reason: Exception) -> None:
        self._counts.add("dropped", "outdated", connection.outbox.replaced)
        if peer.connection is not connection:
            return
        peer.connection = None
        peer.failures = failures_after(asyncio.get_running_loop().time() - connection.began_at, peer.failures)
        peer.unlinked.set()
        self._counts.add("links", "lost")
        silent = isinstance(reason, TimeoutError)
        self._change(peer, LinkState.UNREACHABLE if silent else LinkState.CONNECTING, f"{reason}")

    # Hearing

    def _hear(self, connection: Connection, message: Message) -> None:
        peer = self._peers.get(connection.node)
        if peer is None or peer.connection is not connection:
            self._counts.add("dropped", "late")
            return
        for listener in tuple(self._listeners):
            try:
                listener(connection.node, message)
            except Exception:
                log.exception("mesh: a listener failed on a %s message of %s", message.topic, connection.node)

    def _encode(self, message: Message) -> bytes | None:
        """The same message goes to many peers."""
        if self._encoded[0] is not message:
            self._encoded = (message, encode(Topic(message.topic), message.body))
        return self._encoded[1]

    def _change(self, peer: _Peer, state: LinkState, reason: str) -> None:
        before = peer.link
        since = before.since if before.state is state else self._clock.monotonic()
        peer.link = Link(state=state, since=since, reason=reason)
        if before.state is not state and self._peers.get(peer.name) is peer:
            level = logging.WARNING if state is LinkState.DENIED else logging.INFO
            log.log(level, "mesh: %s: %s -> %s%s", peer.name, before.state, state, reason and f": {reason}")
