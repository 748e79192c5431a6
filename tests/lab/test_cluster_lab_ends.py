"""The lab as a tool: two of them live side by side, and each ends without a trace, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
ROOT = Path(__file__).resolve().parents[2]
OWNER = """
import sys, tempfile
sys.path.insert(0, "tests/lab")
tempfile.tempdir = sys.argv[1]
import fixtures
with fixtures.cluster.cluster_lab(fixtures.cluster.LabSettings(nodes=1, ceph=False, vcld=False)) as lab:
    print(lab.dir, flush=True)
    sys.stdin.read(1)
"""


class Tool:
    """tools/lab on a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory

    def __call__(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [ROOT / "tools/lab", "--dir", self.dir, *words], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def short() -> Iterator[Path]:
    """A directory with a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="vcl-two-") as made:
        yield Path(made)


def traces(directory: Path) -> list[str]:
    """Command lines of everything that belongs to a lab in the directory, and its mounts here."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    words = [" ".join(each.words()) for each in cluster.processes()]
    return [line for line in (*mounts, *words) if f"{directory}/" in line]


def inside(directory: Path) -> list[Any]:
    """Every process below the switch of a lab, found by kinship and not by name."""
    first = cluster.ClusterLab(directory).switch.first()
    found, known = [first], {first.pid}
    for each in sorted(cluster.processes(), key=lambda one: int(one.started)):
        if _parent(each.pid) in known:
            known.add(each.pid)
            found.append(each)
    return found


def _parent(pid: int) -> int:
    """0 when the process has just ended, as others on the machine may do at any time."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(") ")[2].split()[1])


def test_two_labs_live_side_by_side_and_each_goes_without_a_trace(short: Path) -> None:
    one, other = Tool(short / "1"), Tool(short / "2")
    try:
        words = ("start", "--nodes", "1", "--no-vcld")
        with ThreadPoolExecutor(2) as both:
            for said in both.map(lambda tool: tool(*words), (one, other)):
                assert "lab run r1 vcl get nodes" in said
        assert one("ceph", "fsid") != other("ceph", "fsid")
        assert one("run", "r1", "cat", "/etc/machine-id") != other("run", "r1", "cat", "/etc/machine-id")
        one("fault", "cut-ceph", "r1")
        assert "cut   r1 -> ceph" in one("status")
        assert "cut" not in other("status")
        assert "it is: lab fault kill MACHINE DAEMON" in one("fault", "kill", "r1", code=1)
        assert "osd: 3 osds: 3 up" in one("ceph", "-s")
        assert "runs" in one("start")  # again: it goes on, with the nodes that it has
        processes = inside(one.dir)
        assert len(processes) > 8
        assert "ended" in one("stop")
        assert not any(each.alive() for each in processes)
        assert not one.dir.exists()
        assert traces(one.dir) == []
        assert other("run", "r1", "virsh", "-q", "hostname").strip() == "r1"
    finally:
        one("stop")
        other("stop")
    assert "nothing to remove" in one("stop")
    assert traces(short) == []


def test_a_lab_ends_with_its_owner_and_the_next_one_tidies_up(short: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(short)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as owner:  # type: ignore[call-overload]
        directory = Path(owner.stdout.readline().strip())
        processes = inside(directory)
        assert cluster.ClusterLab(directory).host("r1").on()
        owner.send_signal(signal.SIGKILL)
    cluster.until(lambda: not any(each.alive() for each in processes), 10, "all of it has ended")
    assert directory.exists()
    with subprocess.Popen(command, cwd=ROOT, **pipes) as owner:  # type: ignore[call-overload]
        second = Path(owner.stdout.readline().strip())
        assert not directory.exists()
        owner.communicate("\n", timeout=60)
    assert owner.returncode == 0
    assert second != directory
    assert os.listdir(short) == []
    assert traces(short) == []


def test_the_tool_says_what_is_wrong(short: Path) -> None:
    tool = Tool(short)
    assert "error: no lab runs in" in tool("status", code=1)
    (short / "precious").touch()
    assert "nothing was removed" in tool("stop", code=1)
    assert (short / "precious").exists()
    assert "a lab has 1 to 20 nodes, not 0" in tool("start", "--nodes", "0", code=1)


def test_a_lab_that_died_begins_anew(short: Path) -> None:
    lab = cluster.ClusterLab(short / "1", cluster.LabSettings(nodes=1, ceph=False, vcld=False))
    try:
        lab.start()
        old = lab.nodes["r1"].manifests.parent / "old"
        old.touch()
        lab.start()
        assert old.exists()
        os.kill(lab.switch.first().pid, signal.SIGKILL)
        cluster.until(lambda: not lab.running(), 10, "it has died")
        lab.start()
        assert not old.exists()
        assert lab.nodes["r1"].virsh("hostname").strip() == "r1"
    finally:
        lab.stop()
    assert list(short.iterdir()) == []
