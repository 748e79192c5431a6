"""`make demo NODES=3` as its user meets it: a file that travels, a guest that boots, nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
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
        "hello.yaml is saved in the manifest directory of r1",
        "it is on r3",
        "its console says 'vcl-guest: booted hello'",
        "vcl get nodes -o wide\nNAME",
        "vcl get vms -o wide\nNAME",
        f"export VCL_LAB_DIR={demo.dir}",
    ):
        assert text in said
    for name in ("r1", "r2", "r3"):
        assert (
            demo.run("tools/lab", "run", name, "vcl", "get", "vms", "-o", "name") == "virtualmachine/hello\n"
        )
    assert "booted hello" in demo.demo("start", "--nodes", "3")
    assert "3 nodes" in demo.demo("stop")
    assert not demo.dir.exists()
