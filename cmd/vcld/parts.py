"""The adapters that the configuration asks for, for a node to be put together from. No decisions here."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import reconciler
from reconciler.adapters import host
from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.adapters.controllers import load
from reconciler.adapters.directory_disks import DirectoryBackend
from reconciler.adapters.host_switch import CommandSwitch
from reconciler.adapters.manifest_base import BaseFile
from reconciler.adapters.schema_files import load_schemas
from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.adapters.status_tree import StatusTree
from reconciler.adapters.store_leases import StoreLeases
from reconciler.loops.node_ports import NodePorts
from reconciler.loops.node_status import NodeFacts
from reconciler.loops.power_orders import OrderKeeper
from reconciler.loops.session import Begun, Entry, HostIdentity
from reconciler.planning.schema import KNOWN_SCHEMAS
from reconciler.planning.timers import load_timers
from reconciler.ports.controller import Controller, ControllerContext
from reconciler.ports.disks import DiskBackend
from reconciler.ports.leases import Leases
from reconciler.ports.manifests import ManifestDirectory
from reconciler.ports.osds import Osds
from reconciler.ports.power import CephFlags
from reconciler.ports.store import Store
from reconciler.ports.transport import Transport
from reconciler.resources.errors import InvalidInput
from reconciler.resources.fencing import canonical, client_host, is_client
from reconciler.resources.infrastructure import DirectoryPool, PoolType, StoragePoolSpec
from reconciler.resources.manifest import parse_manifest
from reconciler.resources.membership import Member, NodeHealth
from reconciler.resources.records import STORE_SCHEMA, ArmedWatchdog
from vcld.config import Config, MeshTls, StoreType
from vcld.fencing import Fencers
from vcld.stop_at import stop_at

if TYPE_CHECKING:
    from reconciler.adapters.rbd import Clusters

log = logging.getLogger(__name__)

CLOCK = SystemClock()
IDS = SystemIds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What is shared with the other nodes and opened before anything else. `addresses()`: its own clients of
    Ceph, all so far."""

    store: Store
    leases: Leases | None
    osds: Osds | None = None
    flags: CephFlags | None = None
    addresses: Callable[[], tuple[str, ...]] = tuple

    async def close(self) -> None:
        """Close all of it."""
        if self.osds is not None:
            await self.osds.close()
        if self.leases is not None:
            await self.leases.close()
        await self.store.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What the node asks of its daemon; see NodePorts."""

    health: Callable[[], NodeHealth]
    begin_anew: Callable[[], None]
    shut_out: Callable[[], bool]
    armed: Callable[[], ArmedWatchdog | None]
    keeper: OrderKeeper


def host_identity(config: Config, clients: Iterable[str] = ()) -> HostIdentity:
    """This host, by the configured name or its own. `clients`: of Ceph, which it has already."""
    clients = tuple(sorted(canonical(client) for client in clients if is_client(client)))
    hosts = (*config.storage_addresses, *(client_host(client) for client in clients))
    return HostIdentity(
        node=config.node or host.node_name(),
        boot_id=host.boot_id(),
        machine_id=host.machine_id(),
        addresses=tuple(dict.fromkeys(str(ip_address(address)) for address in hosts)),
        clients=clients,
    )


def entry(config: Config, clients: Iterable[str] = ()) -> Entry:
    """As whom this daemon enters the cluster."""
    member = Member(
        address=config.address,
        port=config.mesh.port if config.mesh is not None else 0,
        rank=config.rank,
        version=reconciler.__version__,
        schemas=KNOWN_SCHEMAS,
    )
    return Entry(
        host=host_identity(config, clients), member=member, cluster=config.cluster, alone=config.mesh is None
    )


def node_ports(
    config: Config,
    begun: Begun,
    outside: Outside,
    fencers: Fencers,
    directory: ManifestDirectory,
    way: Way,
) -> NodePorts:
    """The adapters that the configuration asks for. Raises InvalidInput for a controller that cannot be
    loaded and for unusable mesh files."""
    identity = entry(config, outside.addresses())
    making = PoolMaking(cluster_uid=begun.cluster.uid)
    name = identity.host.node
    if "default" not in config.pools:
        config.images_path.mkdir(parents=True, exist_ok=True, mode=0o711)
    schemas = load_schemas()
    return NodePorts(
        entry=identity,
        clock=CLOCK,
        ids=IDS,
        store=outside.store,
        transport=make_transport(config, name, begun.cluster.uid),
        leases=outside.leases,
        osds=outside.osds,
        fencers=fencers.all if config.mesh is not None else None,
        ceph_pools=fencers.ceph_pools,
        ceph_clients=lambda: (*outside.addresses(), *fencers.addresses(), *making.addresses()),
        controllers=build_controllers(config, name, begun.cluster.uid),
        make_backend=partial(make_backend, config, making),
        pools=builtin_pools(config),
        directory=directory,
        bases=BaseFile(config.state_path / "manifests.json"),
        parse=lambda path, data: parse_manifest(path, data, schemas),
        status=StatusTree(config.status_path),
        facts=node_facts(config),
        health=way.health,
        keeper=way.keeper,
        switch=CommandSwitch(config.power.off_command),
        flags=outside.flags,
        begin_anew=way.begin_anew,
        shut_out=way.shut_out,
        armed=way.armed,
        timers=load_timers(config.timers),
        reached=stop_at(os.environ),
    )


def make_transport(config: Config, node: str, cluster_uid: str) -> Transport | None:
    """This node's end of the mesh; None for a cluster of one. Raises InvalidInput for unusable files."""
    if config.mesh is None:
        return None
    from reconciler.adapters.mesh import MeshOptions, MeshTransport, TlsFiles, load_secret

    mesh = config.mesh
    tls = None
    if mesh.tls is MeshTls.ON:
        tls = TlsFiles(ca=Path(mesh.ca_file), cert=Path(mesh.cert_file), key=Path(mesh.key_file))
    options = MeshOptions(
        node=node,
        bind=mesh.bind,
        port=mesh.port,
        cluster_uid=cluster_uid,
        secret=load_secret(Path(mesh.secret_file)),
        tls=tls,
    )
    return MeshTransport(options, clock=CLOCK, ids=IDS)


