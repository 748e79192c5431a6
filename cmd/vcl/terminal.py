"""Between this terminal (or a pipe) and a VM's console, over the daemon's WebSocket.

Invariant: a terminal in raw mode is always put back, also when a signal ends us.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp

from reconciler.resources.errors import VclError
from vcl.client import ROOT, Unreachable

ESCAPE = 0x1D
"""Ctrl-], as in telnet and virsh."""

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
STDIN, STDOUT = 0, 1

CLOSING = (
    aiohttp.WSMsgType.CLOSE,
    aiohttp.WSMsgType.CLOSING,
    aiohttp.WSMsgType.CLOSED,
    aiohttp.WSMsgType.ERROR,
)


class Ended(VclError):
    """The console's other end has gone."""


def attach(socket_path: str, path: str, name: str, *, linger: float) -> int:
    """Talk to the console until Ctrl-] (0), the end of piped input plus `linger` seconds of silence (0), or
    a signal (128 + its number). Raises Ended when the guest's side closes first."""
    interactive = os.isatty(STDIN)
    if interactive:
        print(f"Connected to {name}. Press Ctrl-] to leave.", file=sys.stderr, flush=True)
    with raw_terminal(STDIN):
        code = asyncio.run(_Attachment(socket_path, path, linger, interactive).run())
    if interactive:
        print(f"\r\nLeft {name}; it goes on.", file=sys.stderr)
    return code


@contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """Raw mode, if it is a terminal, and back again whatever happens."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class _Attachment:
    def __init__(self, socket_path: str, path: str, linger: float, interactive: bool) -> None:
        self._socket = socket_path
        self._url = f"http://vcld{ROOT}/{path}"
        self._linger = linger
        self._interactive = interactive
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._heard = 0.0
        self._why = ""

    async def run(self) -> int:
        """The exit code."""
        connector = aiohttp.UnixConnector(path=self._socket)
        try:
            async with (
                aiohttp.ClientSession(connector=connector) as http,
                http.ws_connect(self._url, max_msg_size=0, heartbeat=20.0) as console,
            ):
                return await self._talk(console)
        except aiohttp.WSServerHandshakeError as error:
            raise Ended(
                f"the daemon refused the console ({error.status})",
                cure="is the VM running? see 'vcl get vms'",
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise Unreachable(
                f"cannot reach vcld at {self._socket}: {error}", cure="is the daemon running?"
            ) from error

    async def _talk(self, console: aiohttp.ClientWebSocketResponse) -> int:
        loop = asyncio.get_running_loop()
        stopped: asyncio.Future[int] = loop.create_future()
        for number in SIGNALS:
            loop.add_signal_handler(number, _set, stopped, 128 + number)
        threading.Thread(target=_read_stdin, args=(loop, self._input), daemon=True).start()
        output = asyncio.create_task(self._print(console))
        typing = asyncio.create_task(self._type(console))
        try:
            waiting: set[asyncio.Future[Any]] = {output, typing, stopped}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                return stopped.result()
            for task in (typing, output):
                if task.done():
                    task.result()
            if typing.done():
                return 0
            why = f": {self._why}" if self._why else ""
            raise Ended(f"the console was closed{why}", cure="see 'vcl events' for what happened to the VM")
        finally:
            for task in (output, typing):
                task.cancel()
            await asyncio.gather(output, typing, return_exceptions=True)

    async def _print(self, console: aiohttp.ClientWebSocketResponse) -> None:
        while True:
            message = await console.receive()
            if message.type in CLOSING:
                self._why = str(message.extra or "")
                return
            self._heard = asyncio.get_running_loop().time()
            data = message.data.encode() if message.type is aiohttp.WSMsgType.TEXT else message.data
            view = memoryview(data)
            while view:
                view = view[os.write(STDOUT, view) :]

    async def _type(self, console: aiohttp.ClientWebSocketResponse) -> None:
        async for data in self._typed():
            before, escape, _ = data.partition(bytes([ESCAPE])) if self._interactive else (data, b"", b"")
            if before:
                await console.send_bytes(before)
            if escape:
                return
        await self._silence()

    async def _typed(self) -> AsyncIterator[bytes]:
        while data := await self._input.get():
            yield data

    async def _silence(self) -> None:
        """Return when nothing has been printed for `linger` seconds after the end of piped input."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while True:
            left = self._heard + self._linger - loop.time() if self._linger >= 0 else 3600.0
            if left <= 0:
                return
            await asyncio.sleep(left)


def _set(future: asyncio.Future[int], value: int) -> None:
    if not future.done():
        future.set_result(value)


def _read_stdin(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[bytes]) -> None:
    """Feed the queue from stdin, whatever it is; an empty piece is its end."""
    data = b"-"
    while data:
        try:
            data = os.read(STDIN, 4096)
        except OSError:
            data = b""
        try:
            loop.call_soon_threadsafe(queue.put_nowait, data)
        except RuntimeError:  # the loop has ended: nobody wants it any more
            return
