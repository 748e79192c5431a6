"""Just enough HTTP/1.1 to talk to vcld over a UNIX socket.

The standard library's client takes 15 ms to import, an eighth of what `vcl get` may take in all. One request
a connection, answers by Content-Length, chunked, or until the end; an answer that ends early is an error,
never a short answer.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import BinaryIO, cast

MAX_LINE = 64 * 1024


class ProtocolError(Exception):
    """The other side does not speak HTTP, or stopped in the middle of an answer."""


class Response:
    """An answer whose body is read as it comes. `status` is the HTTP code; header names are lower case."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.status = _status(_line(stream))
        self.headers = dict(_headers(stream))

    def close(self) -> None:
        """Read no further; the socket can be closed then."""
        self._stream.close()

    def chunks(self) -> Iterator[bytes]:
        """The body, in the pieces that arrive. Raises ProtocolError when it ends early."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunked()
        elif (length := self.headers.get("content-length")) is not None:
            yield self._exactly(_number(length, 10))
        elif self.status != 204:
            while piece := self._stream.read(MAX_LINE):
                yield piece

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def lines(self) -> Iterator[bytes]:
        """The body line by line, without line ends, each as soon as it is complete; no empty ones."""
        rest = b""
        for piece in self.chunks():
            *complete, rest = (rest + piece).split(b"\n")
            yield from (line for line in complete if line.strip())
        if rest.strip():
            yield rest

    def _chunked(self) -> Iterator[bytes]:
        while size := _number(_line(self._stream).partition(b";")[0].decode("latin-1"), 16):
            yield self._exactly(size)
            if _line(self._stream):
                raise ProtocolError("a chunk is longer than it says")
        while _line(self._stream):
            pass

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ProtocolError("the answer ends too early")
        return data


def send(sock: socket.socket, method: str, target: str, body: bytes | None = None) -> Response:
    """Send one request and read the answer's head. OSError and ProtocolError are the caller's to explain."""
    head = [f"{method} {target} HTTP/1.1", "Host: vcld", "Accept: application/json", "Connection: close"]
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    sock.sendall("\r\n".join([*head, "", ""]).encode("ascii") + (body or b""))
    stream = cast(BinaryIO, sock.makefile("rb"))
    try:
        return Response(stream)
    except BaseException:
        stream.close()
        raise


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline(MAX_LINE)
    if not line.endswith(b"\n"):
        raise ProtocolError("the answer ends too early" if len(line) < MAX_LINE else "a line is too long")
    return line.rstrip(b"\r\n")


def _status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit():
        raise ProtocolError("the answer is not HTTP")
    return int(code)


def _headers(stream: BinaryIO) -> Iterator[tuple[str, str]]:
    while line := _line(stream):
        name, _, value = line.decode("latin-1").partition(":")
        yield name.strip().lower(), value.strip()


def _number(text: str, base: int) -> int:
    try:
        value = int(text.strip(), base)
    except ValueError as error:
        raise ProtocolError(f"{text[:20]!r} is not a length") from error
    if value < 0:
        raise ProtocolError(f"{text[:20]!r} is not a length")
    return value
