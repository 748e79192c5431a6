"""The configuration section `controllers.libvirt`, checked before anything connects."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from reconciler.resources.errors import InvalidInput

SYSTEM = "qemu:///system"
SYSTEM_LOGS = Path("/var/log/libvirt/qemu")


class Virtualization(StrEnum):
    """AUTO: kvm when this machine has proved that it works, else qemu (TCG)."""

    AUTO = "auto"
    KVM = "kvm"
    QEMU = "qemu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`log_dir`: where libvirt writes one log per domain; only read, to learn how a domain ended.
    `keepalive` in seconds: a libvirtd silent for four times as long has its connection closed."""

    uri: str = SYSTEM
    virtualization: Virtualization = Virtualization.AUTO
    log_dir: Path = SYSTEM_LOGS
    keepalive: int = 2


def parse(section: Mapping[str, object]) -> Options:
    """Raises InvalidInput that names every wrong entry: `uri`, `virtualization`, `logDir`,
    `keepaliveSeconds`."""
    problems = [
        f"controllers.libvirt.{key}: unknown option; known are keepaliveSeconds, logDir, uri, virtualization"
        for key in sorted(set(section) - {"uri", "virtualization", "logDir", "keepaliveSeconds"})
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
    if problems:
        raise InvalidInput("the options of the libvirt controller are wrong", problems=tuple(problems))
    return Options(
        uri=str(uri),
        virtualization=Virtualization(str(wanted)),
        log_dir=Path(str(logs)),
        keepalive=keepalive,
    )


def _log_dir(uri: str) -> Path:
    if "///session" not in uri:
        return SYSTEM_LOGS
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache, "libvirt/qemu/log")
