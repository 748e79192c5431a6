"""The cluster's secret, its own CA and a certificate for each node, made by the program's own authority.

Keys never leave the lab's directory, which only its owner can read.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

from .host import Host


def issue(authority: Path, hosts: Sequence[Host]) -> None:
    """Give each host /etc/vcl/{secret,ca.crt,node.crt,node.key}, unless it has them. Raises VclError."""
    from reconciler.adapters.pki import make_ca, make_node_certificate  # `lab stop` works without it

    authority.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = authority / "secret"
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(f"{secrets.token_hex(32)}\n")
    certificate = make_ca(authority, "lab").certificate
    for host in hosts:
        place = host.files / "etc/vcl"
        make_node_certificate(authority, host.name, [host.address.ip], into=place)
        shutil.copy(secret, place / "secret")
        shutil.copy(certificate, place / "ca.crt")
