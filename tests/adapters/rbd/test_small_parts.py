"""The parts that need no cluster: what is copied, what counts as fenced, keyrings and configurations."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reconciler.adapters.fencing.entries import Entries
from reconciler.adapters.rbd import guests
from reconciler.adapters.rbd.copying import GRAIN, PIECE, Stopped, copy, not_zero, pieces
from reconciler.resources.errors import PoolUnavailable
from reconciler.resources.images import RbdIdentity, RbdName, is_network_client

NOW = 1_800_000_000.0
LONG, SHORT = NOW + 3650 * 86400.0, NOW + 3600.0


class Target:
    """Where a copy goes."""

    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []
        self.flushed = False

    def write(self, data: bytes, offset: int) -> None:
        self.written.append((offset, len(data)))

    def flush(self) -> None:
        self.flushed = True


class Source:
    """Data in its second grain only."""

    def read(self, offset: int, length: int) -> bytes:
        return (bytes(GRAIN) + b"x" * GRAIN + bytes(PIECE))[:length]


def test_only_what_is_not_zero_is_written() -> None:
    target, seen = Target(), list[float]()
    copy(Source(), [(0, 2 * PIECE)], target, seen.append, threading.Event())
    assert target.written == [(GRAIN, GRAIN), (PIECE + GRAIN, GRAIN)]
    assert target.flushed
    assert seen == sorted(seen)


def test_a_copy_stops_between_two_pieces() -> None:
    target, stop = Target(), threading.Event()
    with pytest.raises(Stopped):
        copy(Source(), [(0, 4 * PIECE)], target, lambda done: stop.set(), stop)
    assert len(target.written) == 1
    assert not target.flushed


def test_pieces_end_at_the_borders_of_objects() -> None:
    cut = [(PIECE - 512, 512), (PIECE, PIECE), (2 * PIECE, 100)]
    assert list(pieces([(PIECE - 512, PIECE + 612)])) == cut


def test_runs_reach_to_the_end_of_an_odd_piece() -> None:
    assert list(not_zero(bytes(GRAIN) + b"x" * 100)) == [(GRAIN, GRAIN + 100)]
    assert list(not_zero(bytes(GRAIN + 100))) == []


@pytest.mark.parametrize(
    ("until", "covered"),
    [
        ({"10.77.0.1:0/5": LONG}, True),
        ({"10.77.0.1:0/0": LONG}, True),
        ({"10.77.0.1:0/5": SHORT}, False),
        ({"10.77.0.1:0/0": SHORT, "10.77.0.1:0/5": LONG}, True),
        ({"10.77.0.1:0/55": LONG, "10.77.0.11:0/0": LONG}, False),
        ({}, False),
    ],
)
def test_a_client_is_fenced_by_an_entry_that_lasts(until: dict[str, float], covered: bool) -> None:
    assert Entries(until=until, now=NOW).covers("10.77.0.1:0/5") is covered


def test_a_key_is_that_of_its_own_section() -> None:
    text = '[client.admin]\n\tkey = QUJD\n[client.qemu]\n\tcaps mon = "profile rbd"\n\tkey = REVG==\n'
    assert guests.key_in(text, "qemu") == "REVG=="
    assert guests.key_in(text, "admin") == "QUJD"
    assert guests.key_in(text, "nobody") == ""


def test_the_guests_configuration_is_the_hosts_with_vcls_options_and_made_once(tmp_path: Path) -> None:
    source, target = tmp_path / "ceph.conf", tmp_path / "made" / "guests.conf"
    source.write_text("[global]\nfsid = f1\n")
    guests.write_conf(str(source), target, "qemu")
    first = target.stat()
    assert "fsid = f1\n\n[client.qemu]\nrbd blocklist expire seconds = 315360000\n" in target.read_text()
    assert first.st_mode & 0o777 == 0o644
    guests.write_conf(str(source), target, "qemu")
    assert target.stat().st_ino == first.st_ino
    with pytest.raises(PoolUnavailable, match=r"nowhere\.conf"):
        guests.write_conf(str(tmp_path / "nowhere.conf"), target, "qemu")


@pytest.mark.parametrize("path", ["rbd:vms/web.root", "rbd:vms/tenant/web.root"])
def test_a_name_reads_as_it_is_written(path: str) -> None:
    name = RbdName.parse(path)
    assert name is not None
    assert name.path == path


@pytest.mark.parametrize("path", ["/vms/web", "rbd:web", "rbd:a/b/c/d", "rbd:/x", "nbd:a/b"])
def test_what_names_no_image_is_none(path: str) -> None:
    assert RbdName.parse(path) is None


@pytest.mark.parametrize("identity", ["5157a111/12", "name/p/web.root", "block/8:1", "network/rbd:a/b/c"])
def test_only_an_rbd_image_has_its_identity(identity: str) -> None:
    assert RbdIdentity.parse(identity) is None
    assert str(RbdIdentity.parse("f1/vms//10ab")) == "f1/vms//10ab"


def test_network_clients_are_told_from_processes() -> None:
    assert is_network_client("10.77.0.1:0/544144402")
    assert is_network_client("[2001:db8::1]:0/5")
    assert not is_network_client("pid:7:100")
    assert not is_network_client("dummy:web@1.5")
