"""Who is at the other end: both prove the cluster's secret before anything else is heard.

    dialler -> listener   hello: protocols, cluster uid, own name, the listener's name, nonce
    listener -> dialler   hello: the same, or a refusal
    dialler -> listener   proof: HMAC(secret, "dialler" + both hellos)
    listener -> dialler   proof: HMAC(secret, "listener" + both hellos), or a refusal

Invariant: a proof covers every byte of both hellos, so nobody in between can change a name, a version or a
nonce; it is made for one role, so it cannot be reflected; and nonces are new each time, so it cannot be
replayed. The keys of the frames come from the same bytes.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from reconciler.adapters.mesh.wire import Wire

HELLO_LIMIT = 4096
_NONCE_BYTES = 32
_NONCE = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?")


class Refusal(StrEnum):
    """Why an end does not accept the other."""

    MALFORMED = "malformed"
    VERSION = "version"
    CLUSTER = "cluster"
    NAME = "name"
    MEMBER = "member"
    CERTIFICATE = "certificate"
    SECRET = "secret"


class Refused(Exception):
    """The handshake ended without a link. `by_peer`: the other end refused us; `words` says it from this
    end's point of view."""

    def __init__(self, refusal: Refusal, words: str, *, by_peer: bool = False) -> None:
        super().__init__(words)
        self.refusal = refusal
        self.words = words
        self.by_peer = by_peer

    @property
    def level(self) -> int:
        """The log level: it is usual for a moment that a member is not known yet."""
        return logging.INFO if self.refusal is Refusal.MEMBER else logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What this end says of itself."""

    node: str
    cluster_uid: str
    protocols: tuple[int, int]
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """`raw`: exactly the bytes that went over the wire."""

    protocols: tuple[int, int]
    cluster_uid: str
    node: str
    to: str
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """The other end is that node. `send_key` seals our frames, `receive_key` opens its."""

    node: str
    protocol: int
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)


def make_hello(identity: Identity, to: str) -> Hello:
    """Ours, with a new nonce."""
    raw = json.dumps(
        {
            "protocols": list(identity.protocols),
            "cluster": identity.cluster_uid,
            "node": identity.node,
            "to": to,
            "nonce": os.urandom(_NONCE_BYTES).hex(),
        }
    ).encode()
    return Hello(
        protocols=identity.protocols, cluster_uid=identity.cluster_uid, node=identity.node, to=to, raw=raw
    )


def read_hello(raw: bytes) -> Hello:
    """Theirs. Raises Refused, also when it is a refusal."""
    data = _read(raw)
    protocols, nonce = data.get("protocols"), data.get("nonce")
    if not (
        isinstance(protocols, list)
        and len(protocols) == 2
        and all(type(number) is int and 0 < number < 1 << 31 for number in protocols)
    ):
        raise Refused(Refusal.MALFORMED, "its hello names no protocol versions")
    if not (isinstance(nonce, str) and _NONCE.fullmatch(nonce)):
        raise Refused(Refusal.MALFORMED, "its hello has no nonce")
    node, to, cluster = (data.get(key) for key in ("node", "to", "cluster"))
    if not (isinstance(node, str) and isinstance(to, str) and _NAME.fullmatch(node) and _NAME.fullmatch(to)):
        raise Refused(Refusal.MALFORMED, "its hello has no valid node names")
    if not isinstance(cluster, str):
        raise Refused(Refusal.MALFORMED, "its hello names no cluster")
    return Hello(protocols=(protocols[0], protocols[1]), cluster_uid=cluster, node=node, to=to, raw=raw)


def agree(ours: Hello, theirs: Hello) -> int:
    """The highest protocol that both speak. Raises Refused for that, for another cluster or another node."""
    highest = min(ours.protocols[1], theirs.protocols[1])
    if highest < max(ours.protocols[0], theirs.protocols[0]):
        older = "this" if ours.protocols[1] < theirs.protocols[1] else "that"
        raise Refused(
            Refusal.VERSION,
            f"{theirs.node} speaks versions {_span(theirs)} of the mesh's protocol and {ours.node} versions "
            f"{_span(ours)}: too far apart; upgrade {older} node first",
        )
    if theirs.cluster_uid != ours.cluster_uid:
        raise Refused(
            Refusal.CLUSTER, "it belongs to another cluster; check the node's address and its `vcl join`"
        )
    if theirs.to != ours.node:
        raise Refused(Refusal.NAME, f"it looks for {theirs.to}, and this is {ours.node}")
    return highest


def prove(secret: bytes, role: str, dialler: Hello, listener: Hello) -> bytes:
    """HMAC-SHA256 over the role and both hellos, each with its length before it."""
    digest = hmac.new(secret, b"vcl mesh\0" + role.encode() + b"\0", "sha256")
    for raw in (dialler.raw, listener.raw):
        digest.update(len(raw).to_bytes(4, "big"))
        digest.update(raw)
    return digest.digest()


async def dial(wire: Wire, identity: Identity, peer: str) -> Proven:
    """The dialler's part. Raises Refused, and ConnectionError when the connection breaks."""
    ours = make_hello(identity, peer)
    await wire.send(ours.raw)
    theirs = read_hello(await wire.receive(HELLO_LIMIT))
    if theirs.node != peer:
        raise Refused(Refusal.NAME, f"{theirs.node} answers at the address of {peer}; check the addresses")
    protocol = agree(ours, theirs)
    check_certificate(wire, peer)
    await wire.send(_proof(prove(identity.secret, "dialler", ours, theirs)))
    _check_proof(await wire.receive(HELLO_LIMIT), prove(identity.secret, "listener", ours, theirs))
    return Proven(
        node=peer,
        protocol=protocol,
        send_key=prove(identity.secret, "key of the dialler", ours, theirs),
        receive_key=prove(identity.secret, "key of the listener", ours, theirs),
    )


