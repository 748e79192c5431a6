"""Mutual TLS with the cluster's own CA.

Invariant: both ends must show a certificate that this CA, and no other, has signed. Whose certificate it must
be is checked in the handshake, when the other end has said who it is.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.adapters.mesh.files import read_private, unreadable
from reconciler.adapters.mesh.options import TlsFiles
from reconciler.adapters.mesh.wire import names_in
from reconciler.resources.errors import InvalidInput

_RENEW = "`vcl init` on the first node makes a new certificate for it, and `vcl join` installs it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contexts:
    server: ssl.SSLContext
    client: ssl.SSLContext


def load_contexts(files: TlsFiles, node: str) -> Contexts:
    """Contexts that work: this node's certificate has been tried out on itself. Raises InvalidInput."""
    read_private(files.key, "the node's private key")
    for path, what in ((files.ca, "the cluster's CA certificate"), (files.cert, "the node's certificate")):
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise unreadable(path, what, error) from error
    contexts = Contexts(
        server=_context(ssl.PROTOCOL_TLS_SERVER, files), client=_context(ssl.PROTOCOL_TLS_CLIENT, files)
    )
    names = _try_out(contexts, files)
    if node not in names:
        raise InvalidInput(
            f"{files.cert}: this certificate is made out to {', '.join(sorted(names)) or 'nobody'}, and this "
            f"node is {node}",
            cure=_RENEW,
        )
    return contexts


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the node's name is checked in the handshake, an address says nothing
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_TICKET  # a resumed session would not show its certificate again
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    try:
        context.load_verify_locations(cafile=files.ca)
    except ssl.SSLError as error:
        raise InvalidInput(
            f"{files.ca}: not a CA certificate in PEM form", cure="copy it from another node of the cluster"
        ) from error
    try:
        context.load_cert_chain(files.cert, files.key, password="")
    except ssl.SSLError as error:
        raise InvalidInput(
            f"{files.cert}, {files.key}: not a certificate and its unencrypted key in PEM form: "
            f"{error.reason or error}",
            cure=_RENEW,
        ) from error
    return context


def _try_out(contexts: Contexts, files: TlsFiles) -> frozenset[str]:
    """Let the node greet itself: finds what every peer would find wrong. The names in its certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = contexts.server.wrap_bio(to_server, to_client, server_side=True)
    client = contexts.client.wrap_bio(to_client, to_server, server_side=False)
    try:
        for end in (client, server, client, server):
            _step(end)
        return names_in(client.getpeercert() or {})
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or str(error)
        raise InvalidInput(
            f"{files.cert}: other nodes would refuse this certificate, checked with {files.ca}: {reason}",
            cure=f"check the host's date and time; {_RENEW}",
        ) from error


def _step(end: Any) -> None:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return
