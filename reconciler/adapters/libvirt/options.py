"""The configuration section `controllers.libvirt`, checked before anything connects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from reconciler.resources.errors import InvalidInput

SYSTEM = "qemu:///system"
_KNOWN = frozenset({"keepaliveSeconds", "logDir", "migration", "uri", "virtualization"})
SYSTEM_LOGS = Path("/var/log/libvirt/qemu")


class Virtualization(StrEnum):
    """AUTO: kvm when this machine has proved that it works, else qemu (TCG)."""

    AUTO = "auto"
    KVM = "kvm"
    QEMU = "qemu"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationOptions:
    """How other hosts migrate guests to this one. `connect`: its libvirtd's URI, as theirs reach it; `data`:
    where the guests' memory goes; empty: by the node's address. `tls`: both are encrypted, which needs
    libvirt's and QEMU's certificates on all hosts."""

    connect: str = ""
    data: str = ""
    tls: bool = False

    def reached_at(self, address: str) -> MigrationOptions:
        """With what is not configured taken from the node's address; empty stays empty without one."""
        if not address:
            return self
        host = f"[{address}]" if ":" in address else address
        transport = "tls" if self.tls else "tcp"
        return replace(
            self,
            connect=self.connect or f"qemu+{transport}://{host}/system",
            data=self.data or f"tcp://{host}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`log_dir`: where libvirt writes one log per domain; only read, to learn how a domain ended.
    `keepalive` in seconds: a libvirtd silent for four times as long has its connection closed."""

    uri: str = SYSTEM
    virtualization: Virtualization = Virtualization.AUTO
    log_dir: Path = SYSTEM_LOGS
    keepalive: int = 2
    migration: MigrationOptions = MigrationOptions()


def parse(section: Mapping[str, object]) -> Options:
    """Raises InvalidInput that names every wrong entry: `uri`, `virtualization`, `logDir`,
    `keepaliveSeconds`, `migration`."""
    problems = [
        f"controllers.libvirt.{key}: unknown option; known are {', '.join(sorted(_KNOWN))}"
        for key in sorted(set(section) - _KNOWN)
    ]
    uri = section.get("uri", SYSTEM)
    if not isinstance(uri, str) or not uri.startswith("qemu"):
        problems.append(f"controllers.libvirt.uri: must be a libvirt URI such as {SYSTEM}, got {uri!r}")
    wanted = section.get("virtualization", "auto")
    if wanted not in set(Virtualization):
        problems.append(f"controllers.libvirt.virtualization: must be auto, kvm or qemu, got {wanted!r}")
    logs = section.get("logDir", str(_log_dir(str(uri))))
    if not isinstance(logs, str) or not logs.startswith("/"):
        problems.append(f"controllers.libvirt.logDir: must be an absolute path, got {logs!r}")
    keepalive = section.get("keepaliveSeconds", 2)
    if isinstance(keepalive, bool) or not isinstance(keepalive, int) or not 1 <= keepalive <= 60:
        problems.append(f"controllers.libvirt.keepaliveSeconds: must be 1 to 60, got {keepalive!r}")
        keepalive = 2
    migration = _migration(section.get("migration", {}), problems)
    if problems:
        raise InvalidInput("the options of the libvirt controller are wrong", problems=tuple(problems))
    return Options(
        uri=str(uri),
        virtualization=Virtualization(str(wanted)),
        log_dir=Path(str(logs)),
        keepalive=keepalive,
        migration=migration,
    )


def _migration(section: object, problems: list[str]) -> MigrationOptions:
    where = "controllers.libvirt.migration"
    if not isinstance(section, Mapping):
        problems.append(f"{where}: must be a mapping of connect, data and tls, got {section!r}")
        return MigrationOptions()
    problems += [
        f"{where}.{key}: unknown option; known are connect, data, tls"
        for key in sorted(set(section) - {"connect", "data", "tls"})
    ]
    connect, data, tls = section.get("connect", ""), section.get("data", ""), section.get("tls", False)
    if not isinstance(connect, str) or (connect and not connect.startswith("qemu+")):
        problems.append(f"{where}.connect: must be a URI such as qemu+tcp://10.0.0.1/system, got {connect!r}")
    if not isinstance(data, str) or (data and not data.startswith("tcp://")):
        problems.append(f"{where}.data: must be a URI such as tcp://10.0.0.1, got {data!r}")
    if not isinstance(tls, bool):
        problems.append(f"{where}.tls: must be true or false, got {tls!r}")
    return MigrationOptions(connect=str(connect), data=str(data), tls=bool(tls))


def _log_dir(uri: str) -> Path:
    if "///session" not in uri:
        return SYSTEM_LOGS
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "libvirt/qemu/log")
