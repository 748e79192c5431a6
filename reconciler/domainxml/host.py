"""What a definition needs to know of the node: values that an adapter reads once and passes in.

Nothing here is looked up by this package, so the same request on the same host gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Virtualization = Literal["kvm", "qemu"]
"""libvirt's domain types that vcl runs: hardware virtualisation, or QEMU's own emulation (TCG)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UefiFirmware:
    """Absolute paths of the firmware code and of the template that a VM's own NVRAM starts as.

    `format` is that of both files: 'raw' or 'qcow2'.
    """

    loader: str
    nvram_template: str
    format: str = "raw"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProfile:
    """The node. `machine_types`: alias -> canonical name ('q35' -> 'pc-q35-7.2'); canonical names need not
    be listed. `emulator`: absolute path, empty to let libvirt choose. `uefi`: None when none is installed.
    """

    virtualization: Virtualization
    architecture: str = "x86_64"
    machine_types: Mapping[str, str] = field(default_factory=dict)
    emulator: str = ""
    uefi: UefiFirmware | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPaths:
    """Where one VM's own files are (absolute paths, chosen by the adapter): the text that its console
    printed, its cloud-init image, its UEFI variables."""

    console_log: str
    seed_image: str
    nvram: str
