"""Certificates for the tests, made by openssl once for a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

NODES = ("a", "b", "c")


class Authority:
    """A CA in a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        _openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30"
            f" -subj /CN={name} -keyout {directory}/ca.key -out {directory}/ca.crt"
            " -addext keyUsage=critical,keyCertSign,cRLSign"
        )

    def issue(self, node: str, *, file: str = "", san: str = "", days: str = "-days 30") -> None:
        """A certificate for that node, in `file`.crt and `file`.key (default: the node's name)."""
        base = self.directory / (file or node)
        base.with_suffix(".ext").write_text(
            f"subjectAltName = DNS:{san or node}\nextendedKeyUsage = serverAuth, clientAuth\n"
        )
        _openssl(
            "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            f" -subj /CN={node} -keyout {base}.key -out {base}.csr"
        )
        _openssl(
            f"x509 -req -in {base}.csr -CA {self.directory}/ca.crt -CAkey {self.directory}/ca.key"
            f" -CAcreateserial {days} -extfile {base}.ext -out {base}.crt"
        )


def _openssl(arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True, umask=0o077)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The cluster's CA, with certificates for the nodes."""
    made = Authority(tmp_path_factory.mktemp("mesh-ca"), "cluster")
    for node in NODES:
        made.issue(node)
    return made


@pytest.fixture(scope="session")
def certificates(authority: Authority) -> Path:
    """The directory with ca.crt and each node's NODE.crt, NODE.key."""
    return authority.directory


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same nodes' certificates, of another CA of the same name."""
    made = Authority(tmp_path_factory.mktemp("mesh-other-ca"), "cluster")
    for node in NODES:
        made.issue(node)
    return made.directory
