"""The link to libvirtd: a connection for events that is opened again for ever, and a pool for calls.

Invariants: libvirt's event loop runs before the first connection is opened; the event connection has
keep-alive, a close callback and all event callbacks before any call is made; after each new one, readers are
told to look at everything again. Opening may hang as long as libvirtd does: it has a thread of its own.
A call whose connection breaks takes the event connection with it, so that "connected again" is one moment for
all (see `Outstanding`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import libvirt

from reconciler.adapters.libvirt import eventloop, failures
from reconciler.adapters.libvirt.options import Options
from reconciler.adapters.libvirt.outstanding import Epoch
from reconciler.adapters.libvirt.pool import Pool, close
from reconciler.adapters.libvirt.workers import Ticket, Workers
from reconciler.resources.errors import ControllerUnavailable

T = TypeVar("T")
Watch = Callable[[libvirt.virConnect], list[int]]

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.1
_LAST_PAUSE = 5.0
_GRACE = 1.0
"""How long a call waits for a connection that is being opened, in seconds."""
_THREADS = 12


@dataclass(slots=True, eq=False, kw_only=True)
class Session:
    """The time between connecting and losing the connection. `lost` may be set by anybody."""

    events: libvirt.virConnect
    epoch: Epoch
    lost: threading.Event = field(default_factory=threading.Event)


class Link:
    """Keeps the connection. `watch` registers event callbacks on a new one; `changed` is called on a thread,
    with True after a connection was made and False after it was lost."""

    def __init__(self, options: Options, *, watch: Watch, changed: Callable[[bool], None]) -> None:
        self._options = options
        self._watch = watch
        self._changed = changed
        self._workers = Workers(name="libvirt-call", size=_THREADS)
        self._pool = Pool(options.uri, keepalive=options.keepalive)
        self._session: Session | None = None
        self._why = "libvirtd does not answer"
        self._since = time.monotonic()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        self._epochs = 0

    async def open(self, *, patience: float) -> None:
        """Begin; returns when connected, or after `patience` seconds: connecting goes on."""
        eventloop.ensure()
        self._loop = asyncio.get_running_loop()
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep, name="libvirt-link", daemon=True)
            self._thread.start()
        await self._await_session(patience)

    async def close(self, *, patience: float) -> None:
        """Disconnect; a hung libvirtd is left alone after `patience` seconds."""
        self._closing.set()
        session = self._session
        if session is not None:
            session.lost.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, patience)
        self._session = None
        self._workers.close()

    async def session(self, *, timeout: float) -> Session:
        """The current session. Raises ControllerUnavailable, after a second at most."""
        session = self._session or await self._await_session(min(timeout, _GRACE))
        if session is None:
            waited = time.monotonic() - self._since
            raise ControllerUnavailable(
                f"no connection to {self._options.uri} for {waited:.0f} s: {self._why}",
                cure="start libvirtd (systemctl start libvirtd, or rc-service libvirtd start)",
            )
        return session

    async def run(
        self,
        work: Callable[[libvirt.virConnect, Ticket], T],
        *,
        timeout: float,
        what: str,
        session: Session | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> T:
        """`work` on a thread, with a connection of its own. libvirt's errors come out as ours: NotFound for a
        missing domain, ControllerUnavailable for all others."""
        current = session or await self.session(timeout=timeout)
        call = functools.partial(self._call, current, work, what)
        return await self._workers.run(call, timeout=timeout, what=what, ended=ended)

    def connect(self) -> libvirt.virConnect:
        """A connection for one purpose only, such as a stream; the caller closes it. On a worker thread."""
        return self._pool.connect()

    async def off_loop(self, work: Callable[[], T], *, timeout: float, what: str) -> T:
        """`work` on a thread, without a connection of the pool. Raises as `run` does."""

        def guarded(_ticket: Ticket) -> T:
            try:
                return work()
            except libvirt.libvirtError as error:
                raise failures.translate(error, what=what) from error

        return await self._workers.run(guarded, timeout=timeout, what=what)

    def _call(
        self, session: Session, work: Callable[[libvirt.virConnect, Ticket], T], what: str, ticket: Ticket
    ) -> T:
        try:
            with self._pool.borrow() as connection:
                try:
                    return work(connection, ticket)
                except libvirt.libvirtError as error:
                    if failures.is_answer(error):
                        raise failures.translate(error, what=what) from error
                    raise
        except libvirt.libvirtError as error:
            session.lost.set()
            raise ControllerUnavailable(
                f"the connection to libvirtd broke: cannot {what}: {failures.text(error)}"
            ) from error

    async def _await_session(self, timeout: float) -> Session | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        return self._session

    def _announce(self, session: Session | None) -> None:
        """Publish the new state, from the link's thread."""
        self._session = session
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            change = self._arrived.set if session is not None else self._arrived.clear
            self._loop.call_soon_threadsafe(change)

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            try:
                session, watched = self._connect()
            except libvirt.libvirtError as error:
                self._report(failures.text(error))
                self._closing.wait(pause)
                pause = min(2 * pause, _LAST_PAUSE)
                continue
            pause = _FIRST_PAUSE
            self._announce(session)
            self._changed(True)
            log.info("libvirt: connected to %s in %.1f s", self._options.uri, session.epoch.took)
            session.lost.wait()
            self._why, self._since = "libvirtd does not answer", time.monotonic()
            self._announce(None)
            self._changed(False)
            if not self._closing.is_set():
                log.warning("libvirt: the connection to %s is lost", self._options.uri)
            _dispose(session.events, watched)
            self._pool.drain()

    def _connect(self) -> tuple[Session, list[int]]:
        started = time.monotonic()
        connection = self._pool.connect()
        lost = threading.Event()
        watched: list[int] = []
        try:
            connection.registerCloseCallback(lambda *_: lost.set(), None)
            watched.extend(self._watch(connection))
        except libvirt.libvirtError:
            _dispose(connection, watched)
            raise
        opened = time.monotonic()
        self._epochs += 1
        epoch = Epoch(number=self._epochs, opened=opened, took=opened - started)
        return Session(events=connection, epoch=epoch, lost=lost), watched

    def _report(self, why: str) -> None:
        if why != self._why:
            log.warning("libvirt: cannot connect to %s: %s", self._options.uri, why)
        self._why = why


def _dispose(connection: libvirt.virConnect, watched: list[int]) -> None:
    """Take the callbacks off and close it. On a broken connection each step fails at once: as good."""
    for step in (
        *(functools.partial(connection.domainEventDeregisterAny, number) for number in watched),
        connection.unregisterCloseCallback,
    ):
        try:
            step()
        except libvirt.libvirtError as error:
            failures.ignore(error, "taking off a callback")
    close(connection)
