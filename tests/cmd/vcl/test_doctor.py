"""`vcl doctor` on machines that are ill in one way each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vcl.checks.machine import Daemon, Finding, Level, Machine, Ran
from vcl.client import Client
from vcl.session import UsageError
from vcl.verbs.doctor import ask_daemon, examine, report

COMMANDS = {
    "virsh": Ran(code=0, text="Using library: 9.0.0\nRunning against daemon: 9.0.0\n"),
    "timedatectl": Ran(code=0, text="yes\n"),
    "systemctl": Ran(code=1, text="disabled\n"),
    "qemu-system-x86_64": Ran(code=0, text="QEMU emulator version 7.2\n"),
    "qemu-img": Ran(code=0, text="qemu-img version 7.2\n"),
}


REFUSED = Ran(code=1, text="error: no")
UNSYNCHRONISED = Ran(code=0, text="no\n")


def run(command: Sequence[str]) -> Ran | None:
    return COMMANDS.get(command[0])


@pytest.fixture
def well(tmp_path: Path) -> Machine:
    """A machine on which all is well."""
    for name in (
        "dev/kvm",
        "run/vcl/vcld.sock",
        "usr/share/OVMF/OVMF_CODE.fd",
        "var/lib/vcl/manifests/web.yaml",
        "proc/1/comm",
        "etc/libvirt/qemu/web.xml",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o660)
    limits = tmp_path / "proc/sys/fs/inotify"
    limits.mkdir(parents=True)
    (limits / "max_user_watches").write_text("65536\n")
    (limits / "max_user_instances").write_text("128\n")
    return Machine(
        root=tmp_path,
        architecture="x86_64",
        run=run,
        which=lambda name: f"/usr/bin/{name}" if name in (*COMMANDS, "xorriso") else None,
        free=lambda path: 100 * 2**30,
        open_files=lambda: 65536,
    )


VCLD = Daemon(
    socket="/run/vcl/vcld.sock",
    version={"version": "0.1.0", "node": "r1", "libvirt": "9.0.0"},
    node={"status": {"virtualization": "kvm"}},
)


def bad(machine: Machine, vcld: Daemon = VCLD) -> list[tuple[str, Level]]:
    return [(f.check, f.level) for f in examine(machine, vcld) if f.level is not Level.OK]


def with_command(machine: Machine, name: str, ran: Ran | None) -> Machine:
    return replace(machine, run=lambda command: ran if command[0] == name else run(command))


def test_a_machine_that_is_well_has_no_findings(well: Machine) -> None:
    assert bad(well) == []


Change = Callable[[Machine], Machine]


def removed(name: str) -> Change:
    def change(machine: Machine) -> Machine:
        machine.path(name).unlink()
        return machine

    return change


def written(name: str, text: str) -> Change:
    def change(machine: Machine) -> Machine:
        machine.path(name).parent.mkdir(parents=True, exist_ok=True)
        machine.path(name).write_text(text)
        return machine

    return change


def mode(name: str, value: int) -> Change:
    def change(machine: Machine) -> Machine:
        machine.path(name).chmod(value)
        return machine

    return change


@pytest.mark.parametrize(
    ("change", "check", "level", "words"),
    [
        (removed("/dev/kvm"), "kvm", Level.WARN, "modprobe kvm"),
        (
            lambda m: with_command(m, "virsh", Ran(code=1, text="error: no")),
            "libvirt",
            Level.FAIL,
            "start libvirtd",
        ),
        (lambda m: with_command(m, "virsh", None), "libvirt", Level.FAIL, "start libvirtd"),
        (lambda m: replace(m, which=lambda name: None), "qemu", Level.FAIL, "install qemu-system-x86"),
        (lambda m: replace(m, which=lambda name: None), "cloud-init", Level.WARN, "install xorriso"),
        (removed("/usr/share/OVMF/OVMF_CODE.fd"), "uefi", Level.WARN, "install ovmf"),
        (
            written("/etc/libvirt/qemu/autostart/web.xml", ""),
            "autostart",
            Level.FAIL,
            "virsh autostart --disable",
        ),
        (
            lambda m: with_command(m, "systemctl", Ran(code=0, text="enabled\n")),
            "libvirt-guests",
            Level.WARN,
            "disable",
        ),
        (written("/etc/runlevels/default/libvirt-guests", ""), "libvirt-guests", Level.WARN, "rc-update del"),
        (lambda m: replace(m, free=lambda path: 2**30), "disk", Level.WARN, "make room"),
        (lambda m: replace(m, free=lambda path: 2**20), "disk", Level.FAIL, "make room"),
        (lambda m: replace(m, open_files=lambda: 1024), "files", Level.WARN, "ulimit -n 4096"),
        (written("/proc/sys/fs/inotify/max_user_watches", "10"), "inotify", Level.WARN, "sysctl --system"),
        (removed("/proc/sys/fs/inotify/max_user_watches"), "inotify", Level.WARN, "next rescan"),
        (
            lambda m: with_command(m, "timedatectl", Ran(code=0, text="no\n")),
            "clock",
            Level.WARN,
            "install chrony",
        ),
        (mode("/run/vcl/vcld.sock", 0o666), "socket", Level.FAIL, "socket.mode"),
        (mode("/var/lib/vcl/manifests", 0o777), "manifests", Level.FAIL, "chmod o-w"),
    ],
)
def test_each_illness_is_found_with_its_cure(
    well: Machine, change: Change, check: str, level: Level, words: str
) -> None:
    machine = change(well)
    assert (check, level) in bad(machine)
    found = [f for f in examine(machine, VCLD, [check]) if f.level is not Level.OK]
    assert words in found[0].cure


def test_a_clock_service_counts_without_systemd(well: Machine) -> None:
    well.path("/proc/1/comm").write_text("chronyd\n")
    assert bad(with_command(well, "timedatectl", None)) == []


def test_libvirt_guests_that_starts_guests_is_a_failure(well: Machine) -> None:
    written("/etc/default/libvirt-guests", "ON_BOOT=start\n")(well)
    machine = with_command(well, "systemctl", Ran(code=0, text="enabled\n"))
    assert bad(machine) == [("libvirt-guests", Level.FAIL)]


def test_libvirt_guests_that_only_shuts_guests_down_is_fine(well: Machine) -> None:
    written("/etc/default/libvirt-guests", 'ON_BOOT=ignore\nON_SHUTDOWN="shutdown"\n')(well)
    assert bad(with_command(well, "systemctl", Ran(code=0, text="enabled\n"))) == []


def test_the_libvirt_that_vcld_uses_is_the_one_that_counts(well: Machine) -> None:
    vcld = replace(VCLD, node={"status": {"virtualization": "kvm", "controllers": {"libvirt": "Ready"}}})
    assert bad(with_command(well, "virsh", Ran(code=1, text="error: no")), vcld) == []


def test_kvm_that_does_not_work_is_told_as_the_daemon_proved_it(well: Machine) -> None:
    proved = replace(VCLD, node={"status": {"virtualization": "qemu"}})
    assert bad(well, proved) == [("kvm", Level.WARN)]


def test_a_daemon_that_is_not_ready_tells_why(well: Machine) -> None:
    vcld = replace(VCLD, problems=("libvirt: not connected", "store: read-only"))
    assert bad(well, vcld) == [("daemon", Level.FAIL), ("daemon", Level.FAIL)]


def test_held_deletions_are_a_warning(well: Machine) -> None:
    held = {"id": "3f9c", "reason": "many files vanished", "objects": [{}, {}]}
    assert bad(well, replace(VCLD, status={"heldDeletions": held})) == [("deletions", Level.WARN)]


def test_a_daemon_that_is_down_is_one_failure_among_the_other_findings(well: Machine) -> None:
    vcld = ask_daemon(Client("/nonexistent/vcld.sock"))
    assert bad(well, vcld)[0] == ("daemon", Level.FAIL)
    assert len(examine(well, vcld)) > 10


def test_each_pools_directory_is_looked_at(well: Machine) -> None:
    pool = {"metadata": {"name": "fast"}, "spec": {"directory": {"path": "/srv/images"}}}
    found = examine(well, replace(VCLD, pools=(pool,)), ["disk"])
    assert "in /srv/images for the images of pool fast" in found[1].message


def test_an_unknown_check_is_refused_with_the_ones_there_are(well: Machine) -> None:
    with pytest.raises(UsageError, match="there is no check 'cpu'; the checks are: autostart"):
        examine(well, VCLD, ["cpu"])


def test_the_report_has_a_cure_below_each_finding() -> None:
    found = [
        Finding(check="kvm", level=Level.WARN, message="no\x1b[2J kvm", cure="get one"),
        Finding(check="python", level=Level.OK, message="3.11"),
    ]
    assert report(found) == (
        "WARN  kvm     no\\x1b[2J kvm\n      cure: get one\nOK    python  3.11\n\n"
        "0 failed, 1 warnings, 1 fine\n"
    )


def test_doctor_runs_on_this_machine(vcl: Any, api: Any) -> None:
    api.problems = "libvirt: not connected"
    result = vcl("doctor", "daemon", "-o", "json")
    assert result.code == 1
    assert [f["level"] for f in json.loads(result.out)] == ["OK", "FAIL"]
    assert "not ready: libvirt: not connected" in vcl("doctor", "daemon").out
