"""The private Ceph cluster: what the tests on it rely on, and that nothing of it stays behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ceph

SCRIPT = str(Path(__file__).with_name("ceph.py"))


def cli(verb: str, directory: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPT, verb, "--dir", str(directory), *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.slow
def test_two_clusters_live_side_by_side_and_one_goes_without_a_trace(
    private_ceph: Any, tmp_path: Path
) -> None:
    place = tmp_path / "ceph"
    daemons = []
    try:
        assert cli("start", place).strip() == str(place / "ceph.conf")
        other = type(private_ceph)(place)
        daemons = list(other.daemons())
        assert [daemon.name for daemon in daemons] == ["mon.a", "osd.0", "osd.1", "osd.2"]
        assert other.command("fsid") != private_ceph.command("fsid")
        assert "3 up" in cli("status", place)
    finally:
        cli("stop", place)
    assert not place.exists()
    assert not any(daemon.alive() for daemon in daemons)
    assert private_ceph.up_osds() == (0, 1, 2)


def test_an_osd_freezes_and_goes_on(private_ceph: Any) -> None:
    daemon = next(each for each in private_ceph.daemons() if each.name == "osd.1")
    private_ceph.freeze(1)
    try:
        assert "State:\tT" in Path(f"/proc/{daemon.pid}/status").read_text()
    finally:
        private_ceph.thaw(1)
    assert "State:\tT" not in Path(f"/proc/{daemon.pid}/status").read_text()
    assert private_ceph.daemons()[0].alive()


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("vcl", ("-p", "vms", "ls")),
        ("vcl", ("-p", "vcl", "-N", "vcl", "ls")),
        ("qemu", ("-p", "vms", "ls")),
    ],
)
def test_a_user_may_do_its_work(private_ceph: Any, user: str, words: tuple[str, ...]) -> None:
    assert rados(private_ceph, user, *words).returncode == 0


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("vcl", ("-p", "vcl", "ls")),
        ("vcl", ("-p", "vcl", "-N", "other", "put", "thing", "/dev/null")),
        ("qemu", ("-p", "vcl", "-N", "vcl", "ls")),
    ],
)
def test_a_user_may_do_no_more(private_ceph: Any, user: str, words: tuple[str, ...]) -> None:
    done = rados(private_ceph, user, *words)
    assert done.returncode != 0
    assert "Operation not permitted" in done.stderr


def rados(cluster: Any, user: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["rados", "-c", str(cluster.conf), "-n", f"client.{user}", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
