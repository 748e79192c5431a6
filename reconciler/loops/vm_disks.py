"""Which images a VM has: those of its manifest's disks, its UEFI variables where these are an image, and the
network disks that its own domainXML brings along. One answer for whoever claims, shows or unlocks them."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.domainxml.parse import DomainXmlInvalid
from reconciler.domainxml.read import describe_xml
from reconciler.loops.agent_state import NodeContext
from reconciler.planning.disks import nvram_disk, pool_of
from reconciler.ports.disks import DiskBackend
from reconciler.resources.errors import ImageInvalid, ImageMissing, PoolUnavailable
from reconciler.resources.images import RbdName
from reconciler.resources.virtualmachine import Disk, VirtualMachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedImage:
    """An image by the disk that it is for. `problem`: why nothing is known of it."""

    disk: str
    pool: str
    image: str
    problem: str = ""


def disks_of(context: NodeContext, vm: VirtualMachineSpec) -> tuple[Disk, ...]:
    """The disks, and the UEFI variables where they are kept like one."""
    variables = nvram_disk(vm, _shared_pools(context), context.views.cluster_spec().default_pool)
    return (*vm.disks, variables) if variables is not None else vm.disks


async def images_of(context: NodeContext, name: str, vm: VirtualMachineSpec) -> tuple[NamedImage, ...]:
    """Every image of the VM called `name`; a disk of its domainXML goes by its target, such as `vdb`."""
    default = context.views.cluster_spec().default_pool
    found = [
        NamedImage(disk=disk.name, pool=pool_of(disk, default), image=disk.image_name(name))
        for disk in disks_of(context, vm)
    ]
    named = {(each.pool, each.image) for each in found}
    for target, path in _own(vm):
        image = await _named(context, target, path)
        if image is not None and (image.pool, image.image) not in named:
            found.append(image)
    return tuple(found)


def _own(vm: VirtualMachineSpec) -> tuple[tuple[str, str], ...]:
    """The network disks of its domainXML: target and path."""
    if vm.domain_xml is None:
        return ()
    try:
        facts = describe_xml(vm.domain_xml)
    except DomainXmlInvalid:
        return ()  # `ManifestValid` says so; nothing of it runs
    disks = [(disk.target or disk.alias, disk.source) for disk in facts.disks]
    disks += [("nvram", facts.nvram)] if facts.nvram else []
    return tuple((target, path) for target, path in disks if RbdName.parse(path) is not None)


async def _named(context: NodeContext, target: str, path: str) -> NamedImage | None:
    """In which of the pools the image is."""
    name = RbdName.parse(path)
    assert name is not None
    problem = f"no StoragePool has {name.spec}"
    for pool, backend in sorted(context.pools.all().items()):
        if backend.network is None:
            continue
        try:
            if await _has(context, backend, path):
                return NamedImage(disk=target, pool=pool, image=name.image)
        except PoolUnavailable as error:
            problem = f"whether it is in the pool '{pool}' is not known: {error.message}"
    return NamedImage(disk=target, pool="", image=name.spec, problem=problem)


async def _has(context: NodeContext, backend: DiskBackend, path: str) -> bool:
    """Whether images of this name are in the pool, this one perhaps not (any more)."""
    try:
        await backend.identify(path, timeout=context.deadlines.disk)
    except ImageInvalid:
        return False
    except ImageMissing:
        return True
    return True


def _shared_pools(context: NodeContext) -> frozenset[str]:
    """Pools that every node sees."""
    networked = {name for name, pool in context.pools.all().items() if pool.network is not None}
    specs = context.pools.specs().items()
    return frozenset(
        networked | {name for name, spec in specs if spec.directory is not None and spec.directory.shared}
    )
