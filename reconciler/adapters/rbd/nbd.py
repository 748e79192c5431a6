"""Reading an image file through qemu-nbd: qcow2 stays QEMU's business, and the bytes come to us.

So that an import writes to Ceph through this daemon's own client, which is fenced with the daemon; a
qemu-img that writes by itself would be one more client that nobody has recorded, and killing it would leave
its half image open for half a minute. The protocol: doc/proto.md of the nbd project, old-style export name.
"""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from reconciler.resources.errors import ImageInvalid

ANSWER_SECONDS = 60.0
_GREETING = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">8sII")
_EXPORT = struct.Struct(">QH")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")
_FIXED, _NO_ZEROES, _EXPORT_NAME = 1, 2, 1
_ASK, _ANSWER, _READ, _END = 0x25609513, 0x67446698, 0, 2


class NbdReader:
    """One connection; blocking calls. `size` in bytes. Raises ImageInvalid, which says what went wrong."""

    def __init__(self, path: Path, *, patience: float) -> None:
        """Waits up to `patience` seconds for the server's socket."""
        self._socket = _connected(path, patience)
        self._socket.settimeout(ANSWER_SECONDS)
        magic, options, _ = _GREETING.unpack(self._receive(_GREETING.size))
        if (magic, options) != (b"NBDMAGIC", b"IHAVEOPT"):
            raise ImageInvalid("qemu-nbd speaks another protocol than NBD")
        self._socket.sendall(struct.pack(">I", _FIXED | _NO_ZEROES))
        self._socket.sendall(_OPTION.pack(b"IHAVEOPT", _EXPORT_NAME, 0))
        self.size: int = _EXPORT.unpack(self._receive(_EXPORT.size))[0]

    def read(self, offset: int, length: int) -> bytes:
        """These bytes."""
        self._socket.sendall(_REQUEST.pack(_ASK, 0, _READ, offset, offset, length))
        magic, error, handle = _REPLY.unpack(self._receive(_REPLY.size))
        if magic != _ANSWER or handle != offset or error:
            raise ImageInvalid(f"the source cannot be read at {offset} (error {error} of qemu-nbd)")
        return self._receive(length)

    def close(self) -> None:
        """Let the server end."""
        try:
            self._socket.sendall(_REQUEST.pack(_ASK, 0, _END, 0, 0, 0))
        except OSError:
            pass  # it has ended already
        finally:
            self._socket.close()

    def _receive(self, length: int) -> bytes:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            try:
                got = self._socket.recv_into(view)
            except OSError as error:
                raise ImageInvalid(f"qemu-nbd does not answer: {error}") from error
            if not got:
                raise ImageInvalid("qemu-nbd ended while the source was read")
            view = view[got:]
        return bytes(buffer)


def _connected(path: Path, patience: float) -> socket.socket:
    deadline = time.monotonic() + patience
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
            return connection
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise ImageInvalid(f"qemu-nbd did not start within {patience:g} s") from error
            time.sleep(0.02)
