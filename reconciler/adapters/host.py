"""Facts of this host, read from the kernel."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import valid_name


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def boot_id() -> str:
    """The id of this boot of the kernel. Raises VclError when it cannot be read: claims depend on it."""
    value = _read("/proc/sys/kernel/random/boot_id")
    if not value:
        raise VclError("cannot read /proc/sys/kernel/random/boot_id", cure="mount /proc")
    return value


def machine_id() -> str:
    """The id of this installation, or of its hardware; the host name where there is neither."""
    return _read("/etc/machine-id") or _read("/sys/class/dmi/id/product_uuid") or socket.gethostname()


def has_guests(proc: Path = Path("/proc")) -> bool | None:
    """Whether a process of QEMU is on this host, whoever started it; None when that cannot be told."""
    try:
        numbers = [entry for entry in proc.iterdir() if entry.name.isdigit()]
    except OSError:
        return None
    for entry in numbers:
        try:
            name = (entry / "comm").read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended meanwhile
        except OSError:
            return None
        if name.startswith(("qemu-system", "qemu-kvm", "kvm-spice")):
            return True
    return False


def node_name() -> str:
    """The default node name: the host name, without a domain when it is too long."""
    name = socket.gethostname()
    return name if valid_name(name) else name.split(".")[0][:63]


def cpus() -> int:
    """CPUs of the host."""
    return os.cpu_count() or 1


def memory() -> int:
    """Memory of the host in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
