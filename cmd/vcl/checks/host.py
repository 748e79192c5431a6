"""Checks of the operating system: limits, clocks, Python."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator

from vcl.checks.machine import Daemon, Finding, Level, Machine

OLDEST_PYTHON = (3, 11)
FEW_FILES = 4096
FEW_WATCHES = 8192
FEW_INSTANCES = 64
CLOCK_SERVICES = ("chronyd", "ntpd", "systemd-timesyncd", "systemd-timesyn", "openntpd")


def python(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Python is new enough."""
    if sys.version_info[:2] >= OLDEST_PYTHON:
        yield Finding(check="python", level=Level.OK, message=f"Python {platform.python_version()}")
    else:
        yield Finding(
            check="python",
            level=Level.FAIL,
            message=f"Python {platform.python_version()} is too old",
            cure="install Python 3.11 or newer, and make the virtual environment with it",
        )


def open_files(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """The daemon may open enough files: one console and several sockets a VM."""
    limit = machine.open_files()
    if limit < 0 or limit >= FEW_FILES:
        yield Finding(check="files", level=Level.OK, message=f"{limit} open files are allowed here")
    else:
        yield Finding(
            check="files",
            level=Level.WARN,
            message=f"only {limit} open files are allowed here; vcld may run out with many VMs",
            cure=f"start vcld with 'ulimit -n {FEW_FILES}' or more (LimitNOFILE= in its unit)",
        )


def inotify(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """The manifest directory can be watched."""
    for name, least in (("max_user_watches", FEW_WATCHES), ("max_user_instances", FEW_INSTANCES)):
        text = (machine.text(f"/proc/sys/fs/inotify/{name}") or "").strip()
        if not text.isdigit():
            yield Finding(
                check="inotify",
                level=Level.WARN,
                message=f"fs.inotify.{name} cannot be read",
                cure="without inotify, a changed manifest is seen at the next rescan only (30 s)",
            )
        elif int(text) < least:
            yield Finding(
                check="inotify",
                level=Level.WARN,
                message=f"fs.inotify.{name} is {text}; when it is used up, changes are seen 30 s late",
                cure=f"echo fs.inotify.{name}={least} > /etc/sysctl.d/60-vcl.conf && sysctl --system",
            )
        else:
            yield Finding(check="inotify", level=Level.OK, message=f"fs.inotify.{name} is {text}")


def time_sync(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """The clock is kept right: no decision needs it, but people who compare logs do."""
    told = machine.run(["timedatectl", "show", "-p", "NTPSynchronized", "--value"])
    if told and told.code == 0 and told.text.strip() in ("yes", "no"):
        synchronised = told.text.strip() == "yes"
    else:
        running = {
            (machine.text(f"/proc/{entry.name}/comm") or "").strip()
            for entry in machine.path("/proc").glob("[0-9]*")
        }
        synchronised = bool(running & set(CLOCK_SERVICES))
    if synchronised:
        yield Finding(check="clock", level=Level.OK, message="the clock is synchronised")
    else:
        yield Finding(
            check="clock",
            level=Level.WARN,
            message="nothing keeps the clock right; times in logs and certificates will be off",
            cure="install chrony, or run 'timedatectl set-ntp true'",
        )