async def listen(wire: Wire, identity: Identity, is_member: Callable[[str], bool]) -> Proven:
    """The listener's part: tells the other end why it is refused. Raises Refused and ConnectionError."""
    try:
        return await _listen(wire, identity, is_member)
    except Refused as refused:
        if not refused.by_peer:
            with contextlib.suppress(ConnectionError):
                await wire.send(_refusal(refused.refusal, identity))
        raise


async def _listen(wire: Wire, identity: Identity, is_member: Callable[[str], bool]) -> Proven:
    theirs = read_hello(await wire.receive(HELLO_LIMIT))
    ours = make_hello(identity, theirs.node)
    protocol = agree(ours, theirs)
    check_certificate(wire, theirs.node)
    await wire.send(ours.raw)
    _check_proof(await wire.receive(HELLO_LIMIT), prove(identity.secret, "dialler", theirs, ours))
    if theirs.node == identity.node or not is_member(theirs.node):
        raise Refused(Refusal.MEMBER, f"{theirs.node} is not a member")
    await wire.send(_proof(prove(identity.secret, "listener", theirs, ours)))
    return Proven(
        node=theirs.node,
        protocol=protocol,
        send_key=prove(identity.secret, "key of the listener", theirs, ours),
        receive_key=prove(identity.secret, "key of the dialler", theirs, ours),
    )


def check_certificate(wire: Wire, node: str) -> None:
    """Raises Refused when there is TLS and the other end's certificate is not that node's."""
    if wire.certified is not None and node not in wire.certified:
        names = ", ".join(sorted(wire.certified)) or "nobody"
        raise Refused(Refusal.CERTIFICATE, f"the certificate of {node} is made out to {names[:200]}")


def _proof(proof: bytes) -> bytes:
    # No blank: changed into another kind of blank it would mean the same.
    return json.dumps({"proof": proof.hex()}, separators=(",", ":")).encode()


def _check_proof(raw: bytes, expected: bytes) -> None:
    proof = _read(raw).get("proof")
    if not isinstance(proof, str):
        raise Refused(Refusal.MALFORMED, "it proved nothing")
    if not hmac.compare_digest(proof.encode(), expected.hex().encode()):
        raise Refused(
            Refusal.SECRET, "it does not know the cluster's secret; copy the secret file to it again"
        )


def _refusal(refusal: Refusal, identity: Identity) -> bytes:
    return json.dumps({"refused": refusal.value, "protocols": list(identity.protocols)}).encode()


_BY_PEER: Mapping[Refusal, str] = {
    Refusal.MALFORMED: "it does not understand our handshake",
    Refusal.VERSION: "its version of the mesh's protocol and ours are too far apart; upgrade the older node",
    Refusal.CLUSTER: "it says that it belongs to another cluster; check the node's address",
    Refusal.NAME: "it says that it is another node; check the node's address",
    Refusal.MEMBER: "it does not know this node as a member of its cluster",
    Refusal.CERTIFICATE: "it refuses our certificate, which is not made out to this node's name",
    Refusal.SECRET: "it says that our cluster secret is wrong; copy the secret file from a member",
}
"""In our own words: what an unproven end writes is shown to nobody."""


def _read(raw: bytes) -> Mapping[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Refused(Refusal.MALFORMED, "its handshake is not JSON") from error
    if not isinstance(data, dict):
        raise Refused(Refusal.MALFORMED, "its handshake is not a JSON object")
    if "refused" in data:
        known = {refusal.value: refusal for refusal in Refusal}
        refusal = known.get(str(data["refused"]), Refusal.MALFORMED)
        raise Refused(refusal, _BY_PEER[refusal], by_peer=True)
    return data


def _span(hello: Hello) -> str:
    low, high = hello.protocols
    return str(low) if low == high else f"{low} to {high}"
