"""The proof of death, on a /proc made by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.adapters.libvirt.processes import Process, Processes
from reconciler.resources.errors import ControllerUnavailable

UUID = "11111111-2222-4333-8444-555555555555"
QEMU = f"/usr/bin/qemu-system-x86_64\0-name\0guest=web\0-uuid\0{UUID}\0-S\0"


def put(
    proc: Path, pid: int, command: str, *, state: str = "S", started: int = 70, name: str = "qemu"
) -> None:
    """A process; its one other thread sleeps."""
    stat = f"{pid} ({name} (x) y) {state} 1 1 1 " + "0 " * 15 + f"{started} 0 0\n"
    directory = proc / str(pid)
    for thread, shown in ((pid, state), (pid + 1, "D")):
        (directory / "task" / str(thread)).mkdir(parents=True, exist_ok=True)
        (directory / "task" / str(thread) / "stat").write_text(f"{thread} (t) {shown} 1\n")
    (directory / "stat").write_text(stat)
    (directory / "cmdline").write_text(command)


def kill(proc: Path, pid: int, thread: str = "Z") -> None:
    """As the kernel leaves it: no command line, a zombie, and a last thread that may still wait."""
    put(proc, pid, "", state="Z")
    (proc / str(pid) / "task" / str(pid + 1) / "stat").write_text(f"{pid + 1} (t) {thread} 1\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    put(tmp_path, 1, "/sbin/init\0", name="init")
    put(tmp_path, 30, f"/usr/bin/grep\0{UUID}\0", name="grep")
    (tmp_path / "meminfo").write_text("")
    return tmp_path


def test_a_qemu_is_found_by_its_uuid_alone(proc: Path) -> None:
    put(proc, 40, QEMU)
    found = Processes(str(proc)).scan()
    assert found == {UUID: (Process(pid=40, started=70),)}
    assert found[UUID][0].client == "pid:40:70"


def test_a_killed_qemu_is_alive_until_its_last_thread_has_ended(proc: Path) -> None:
    put(proc, 40, QEMU)
    processes = Processes(str(proc))
    assert processes.alive(UUID)
    kill(proc, 40, thread="D")
    assert processes.alive(UUID), "a thread still waits for the kernel to finish its write"
    kill(proc, 40)
    assert processes.alive(UUID) == ()


def test_a_dying_qemu_that_was_never_seen_keeps_everything_unknown(proc: Path) -> None:
    put(proc, 40, "", name="qemu-system-x86")
    with pytest.raises(ControllerUnavailable, match="QEMU process 40 is ending"):
        Processes(str(proc)).alive(UUID)
    kill(proc, 40)
    assert Processes(str(proc)).alive(UUID) == ()


def test_a_process_id_that_was_used_again_is_another_process(proc: Path) -> None:
    put(proc, 40, QEMU)
    processes = Processes(str(proc))
    (before,) = processes.alive(UUID)
    put(proc, 40, "/bin/true\0", started=90, name="true")
    assert not processes.still((before,))
    assert processes.alive(UUID) == ()


def test_hidden_processes_prove_nothing(tmp_path: Path) -> None:
    with pytest.raises(ControllerUnavailable, match="hidepid"):
        Processes(str(tmp_path)).alive(UUID)


def test_only_the_process_of_that_uuid_is_killed() -> None:
    argument = [sys.executable, "-c", "import time; time.sleep(60)", "-uuid"]
    one = subprocess.Popen([*argument, UUID])
    other = subprocess.Popen([*argument, UUID.replace("1", "6")])
    try:
        processes = Processes()
        while not processes.alive(UUID):
            pass
        processes.kill(UUID)
        assert one.wait(10) == -9
        assert other.poll() is None
    finally:
        for process in (one, other):
            process.kill()
            process.wait()
