"""vcld's configuration: one YAML file, every field optional, checked like a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from reconciler.planning.timers import load_timers
from reconciler.resources.codec import decode, quantity
from reconciler.resources.errors import InvalidInput
from reconciler.resources.fencing import is_address
from reconciler.resources.infrastructure import StoragePoolSpec
from reconciler.resources.membership import MESH_PORT


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.TEXT


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketConfig:
    """`path` defaults to RUNDIR/vcld.sock; `group` may use it besides root."""

    path: str | None = None
    group: str | None = None
    mode: str = "0660"


class StoreType(StrEnum):
    SQLITE = "sqlite"
    RADOS = "rados"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """`path`, of a sqlite store, defaults to STATEDIR/store.db; the others say where a rados store is."""

    type: StoreType = StoreType.SQLITE
    path: str | None = None
    conf: str = "/etc/ceph/ceph.conf"
    user: str = "vcl"
    pool: str = "vcl"
    namespace: str = "vcl"
    object: str = "state"


class MeshTls(StrEnum):
    ON = "on"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshConfig:
    """`bind`: the address to listen on, empty for all. With `tls` off only the secret file is used."""

    port: int = MESH_PORT
    bind: str = ""
    tls: MeshTls = MeshTls.ON
    secret_file: str = "/etc/vcl/secret"
    ca_file: str = "/etc/vcl/ca.crt"
    cert_file: str = "/etc/vcl/node.crt"
    key_file: str = "/etc/vcl/node.key"


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogConfig:
    """A hardware watchdog that resets this host when its lease stands still."""

    device: str = "/dev/watchdog"
    period_seconds: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityConfig:
    """What VMs may use when no controller reports it; default: the whole host."""

    cpu: float | None = quantity("cpu", default=None)
    memory: int | None = quantity("bytes", default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerConfig:
    """`off_command` switches the host off, at the end of a shutdown that asks for it. It only has to begin
    that."""

    off_command: tuple[str, ...] = ("/sbin/shutdown", "-h", "now")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Paths are absolute. Without `mesh` the cluster is this one node.

    `storage_addresses`: IP addresses by which this host reaches storage, besides the one by which its
    store's client does. `controllers` maps a controller's name to its own options; `pools` exist without a
    manifest, and a StoragePool manifest of the same name replaces them.
    """

    node: str | None = None
    cluster: str = "vcl"
    address: str = ""
    rank: int = 0
    storage_addresses: tuple[str, ...] = ()
    state_dir: str = "/var/lib/vcl"
    run_dir: str = "/run/vcl"
    manifests: str | None = None
    status: str | None = None
    socket: SocketConfig = field(default_factory=SocketConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    mesh: MeshConfig | None = None
    watchdog: WatchdogConfig | None = None
    power: PowerConfig = field(default_factory=PowerConfig)
    timers: Mapping[str, float] = field(default_factory=dict)
    controllers: Mapping[str, Any] = field(default_factory=lambda: {"libvirt": {}})
    pools: Mapping[str, StoragePoolSpec] = field(default_factory=dict)
    capacity: CapacityConfig = field(default_factory=CapacityConfig)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def state_path(self) -> Path:
        return Path(self.state_dir)

    @property
    def run_path(self) -> Path:
        return Path(self.run_dir)

    @property
    def manifests_path(self) -> Path:
        return Path(self.manifests) if self.manifests else self.state_path / "manifests"

    @property
    def status_path(self) -> Path:
        return Path(self.status) if self.status else self.state_path / "status"

    @property
    def store_path(self) -> Path:
        return Path(self.store.path) if self.store.path else self.state_path / "store.db"

    @property
    def socket_path(self) -> Path:
        return Path(self.socket.path) if self.socket.path else self.run_path / "vcld.sock"

    @property
    def orders_path(self) -> Path:
        """Where this node keeps orders to shut down."""
        return self.state_path / "power.json"

    @property
    def images_path(self) -> Path:
        """Where the pool `default` keeps its images when the configuration does not define it."""
        return self.state_path / "images"


def config_from(data: Mapping[str, Any]) -> Config:
    """The configuration that a validated mapping says. Raises InvalidInput."""
    config = decode(Config, data)
    load_timers(config.timers)
    if config.mesh is not None and not config.address:
        raise InvalidInput(
            "a node with a mesh needs its own address, by which the other nodes reach it",
            cure="set `address` to this host's IP address",
        )
    wrong = [address for address in config.storage_addresses if not is_address(address)]
    if wrong:
        raise InvalidInput(f"storageAddresses: {', '.join(wrong)} is no IP address")
    return config
