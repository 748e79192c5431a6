"""What a node is made of: every loop and adapter, put together from the configuration. No decisions here."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import reconciler
from reconciler.adapters import host
from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.adapters.controllers import load
from reconciler.adapters.directory_disks import DirectoryBackend
from reconciler.adapters.manifest_base import BaseFile
from reconciler.adapters.manifest_directory import LocalManifestDirectory
from reconciler.adapters.schema_files import load_schemas
from reconciler.loops.agent import Agent
from reconciler.loops.agent_state import NodeContext
from reconciler.loops.cache import StoreCache
from reconciler.loops.events import EventRecorder
from reconciler.loops.manifest_sync import ManifestSync, SyncPorts
from reconciler.loops.node_status import NodeFacts, NodeReporter
from reconciler.loops.pools import Pools
from reconciler.loops.session import Begun, HostIdentity
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.ports.controller import Controller, ControllerContext
from reconciler.ports.disks import DiskBackend
from reconciler.resources import keys
from reconciler.resources.crosscheck import KnownObjects
from reconciler.resources.errors import InvalidInput
from reconciler.resources.infrastructure import DirectoryPool, PoolType, StoragePoolSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.records import STORE_SCHEMA
from vcld.config import Config

log = logging.getLogger(__name__)

CLOCK = SystemClock()
IDS = SystemIds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The loops of one node, made and not yet running."""

    name: str
    begun: Begun
    cache: StoreCache
    views: Views
    writer: Writer
    events: EventRecorder
    controllers: Mapping[str, Controller]
    pools: Pools
    agent: Agent
    reporter: NodeReporter
    manifests: ManifestSync
    directory: LocalManifestDirectory


def host_identity(config: Config) -> HostIdentity:
    """This host, by the configured name or its own."""
    return HostIdentity(
        node=config.node or host.node_name(), boot_id=host.boot_id(), machine_id=host.machine_id()
    )


def build_node(
    config: Config, name: str, begun: Begun, cache: StoreCache, writer: Writer, frozen: Callable[[], str]
) -> Node:
    """Put the node together. Raises InvalidInput for a controller that cannot be loaded."""
    views = Views(cache)
    events = EventRecorder(name, cache, writer, CLOCK)
    controllers = build_controllers(config, name, begun.cluster.uid)
    if "default" not in config.pools:
        config.images_path.mkdir(parents=True, exist_ok=True, mode=0o711)
    pools = Pools(views, partial(make_backend, config), builtin_pools(config))
    context = NodeContext(
        node=name,
        cluster_uid=begun.cluster.uid,
        boot_id=host.boot_id(),
        session=begun.session,
        clock=CLOCK,
        ids=IDS,
        views=views,
        writer=writer,
        controllers=controllers,
        pools=pools,
        event=events.record,
        frozen=frozen,
    )
    writer.guard(keys.SCHEMA, begun.schema_revision)
    writer.guard(keys.session(name), begun.session_revision)
    agent = Agent(context)
    directory = LocalManifestDirectory(config.manifests_path, node=name)
    return Node(
        name=name,
        begun=begun,
        cache=cache,
        views=views,
        writer=writer,
        events=events,
        controllers=controllers,
        pools=pools,
        agent=agent,
        reporter=NodeReporter(context, agent, node_facts(config)),
        manifests=build_manifests(config, directory, views, writer, known_objects(config, name)),
        directory=directory,
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


def build_manifests(
    config: Config,
    directory: LocalManifestDirectory,
    views: Views,
    writer: Writer,
    builtin: KnownObjects,
) -> ManifestSync:
    """The loop that follows the manifest directory."""
    schemas = load_schemas()

    def parse(path: str, data: bytes) -> ParsedFile:
        return parse_manifest(path, data, schemas)

    return ManifestSync(
        SyncPorts(
            directory=directory,
            bases=BaseFile(config.state_path / "manifests.json"),
            views=views,
            writer=writer,
            clock=CLOCK,
            ids=IDS,
            parse=parse,
            builtin=builtin,
        )
    )


def known_objects(config: Config, node: str) -> KnownObjects:
    """What manifests may refer to although no manifest defines it."""
    names = {
        Kind.STORAGE_POOL: frozenset(builtin_pools(config)),
        Kind.NODE: frozenset({node}),
    }
    return KnownObjects(names=names, controllers=frozenset(config.controllers))


def build_controllers(config: Config, node: str, cluster_uid: str) -> dict[str, Controller]:
    """Every configured controller, by name. Raises InvalidInput with the known names."""
    made: dict[str, Controller] = {}
    for name, options in sorted(config.controllers.items()):
        state, run = config.state_path / name, config.run_path / name
        for directory in (state, run):
            directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        context = ControllerContext(
            node=node, cluster_uid=cluster_uid, state_dir=state, run_dir=run, options=options or {}
        )
        made[name] = load(name)(context)
    return made


def builtin_pools(config: Config) -> dict[str, StoragePoolSpec]:
    """The configured pools; without one called `default`, a directory of images under the state directory."""
    default = StoragePoolSpec(type=PoolType.DIRECTORY, directory=DirectoryPool(path=str(config.images_path)))
    return {"default": default, **config.pools}


def make_backend(config: Config, name: str, spec: StoragePoolSpec) -> DiskBackend:
    """The backend of a pool. Raises InvalidInput when this vcl cannot serve it."""
    if spec.type is PoolType.DIRECTORY and spec.directory is not None:
        remembered = config.state_path / "pools" / name
        remembered.parent.mkdir(parents=True, exist_ok=True)
        return DirectoryBackend(Path(spec.directory.path), spec.directory.format, remembered=remembered)
    raise InvalidInput(
        f"storage pool '{name}' is of type {spec.type}, which this version cannot serve",
        cure="use a pool of type directory",
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
