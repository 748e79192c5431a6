"""Questions to this host: what is it called, is an address its own, is a port free, what do packages lack?"""

from __future__ import annotations

import errno
import ipaddress
import shutil
import socket

from reconciler.resources.errors import InvalidInput

DIAL_SECONDS = 2.0
REFUSED = "refused"

START = "systemctl enable --now vcld          # OpenRC: rc-update add vcld default; rc-service vcld start"


def name() -> str:
    """What this host calls itself, as a node's name."""
    from reconciler.adapters.host import node_name

    return node_name()


def address_problem(address: str) -> str:
    """Why the address cannot be this host's; empty when it is."""
    try:
        with _socket(address) as probe:
            probe.bind((address, 0))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{address} is not an address of this host"
        return f"{address} cannot be used: {error.strerror or error}"
    return ""


def port_problem(address: str, port: int) -> str:
    """Why nothing could listen there; empty when it could."""
    try:
        with _socket(address) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} of {address} is taken by another program"
        return f"port {port} of {address} cannot be used: {error.strerror or error}"
    return ""


def dial_problem(address: str, port: int) -> str:
    """Why nobody answers there: `refused` when the host does and no program listens; empty when one does."""
    try:
        socket.create_connection((address, port), timeout=DIAL_SECONDS).close()
    except ConnectionRefusedError:
        return REFUSED
    except OSError as error:
        return error.strerror or "no answer"
    return ""


def require_rados(*, images: bool = False) -> None:
    """Raises InvalidInput when Python cannot talk to Ceph; with `images`, to RBD."""
    from importlib.util import find_spec

    for binding in ("rados", "rbd") if images else ("rados",):
        if find_spec(binding) is not None:
            continue
        raise InvalidInput(
            f"Python's binding for Ceph, {binding}, is not installed or not visible",
            cure=f"install python3-{binding} (Debian; elsewhere it comes with ceph), and make vcl's "
            "environment with `/usr/bin/python3 -m venv --system-site-packages`",
        )


def has(program: str) -> bool:
    """Whether the program is installed."""
    return shutil.which(program) is not None


def _socket(address: str) -> socket.socket:
    return socket.socket(_family(address), socket.SOCK_STREAM)


def _family(address: str) -> socket.AddressFamily:
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        return socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0][0]
    return socket.AF_INET6 if version == 6 else socket.AF_INET
