"""`make demo NODES=3` as its user meets it: a file that travels, a guest that boots, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


class Demo:
    """The demo in a directory of its own, so that a person's demo is not disturbed."""

    def __init__(self, directory: Path) -> None:
        self.dir = Path(f"{directory}-cluster")
        self.environment = {
            **os.environ,
            "VCL_DEMO_DIR": str(directory),
            "VCL_LAB_DIR": str(self.dir),
        }

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [*command], env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def demo(self, *words: str) -> str:
        return self.run(sys.executable, "tools/demo.py", *words)

    def home(self, asked: str = "r1") -> str:
        """Where the VM runs, as that node knows; empty when nowhere."""
        found = json.loads(self.run("tools/lab", "run", asked, "vcl", "get", "vm", "survivor", "-o", "json"))
        status = found["status"]
        return str(status.get("node") or "") if status["phase"] == "Running" else ""

    def wait_until_elsewhere(self, home: str) -> None:
        other = next(name for name in ("r1", "r2", "r3") if name != home)
        deadline = time.monotonic() + 90
        while self.home(other) in ("", home):
            assert time.monotonic() < deadline
            time.sleep(0.5)


@pytest.fixture
def demo() -> Iterator[Demo]:
    directory = Path(tempfile.mkdtemp(prefix="vcl-demo-", dir="/var/tmp"))
    made = Demo(directory)
    shutil.rmtree(directory)
    try:
        yield made
    finally:
        made.demo("stop")


def test_the_demo_of_three_nodes_shows_a_cluster_and_leaves_nothing_behind(demo: Demo) -> None:
    said = demo.demo("start", "--nodes", "3")
    for text in (
        "3 of 3 nodes are ready",
        "survivor.yaml is saved in the manifest directory of r1",
        "it is on r3",
        "its console says 'vcl-guest: booted survivor'",
        "vcl get nodes -o wide\nNAME",
        "vcl get vms -o wide\nNAME",
        f"export VCL_LAB_DIR={demo.dir}",
    ):
        assert text in said
    for name in ("r1", "r2", "r3"):
        assert (
            demo.run("tools/lab", "run", name, "vcl", "get", "vms", "-o", "name")
            == "virtualmachine/survivor\n"
        )
    assert "booted survivor" in demo.demo("start", "--nodes", "3")

    home = demo.home()
    demo.run("tools/lab", "fault", "power-cut", home)
    demo.wait_until_elsewhere(home)
    assert "3 nodes" in demo.demo("stop")
    assert not demo.dir.exists()
