"""Serial consoles: a live stream through libvirt, and the end of the log that QEMU keeps.

The stream is non-blocking: libvirt's event thread moves the bytes, so that a console nobody reads holds no
thread. When the reader is slow, reading stops until it has caught up; nothing is dropped.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from dataclasses import dataclass

import libvirt

from reconciler.adapters.libvirt import failures
from reconciler.adapters.libvirt.domains import by_name
from reconciler.adapters.libvirt.files import Files
from reconciler.adapters.libvirt.link import Link
from reconciler.adapters.libvirt.pool import close
from reconciler.resources.errors import AlreadyExists, ControllerUnavailable, NotFound

_CHUNK = 16 << 10
_HIGH_WATER = 256 << 10
_WRITE_SECONDS = 10.0
_READABLE = libvirt.VIR_STREAM_EVENT_READABLE
_WRITABLE = libvirt.VIR_STREAM_EVENT_WRITABLE
_ENDED = libvirt.VIR_STREAM_EVENT_ERROR | libvirt.VIR_STREAM_EVENT_HANGUP
_WOULD_BLOCK = -2


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtConsole:
    """The Console port."""

    link: Link
    files: Files

    async def open(self, name: str, *, timeout: float) -> Stream:
        """See Console. NotFound when there is no such domain, or it has no console."""
        await self.link.session(timeout=timeout)
        console = Stream(self.link, name, asyncio.get_running_loop())
        await self.link.off_loop(
            lambda: _open(self.link, name, console), timeout=timeout, what=f"open the console of {name}"
        )
        return console

    async def tail(self, name: str, limit: int, *, timeout: float) -> bytes:
        """See Console."""
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.to_thread(self.files.tail, name, limit)
        except OSError as error:
            raise ControllerUnavailable(
                f"the console log of {name} cannot be read: {error.filename}: {error.strerror or 'too slow'}",
                cure="run vcld as the user that owns it, usually root",
            ) from error


class Stream:
    """One connection to one console. `feed` runs on libvirt's event thread, the rest on the event loop."""

    def __init__(self, link: Link, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._name = name
        self._loop = loop
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._ended = False
        self._paused = False
        self._changed = asyncio.Event()
        self._connection: libvirt.virConnect | None = None
        self._stream: libvirt.virStream | None = None

    def attach(self, connection: libvirt.virConnect, stream: libvirt.virStream) -> None:
        """Take the open stream and the connection that is its own; begin to read. Raises libvirtError."""
        self._connection, self._stream = connection, stream
        stream.eventAddCallback(_READABLE | _ENDED, self._feed, None)

    async def read(self) -> bytes:
        """See ConsoleStream."""
        while True:
            with self._lock:
                data, ended = bytes(self._buffer), self._ended
                self._buffer.clear()
                resume = self._paused
                self._paused = False
                self._changed.clear()
            if resume and not ended:
                await self._want(_READABLE | _ENDED)
            if data or ended:
                return data
            await self._changed.wait()

    async def write(self, data: bytes) -> None:
        """See ConsoleStream. ControllerUnavailable when the guest takes nothing for ten seconds, or the
        console is closed."""
        rest = data
        deadline = self._loop.time() + _WRITE_SECONDS
        while rest:
            sent = await self._link.off_loop(
                functools.partial(self._send, rest),
                timeout=max(0.1, deadline - self._loop.time()),
                what=f"write to the console of {self._name}",
            )
            rest = rest[sent:]
            if rest and not sent:
                if self._loop.time() > deadline:
                    raise ControllerUnavailable(f"the console of {self._name} takes no input")
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        """See ConsoleStream. Safe to repeat."""
        stream, self._stream = self._stream, None
        self._end()
        if stream is not None:
            await self._link.off_loop(
                functools.partial(_close, self._connection, stream),
                timeout=_WRITE_SECONDS,
                what=f"close the console of {self._name}",
            )

    def _send(self, data: bytes) -> int:
        stream = self._stream
        if stream is None or self._ended:
            raise ControllerUnavailable(f"the console of {self._name} is closed")
        sent = int(stream.send(data))
        return 0 if sent == _WOULD_BLOCK else sent

    async def _want(self, events: int) -> None:
        stream = self._stream
        if stream is not None:
            await self._link.off_loop(
                functools.partial(stream.eventUpdateCallback, events),
                timeout=_WRITE_SECONDS,
                what=f"read the console of {self._name}",
            )

    def _feed(self, stream: libvirt.virStream, events: int, _context: object) -> None:
        ended = bool(events & _ENDED)
        try:
            data = stream.recv(_CHUNK) if events & _READABLE else None
        except libvirt.libvirtError:
            data, ended = b"", True
        with self._lock:
            if isinstance(data, bytes):
                self._buffer += data
                ended = ended or not data
            full = len(self._buffer) >= _HIGH_WATER
            self._paused = self._paused or full
            self._ended = self._ended or (ended and not data)
        if full:
            stream.eventUpdateCallback(_ENDED)
        elif ended and not data:
            stream.eventRemoveCallback()
        self._wake()

    def _end(self) -> None:
        with self._lock:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._changed.set)
        except RuntimeError:
            # The loop is closed: nobody reads any more.
            self._stream = None


def _open(link: Link, name: str, console: Stream) -> None:
    connection = link.connect()
    try:
        domain = by_name(connection, name)
        if domain is None or not domain.isActive():
            raise NotFound(f"libvirt runs no domain called {name}", cure="look at its state: vcl get vms")
        stream = connection.newStream(libvirt.VIR_STREAM_NONBLOCK)
        try:
            domain.openConsole(None, stream, libvirt.VIR_DOMAIN_CONSOLE_SAFE)
        except libvirt.libvirtError as error:
            raise _refused(error, name) or error from error
        console.attach(connection, stream)
    except BaseException:
        close(connection)
        raise


def _refused(error: libvirt.libvirtError, name: str) -> AlreadyExists | NotFound | None:
    message = failures.text(error)
    if "Active console session" in message:
        return AlreadyExists(
            f"somebody is connected to the console of {name}", cure="ask them to leave it, or read its log"
        )
    if "cannot find" in message or "no console" in message:
        return NotFound(f"{name} has no serial console: {message}")
    return None


def _close(connection: libvirt.virConnect, stream: libvirt.virStream) -> None:
    for step in (stream.eventRemoveCallback, stream.abort):
        try:
            step()
        except libvirt.libvirtError as error:
            failures.ignore(error, "closing a console")  # it had ended by itself
    close(connection)