async def open_store(config: Config) -> Outside:
    """The configured store, with the leases of a cluster. Raises StoreUnavailable."""
    if config.store.type is StoreType.SQLITE:
        store = await SqliteStore.open(config.store_path)
        return Outside(store=store, leases=StoreLeases(store, IDS) if config.mesh is not None else None)
    from reconciler.adapters.fencing.ceph_osds import CephOsds
    from reconciler.adapters.rados import Place, RadosStore

    place = Place(
        conf=config.store.conf,
        user=config.store.user,
        pool=config.store.pool,
        namespace=config.store.namespace,
        object=config.store.object,
    )
    state = await RadosStore.open(place)
    osds = CephOsds(place.conf, place.user) if config.mesh is not None else None
    return Outside(
        store=state,
        leases=state.leases(),
        osds=osds,
        flags=osds,
        addresses=lambda: (state.address, *(osds.addresses if osds is not None else ())),
    )


def node_facts(config: Config) -> NodeFacts:
    """What the configuration or the kernel says of the node."""
    capacity = config.capacity
    return NodeFacts(
        version=reconciler.__version__,
        address=config.address,
        cpus=int(capacity.cpu) if capacity.cpu is not None else host.cpus(),
        memory=capacity.memory if capacity.memory is not None else host.memory(),
    )


def build_controllers(config: Config, node: str, cluster_uid: str) -> dict[str, Controller]:
    """Every configured controller, by name. Raises InvalidInput with the known names."""
    made: dict[str, Controller] = {}
    for name, options in sorted(config.controllers.items()):
        state, run = config.state_path / name, config.run_path / name
        for directory in (state, run):
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        context = ControllerContext(
            node=node,
            cluster_uid=cluster_uid,
            state_dir=state,
            run_dir=run,
            address=config.address,
            options=options or {},
        )
        made[name] = load(name)(context)
    return made


def builtin_pools(config: Config) -> dict[str, StoragePoolSpec]:
    """The configured pools; without one called `default`, a directory of images under the state directory."""
    default = StoragePoolSpec(type=PoolType.DIRECTORY, directory=DirectoryPool(path=str(config.images_path)))
    return {"default": default, **config.pools}


@dataclass(slots=True, kw_only=True)
class PoolMaking:
    """What pools share: the cluster's identity and, once there is a Ceph pool, the connections to Ceph."""

    cluster_uid: str
    clusters: Clusters | None = None

    def addresses(self) -> tuple[str, ...]:
        """The pools' clients of Ceph, all so far."""
        return self.clusters.addresses if self.clusters is not None else ()


def make_backend(config: Config, making: PoolMaking, name: str, spec: StoragePoolSpec) -> DiskBackend:
    """The backend of a pool. Raises InvalidInput when this vcl cannot serve it."""
    if spec.type is PoolType.DIRECTORY and spec.directory is not None:
        remembered = config.state_path / "pools" / name
        remembered.parent.mkdir(parents=True, exist_ok=True)
        return DirectoryBackend(Path(spec.directory.path), spec.directory.format, remembered=remembered)
    if spec.type is PoolType.RBD and spec.rbd is not None:
        try:
            from reconciler.adapters.rbd import Clusters, RbdBackend
        except ImportError as error:
            raise InvalidInput(
                f"storage pool '{name}' needs the Python bindings of Ceph: {error}",
                cure="install python3-rados and python3-rbd; vcl's own environment must see them",
            ) from error
        making.clusters = making.clusters or Clusters()
        return RbdBackend(
            spec.rbd,
            clusters=making.clusters,
            cluster_uid=making.cluster_uid,
            state=config.state_path / "ceph",
        )
    raise InvalidInput(
        f"storage pool '{name}' is of type {spec.type} and has no section of that name",
        cure=f"add a section `{spec.type}`",
    )


def version_info(node: str) -> dict[str, Any]:
    """The answer of GET /version."""
    try:
        libvirt = metadata.version("libvirt-python")
    except metadata.PackageNotFoundError:
        libvirt = ""
    return {
        "version": reconciler.__version__,
        "apiVersion": "vcl/v1",
        "storeSchema": STORE_SCHEMA,
        "node": node,
        "python": platform.python_version(),
        "libvirt": libvirt,
    }
