"""The machine as the checks see it, so that tests can show them another one."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcl import here

if TYPE_CHECKING:
    from reconciler.adapters.rados.link import Place
    from reconciler.adapters.rados.probe import Diagnosis
    from reconciler.adapters.rbd.guest_probe import GuestDiagnosis
    from reconciler.resources.infrastructure import RbdPool

COMMAND_SECONDS = 5.0


class Level(StrEnum):
    """FAIL: VMs will not run, or not safely. WARN: something will be missing."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer of one check. `cure` says what to do; empty when all is well."""

    check: str
    level: Level
    message: str
    cure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A command that ran: its exit code, and what it printed on stdout and stderr."""

    code: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What vcld answers; `error` when it does not. `problems`: why it is not ready, one line each."""

    socket: str
    error: str = ""
    cure: str = ""
    version: Mapping[str, Any] = field(default_factory=dict)
    status: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    node: Mapping[str, Any] = field(default_factory=dict)
    pools: tuple[Mapping[str, Any], ...] = ()
    vms: tuple[Mapping[str, Any], ...] = ()

    @property
    def answers(self) -> bool:
        return not self.error


def run_command(command: Sequence[str]) -> Ran | None:
    """Run a command for a few seconds; None when there is no such program or it does not end."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Ran(code=done.returncode, text=done.stdout.decode("utf-8", "replace"))


def _free(path: str) -> int:
    return shutil.disk_usage(path).free


def _soft_files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _diagnose(place: Place, image_pools: Sequence[str]) -> Diagnosis:
    from reconciler.adapters.rados.probe import diagnose

    return diagnose(place, image_pools)


def _diagnose_guests(pools: Sequence[RbdPool], state: Place) -> GuestDiagnosis:
    from reconciler.adapters.rbd.guest_probe import diagnose_guests

    return diagnose_guests(pools, state)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Files below `root`; the rest through functions, so that a test can answer for them. `free` in bytes.

    `config`: vcld's configuration. `ceph` tries Ceph out, for a store and the pools of images, and raises
    VclError; `guests` does it as the guests' user of pools that share one. The last three say what is wrong,
    or nothing.
    """

    root: Path = Path("/")
    config: str = "/etc/vcl/vcld.yaml"
    architecture: str = field(default_factory=lambda: os.uname().machine)
    run: Callable[[Sequence[str]], Ran | None] = run_command
    which: Callable[[str], str | None] = shutil.which
    free: Callable[[str], int] = _free
    open_files: Callable[[], int] = _soft_files
    now: Callable[[], datetime] = _now
    name: Callable[[], str] = here.name
    ceph: Callable[[Place, Sequence[str]], Diagnosis] = _diagnose
    guests: Callable[[Sequence[RbdPool], Place], GuestDiagnosis] = _diagnose_guests
    dial: Callable[[str, int], str] = here.dial_problem
    address: Callable[[str], str] = here.address_problem
    port: Callable[[str, int], str] = here.port_problem

    def path(self, name: str) -> Path:
        """The real path of an absolute one of this machine."""
        return self.root / name.lstrip("/")

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def text(self, name: str) -> str | None:
        """A file's text, None when it cannot be read."""
        try:
            return self.path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def access(self, name: str, mode: int) -> bool:
        """Whether we may read (os.R_OK), write (os.W_OK) or enter (os.X_OK) it."""
        return os.access(self.path(name), mode)

    def first(self, *names: str) -> str | None:
        """The first of these programs or absolute paths that exists."""
        return next((n for n in names if (self.exists(n) if n.startswith("/") else self.which(n))), None)
