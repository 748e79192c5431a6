"""What the mesh is told at its start, and the limits that it keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PROTOCOLS = (1, 1)
"""The lowest and the highest version of the mesh's protocol that this program speaks. A new version raises
the highest; the lowest follows one version behind, so that adjacent versions work together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the cluster's own CA, this node's certificate (made out to the node's name, for servers and
    for clients) and its private key."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds. `fresh`: a link that was heard of so recently is not replaced by another one."""

    handshake: float = 5.0
    dial: float = 3.0
    silence: float = 3.0
    ping: float = 1.0
    fresh: float = 1.5
    retry_first: float = 0.2
    retry_last: float = 5.0
    unproven: int = 64
    """Connections whose other end has not proven yet who it is."""
    unproven_per_address: int = 8
    queue_messages: int = 1000
    queue_bytes: int = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshOptions:
    """`bind`: the address to listen on, empty for all; `port` 0 lets the kernel choose. Without `tls` the
    mesh is plain TCP; `secret` is proven either way."""

    node: str
    bind: str
    port: int
    cluster_uid: str
    secret: bytes = field(repr=False)
    tls: TlsFiles | None
    protocols: tuple[int, int] = PROTOCOLS
    limits: Limits = field(default_factory=Limits)
