"""`make demo` as its user meets it: real guests, a second run, an interruption, a failure, nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HANG = 300


class Demo:
    """The demo in a directory of its own, so that a person's demo is not disturbed."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "VCL_DEMO_DIR": str(directory),
            "VCL_SOCKET": str(directory / "run/vcld.sock"),
        }

    def command(self, verb: str) -> list[str]:
        return [sys.executable, str(ROOT / "tools/demo.py"), verb]

    def run(self, verb: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | more
        return subprocess.run(
            self.command(verb), env=environment, capture_output=True, text=True, timeout=HANG, check=False
        )

    def vcl(self, *arguments: str) -> str:
        done = subprocess.run(
            [BIN / "vcl", *arguments], env=self.environment, capture_output=True, text=True, timeout=HANG
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def processes(self) -> list[str]:
        """Command lines of everything that knows the directory, and of its guests."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes()
                inside = os.path.samefile(entry / "root/run/libvirt", self.dir / "libvirt/run")
            except OSError:
                inside = False
            if inside or os.fsencode(self.dir) in words:
                found.append(os.fsdecode(words.replace(b"\0", b" ")))
        return found


@pytest.fixture
def demo() -> Iterator[Demo]:
    made = Demo(Path(tempfile.mkdtemp(prefix="vcl-test-demo-", dir="/var/tmp")))
    try:
        yield made
    finally:
        made.run("stop")
        shutil.rmtree(made.dir, ignore_errors=True)


@pytest.mark.libvirt
@pytest.mark.slow
def test_the_demo_boots_goes_on_where_it_was_and_leaves_nothing_behind(demo: Demo) -> None:
    first = demo.run("start")
    assert first.returncode == 0, first.stdout + first.stderr
    for said in (
        "its console says 'vcl-guest: booted counter'",
        "its console says 'vcl-guest: booted hello'",
        "--- vcl get vms -o wide\nNAME",
        "--- vcl describe vm counter\nName:         counter",
        "--- vcl console counter --tail 10\nvcl-guest: ",
        f"export VCL_SOCKET={demo.dir}/run/vcld.sock",
        "make demo-stop",
    ):
        assert said in first.stdout
    assert demo.vcl("get", "vms", "-o", "name") == "virtualmachine/counter\nvirtualmachine/hello\n"

    demo.vcl("stop", "hello", "--wait")
    second = demo.run("start")
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("runs already") == 2
    assert "counter unchanged, hello unchanged" in second.stdout
    assert "vcl start" in second.stdout

    ended = demo.run("stop")
    assert ended.returncode == 0, ended.stderr
    assert "2 guests" in ended.stdout
    assert not demo.dir.exists()
    assert demo.processes() == []
    assert "nothing to remove" in demo.run("stop").stdout


@pytest.mark.libvirt
@pytest.mark.slow
def test_an_interrupted_demo_says_how_to_go_on_and_does(demo: Demo) -> None:
    started = subprocess.Popen(
        demo.command("start"), env=demo.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + HANG
    while not (demo.dir / "vcld.log").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, complaint = started.communicate(timeout=HANG)
    assert started.returncode == 130
    assert "`make demo` goes on from here" in complaint
    assert demo.run("start").returncode == 0


@pytest.mark.libvirt
@pytest.mark.slow
def test_a_demo_that_does_not_boot_fails_and_shows_why(demo: Demo) -> None:
    failed = demo.run("start", VCL_DEMO_TIMEOUT="0.1")
    assert failed.returncode == 1
    assert "counter and hello did not boot within 0 s" in failed.stderr
    for shown in ("counter: its status", "the end of its console", "vcld.log", "libvirtd.log"):
        assert shown in failed.stdout
    assert demo.run("stop").returncode == 0
    assert demo.processes() == []


@pytest.mark.parametrize("verb", ["start", "stop"])
def test_files_that_the_demo_did_not_make_are_left_alone(demo: Demo, verb: str) -> None:
    precious = demo.dir / "precious"
    precious.write_text("mine")
    refused = demo.run(verb)
    assert refused.returncode == 1
    assert "files that the demo did not make" in refused.stderr
    assert precious.read_text() == "mine"
    precious.unlink()


def test_a_link_is_not_followed(demo: Demo) -> None:
    target = demo.dir / "target"
    target.mkdir()
    (demo.dir / "link").symlink_to(target)
    refused = demo.run("start", VCL_DEMO_DIR=str(demo.dir / "link"))
    assert refused.returncode == 1
    assert "is not a directory" in refused.stderr
    shutil.rmtree(target)
    (demo.dir / "link").unlink()


def test_the_demo_of_another_user_is_not_taken_over(demo: Demo) -> None:
    if os.geteuid() == 0:
        (demo.dir / ".vcl-demo").touch()
        os.chown(demo.dir, 65534, 65534)
        refused = demo.run("start")
    else:
        refused = demo.run("start", VCL_DEMO_DIR="/usr")  # root's
    assert refused.returncode == 1
    assert "user" in refused.stderr
    assert "make demo-stop" in refused.stderr
