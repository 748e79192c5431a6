"""The scripts for NUT and apcupsd call vcl as README.md says, and the host goes off whatever vcl does.

A small program stands for vcl and writes down how it was called; tests/lab/test_ups.py has the real one.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

UPS = Path(__file__).resolve().parents[2] / "contrib/ups"
VCL = """\
#!/bin/sh
printf '%s|' "$@" >> "{calls}"
echo >> "{calls}"
case "$*" in *{failing}*) echo "error: vcld does not answer" >&2; exit 1 ;; esac
"""
CLUSTER = "--request-timeout=10s|cluster|shutdown|--yes|--reason=UPS: battery low|--deadline="
LOCAL = "--request-timeout=10s|node|shutdown|--local|--yes|--reason=UPS: battery low|--deadline="


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """`place`: what its scripts read and write."""

    place: Path

    def answers(self, *, failing: str = "nothing") -> None:
        """What a vcl does there: it fails for commands with that word."""
        vcl = self.place / "vcl"
        vcl.write_text(VCL.format(calls=self.place / "calls", failing=failing))
        vcl.chmod(0o755)

    def set(self, *lines: str, off: str = "") -> None:
        """/etc/vcl/ups.conf, with a command that switches nothing off."""
        off = off or f"touch {self.place / 'off'}"
        text = [f"VCL={self.place / 'vcl'}", f'OFF_COMMAND="{off}"', *lines]
        (self.place / "ups.conf").write_text("\n".join(text) + "\n")

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": "/usr/bin:/bin",
            "VCL": str(self.place / "vcl"),
            "VCL_UPS_CONF": str(self.place / "ups.conf"),
            "VCL_UPS_SHUTDOWN": str(UPS / "vcl-ups-shutdown"),
            "UPSMON": str(self.place / "vcl"),
        }
        command = [UPS / script, *arguments]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self) -> list[str]:
        """How vcl was called, each call as its words."""
        path = self.place / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def is_off(self) -> bool:
        return (self.place / "off").exists()


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(place=tmp_path)
    made.answers()
    made.set()
    return made


def test_the_cluster_is_shut_down_and_then_the_host(host: Host) -> None:
    done = host.run("vcl-ups-shutdown", "battery", "low")
    assert (done.returncode, host.is_off()) == (0, True)
    assert host.calls() == [f"{CLUSTER}120|--power-off-hosts|"]


def test_the_settings_are_what_is_said_to_vcl(host: Host) -> None:
    host.set("DEADLINE=45", "POWER_OFF_HOSTS=no", "CEPH_FLAGS=yes")
    host.run("vcl-ups-shutdown", "battery", "low")
    assert host.calls() == [f"{CLUSTER}45|--ceph-flags|"]


def test_a_host_that_reaches_no_cluster_shuts_down_its_own_vms(host: Host) -> None:
    host.answers(failing="cluster")
    done = host.run("vcl-ups-shutdown", "battery", "low")
    assert (done.returncode, host.is_off()) == (0, True)
    first, second = host.calls()
    assert first.startswith(CLUSTER)
    assert second.startswith(LOCAL)
    left = int(second.removeprefix(LOCAL).removesuffix("|"))
    assert 60 < left <= 120, "what is left of the deadline"


def test_the_host_goes_off_also_when_nothing_works(host: Host) -> None:
    host.answers(failing="shutdown")
    done = host.run("vcl-ups-shutdown", "battery", "low")
    assert (done.returncode, host.is_off(), len(host.calls())) == (0, True, 2)


def test_a_deadline_that_is_no_number_keeps_nothing_from_being_shut_down(host: Host) -> None:
    host.set("DEADLINE=2m")
    host.run("vcl-ups-shutdown", "battery", "low")
    assert host.calls() == [f"{CLUSTER}120|--power-off-hosts|"]


def test_without_a_file_of_settings_the_defaults_count(host: Host) -> None:
    """They are those that the example shows: every line of it is a comment or a default."""
    script = (UPS / "vcl-ups-shutdown").read_text()
    shown = [line[1:] for line in (UPS / "ups.conf").read_text().splitlines() if line[:1] == "#"]
    assert [line for line in shown if "=" in line and line not in script.splitlines()] == []


def test_a_timer_of_upssched_tells_upsmon_to_shut_down(host: Host) -> None:
    host.run("nut/vcl-upssched", "vcl-on-battery")
    host.run("nut/vcl-upssched", "somebody-elses-timer")
    assert host.calls() == ["-c|fsd|"]


def test_apcupsd_is_told_that_the_host_goes_off_already(host: Host) -> None:
    done = host.run("apcupsd/doshutdown", "ups1", "1", "0")
    assert (done.returncode, host.is_off()) == (99, True)
    assert "--reason=UPS: ups1 at its limit (apcupsd)|" in host.calls()[0]


def test_apcupsd_switches_the_host_off_when_that_failed(host: Host) -> None:
    host.set(off="false")
    assert host.run("apcupsd/doshutdown", "ups1", "1", "0").returncode == 0


def test_apcupsd_looks_for_the_cluster_when_the_mains_fail_and_shuts_nothing_down(host: Host) -> None:
    assert host.run("apcupsd/onbattery", "ups1", "1", "0").returncode == 0
    assert host.run("apcupsd/offbattery", "ups1", "1", "0").returncode == 0
    assert host.calls() == ["--request-timeout=10s|cluster|status|"]
