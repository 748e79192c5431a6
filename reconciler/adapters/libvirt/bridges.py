"""The bridges of this host, by their kernel drivers.

By ioctl rather than /sys/class/net, which may be another network namespace's.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_GET_DRIVER_INFO = 0x3
_INFO_BYTES = 196
_DRIVER = slice(4, 36)
_DRIVERS = ("bridge", "openvswitch")


def bridges() -> tuple[str, ...]:
    """Their names, sorted. Raises OSError when it cannot be told of every interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        names = [name for _, name in socket.if_nameindex()]
        return tuple(sorted(name for name in names if _driver(sock, name) in _DRIVERS))


def _driver(sock: socket.socket, name: str) -> str:
    """Empty for an interface that has none to tell, such as `lo`, or that has just gone."""
    info = array.array("B", struct.pack("I", _GET_DRIVER_INFO).ljust(_INFO_BYTES, b"\0"))
    request = struct.pack("16sP", name.encode(), info.buffer_info()[0]).ljust(40, b"\0")
    try:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, request)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            return ""
        raise
    return info.tobytes()[_DRIVER].partition(b"\0")[0].decode(errors="replace")
