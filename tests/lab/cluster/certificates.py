"""The cluster's secret, its own CA and a certificate for each node, as the mesh wants them.

Keys never leave the lab's directory, which only its owner can read.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from .host import Host
from .processes import LabFailed

DAYS = "3650"


def issue(authority: Path, hosts: Sequence[Host]) -> None:
    """Give each host /etc/vcl/{secret,ca.crt,node.crt,node.key}, unless it has them. Raises LabFailed."""
    authority.mkdir(parents=True, exist_ok=True, mode=0o700)
    key, certificate, secret = (authority / name for name in ("ca.key", "ca.crt", "secret"))
    if not secret.exists():
        _key(key)
        _openssl(
            "req", "-x509", "-new", "-key", key, "-out", certificate, "-days", DAYS, "-subj", "/CN=vcl lab"
        )
        secret.write_text(f"{secrets.token_hex(32)}\n")
        secret.chmod(0o600)
    for host in hosts:
        place = host.files / "etc/vcl"
        if not (place / "node.crt").exists():
            shutil.copy(secret, place / "secret")
            shutil.copy(certificate, place / "ca.crt")
            _certificate(host, place, authority)


def _certificate(host: Host, place: Path, authority: Path) -> None:
    request, extensions = authority / f"{host.name}.csr", authority / f"{host.name}.ext"
    _key(place / "node.key")
    _openssl("req", "-new", "-key", place / "node.key", "-out", request, "-subj", f"/CN={host.name}")
    extensions.write_text(
        f"subjectAltName = DNS:{host.name}, IP:{host.address.ip}\n"
        "extendedKeyUsage = serverAuth, clientAuth\n"
        "basicConstraints = critical, CA:false\n"
    )
    signer = ("-CA", authority / "ca.crt", "-CAkey", authority / "ca.key", "-CAcreateserial")
    issued = ("-in", request, "-out", place / "node.crt", "-days", DAYS, "-extfile", extensions)
    _openssl("x509", "-req", *issued, *signer)


def _key(path: Path) -> None:
    _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    path.chmod(0o600)


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LabFailed(f"openssl {arguments[0]}: {done.stderr.strip()[-300:]}")
