"""What a lab is like; kept with it, so that other processes go on with the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

MOST_NODES = 20


class Layout(StrEnum):
    """Where Ceph runs: on a machine of its own, or on the nodes, next to libvirtd and vcld."""

    SEPARATE = "separate"
    HYPERCONVERGED = "hyperconverged"


class CephSettings(StrEnum):
    """Of a hyperconverged Ceph: as it comes, or as docs/operations.md recommends."""

    DEFAULTS = "defaults"
    RECOMMENDED = "recommended"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSettings:
    """`nodes`: how many; `ceph`: whether it runs, which vcld needs; `vcld`: whether it runs on the nodes;
    `tls`: of the mesh; `tls_into`: hosts that guests are migrated to encrypted; `layout`, `ceph_settings`:
    see there; `config` is laid over what the lab writes into each vcld.yaml, one level deep; `environment`:
    more of it for each vcld."""

    nodes: int = 3
    ceph: bool = True
    vcld: bool = True
    tls: bool = True
    tls_into: tuple[str, ...] = ("r3",)
    layout: Layout = Layout.SEPARATE
    ceph_settings: CephSettings = CephSettings.RECOMMENDED
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def keep(self, directory: Path) -> None:
        """Write them down for `kept`."""
        (directory / "settings.json").write_text(json.dumps(asdict(self)))


def kept(directory: Path) -> LabSettings | None:
    """Those of the lab in the directory, as far as this version knows them; None when there is no lab."""
    try:
        written = json.loads((directory / "settings.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    known = {each.name for each in fields(LabSettings)}
    values = {name: value for name, value in written.items() if name in known}
    kinds = {"layout": Layout, "ceph_settings": CephSettings}
    return LabSettings(**{name: kinds.get(name, lambda same: same)(value) for name, value in values.items()})
