"""The cluster's authority and the nodes' certificates, judged by openssl and by Python's TLS."""

from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.adapters.mesh.options import TlsFiles
from reconciler.adapters.mesh.tls import load_contexts
from reconciler.adapters.pki import make_ca, make_node_certificate, read_certificate
from reconciler.resources.errors import InvalidInput, VclError


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["openssl", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=20
    )


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_a_nodes_certificate_is_good_for_both_ends_of_a_connection(tmp_path: Path, purpose: str) -> None:
    ca = make_ca(tmp_path)
    node = make_node_certificate(tmp_path, "r1", ["10.0.0.1"])
    told = openssl(
        *("verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", "r1", "-verify_ip", "10.0.0.1"),
        *("-CAfile", ca.certificate, node.certificate),
    )
    assert told.returncode == 0, told.stderr
    load_contexts(TlsFiles(ca=ca.certificate, cert=node.certificate, key=node.key), "r1")


def test_a_certificate_of_another_authority_is_worth_nothing(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
        make_ca(directory)
    node = make_node_certificate(theirs, "r1")
    assert openssl("verify", "-CAfile", ours / "ca.crt", node.certificate).returncode != 0


def test_a_node_cannot_sign_for_others(tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    node = make_node_certificate(tmp_path, "r1")
    node.certificate.rename(tmp_path / "nodes/ca.crt")
    node.key.rename(tmp_path / "nodes/ca.key")
    forged = make_node_certificate(tmp_path / "nodes", "r2")
    told = openssl(
        *("verify", "-CAfile", ca.certificate, "-untrusted", tmp_path / "nodes/ca.crt", forged.certificate)
    )
    assert told.returncode != 0


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    ca = make_ca(tmp_path)
    node = make_node_certificate(tmp_path, "r1")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (ca.key, node.key)] == [0o600, 0o600]


def test_nothing_that_exists_is_made_again(tmp_path: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    make_ca(tmp_path)
    make_node_certificate(tmp_path, "r1", ["10.0.0.1"])
    before = files()
    make_ca(tmp_path, "another")
    make_node_certificate(tmp_path, "r1", ["10.0.0.9"])
    assert files() == before


def test_only_what_is_missing_is_made(tmp_path: Path) -> None:
    """An interrupted run leaves a key without a certificate; the nodes' certificates outlive the CA's."""
    ca = make_ca(tmp_path)
    node = make_node_certificate(tmp_path, "r1", into=tmp_path)
    keys = ca.key.read_bytes(), node.key.read_bytes()
    ca.certificate.unlink()
    make_ca(tmp_path)
    assert openssl("verify", "-CAfile", ca.certificate, node.certificate).returncode == 0
    node.certificate.unlink()
    make_node_certificate(tmp_path, "r1", into=tmp_path)
    assert openssl("verify", "-CAfile", ca.certificate, node.certificate).returncode == 0
    assert (ca.key.read_bytes(), node.key.read_bytes()) == keys


def test_a_certificate_is_valid_from_yesterday_for_ten_years(tmp_path: Path) -> None:
    authority = read_certificate(make_ca(tmp_path, "mycluster").certificate)
    node = read_certificate(make_node_certificate(tmp_path, "r1").certificate)
    now = datetime.now(UTC)
    assert (authority.name, node.name) == ("mycluster", "r1")
    assert node.valid_from < now - timedelta(hours=23)
    assert now + timedelta(days=3650) < node.valid_until <= authority.valid_until
    assert len(node.fingerprint) == 32 * 3 - 1


def test_a_host_name_is_no_second_name_of_the_node(tmp_path: Path) -> None:
    """The mesh takes DNS names for names of nodes."""
    make_ca(tmp_path)
    node = make_node_certificate(tmp_path, "r1", ["r2", "fd00::1"])
    told = openssl("x509", "-in", node.certificate, "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:r1, IP Address:FD00:0:0:0:0:0:0:1" in told
    assert "r2" not in told


def test_an_authority_without_its_key_is_refused(tmp_path: Path) -> None:
    make_ca(tmp_path).key.unlink()
    with pytest.raises(InvalidInput, match=r"without its key ca\.key.*; run this on the node on which"):
        make_ca(tmp_path)
    with pytest.raises(InvalidInput, match="are needed for a certificate of node r1; run this on"):
        make_node_certificate(tmp_path, "r1")


def test_another_nodes_certificate_is_refused(tmp_path: Path) -> None:
    make_ca(tmp_path)
    node = make_node_certificate(tmp_path, "r1", into=tmp_path)
    with pytest.raises(InvalidInput, match="is made out to r1, not to r2; use the name"):
        make_node_certificate(tmp_path, "r2", into=tmp_path)
    node.key.unlink()
    with pytest.raises(InvalidInput, match=r"without its key node\.key; put the key back"):
        make_node_certificate(tmp_path, "r1", into=tmp_path)


def test_a_name_that_is_none_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    make_ca(tmp_path)
    with pytest.raises(InvalidInput, match="cannot be a node's name"):
        make_node_certificate(tmp_path, "r1\n[evil]")
    with pytest.raises(InvalidInput, match=r"ca\.key: `openssl x509` failed"):
        read_certificate(tmp_path / "ca.key")


def test_without_openssl_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(VclError, match="`openssl` is missing; install the package openssl"):
        make_ca(tmp_path)
