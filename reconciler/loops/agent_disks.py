"""The disks of a VM before it starts: looked at without a claim, made and grown only under one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.loops.agent_state import NodeContext
from reconciler.loops.vm_disks import disks_of
from reconciler.planning.disks import (
    DiskView,
    Grow,
    Make,
    Template,
    Use,
    name_key,
    plan_disk,
    pool_of,
    require_pool,
    template_place,
    writable_names,
)
from reconciler.planning.lifecycle import Prepared
from reconciler.ports.disks import DiskBackend
from reconciler.resources import keys
from reconciler.resources.domains import AttachedDisk, Definition, StartRequest
from reconciler.resources.errors import AlreadyExists, DiskError, ImageInUse, ImageInvalid, ImageMissing
from reconciler.resources.images import Holder, ImageInfo, RbdName
from reconciler.resources.infrastructure import ImageSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Pin, SpecRecord, VolumeRecord, dump
from reconciler.resources.status import DiskStatus
from reconciler.resources.virtualmachine import Disk, DiskSource, VirtualMachineSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`definition` is None while `prepared.missing` names disks that must be made or grown first."""

    prepared: Prepared
    definition: Definition | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Of one disk: the `disk/` keys to hold, whether its image must be made or grown first (`missing`), and
    the records that say that it is there."""

    keys: tuple[str, ...]
    missing: bool
    volumes: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    disk: Disk
    pool: str
    image: str
    action: Use | Grow | Make
    template: Template | None


class DiskWork:
    """Reads and makes disks through the pools of this node."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context

    async def look(self, record: SpecRecord, vm: VirtualMachineSpec) -> Look:
        """What the disks need and, when they need nothing, the VM's final definition. Changes nothing.

        Raises DiskError, StartFailed, ControllerError.
        """
        name, generation = record.metadata.name, record.metadata.generation
        planned = await self._plans(record, vm)
        identities = set(self.names(vm, name))
        missing = tuple(p.disk.name for p in planned if not isinstance(p.action, Use))
        for item in planned:
            if isinstance(item.action, Make):
                if item.template is not None and not item.template.shared:
                    identities.add(item.template.identity)
            elif not item.disk.read_only:
                await self._refuse_template(item, item.action.info)
                identities.add(item.action.info.identity)
        notes = tuple(p.action.note for p in planned if isinstance(p.action, Use) and p.action.note)
        if missing:
            prepared = Prepared(generation=generation, identities=tuple(sorted(identities)), missing=missing)
            return Look(prepared=prepared, definition=None, notes=notes)
        definition = await self._render(record, vm, planned)
        identities |= await self._foreign_writable(definition, planned)
        prepared = Prepared(generation=generation, identities=tuple(sorted(identities)))
        return Look(prepared=prepared, definition=definition, notes=notes)

    async def make(
        self, record: SpecRecord, vm: VirtualMachineSpec, progress: Callable[[float], None]
    ) -> None:
        """Make and grow what `look` found missing; long. The caller holds the claim. Raises DiskError."""
        work = [item for item in await self._plans(record, vm) if not isinstance(item.action, Use)]
        for index, item in enumerate(work):

            def share(done: float, index: int = index) -> None:
                progress((index + done) / len(work))

            await self._make_one(record, item, share)

    async def record_volumes(self, record: SpecRecord, vm: VirtualMachineSpec) -> Mapping[str, bytes]:
        """The store records that say these images exist (SAFETY rule 18), for those that changed."""
        return await self._volumes(record, self._all(vm))

    async def _volumes(self, record: SpecRecord, disks: Iterable[Disk]) -> Mapping[str, bytes]:
        puts: dict[str, bytes] = {}
        for disk in disks:
            pool, image = self._place(record.metadata.name, disk)
            info = await self._backend(pool).inspect(image, timeout=self._context.deadlines.disk)
            key = keys.volume(pool, image)
            known = self._context.views.record(key, VolumeRecord)
            if info is None or disk.read_only:
                continue
            uid = record.metadata.uid
            node = self._only_node(pool)
            if known is None or (known.identity, known.uid, known.node) != (info.identity, uid, node):
                now = self._context.clock.wall()
                created = VolumeRecord(identity=info.identity, uid=uid, created=now, node=node)
                puts[key] = dump(created)
        return puts

    async def need_of(self, record: SpecRecord, disk: Disk) -> Need:
        """What one disk needs that is to be attached to the running VM. Raises DiskError."""
        planned = await self._plan(record, disk)
        held = set(self._names_of(record, disk))
        match planned.action:
            case Make():
                if planned.template is not None and not planned.template.shared:
                    held.add(planned.template.identity)
                return Need(keys=tuple(sorted(held)), missing=True)
            case Use(info=info) | Grow(info=info):
                if not disk.read_only:
                    await self._refuse_template(planned, info)
                    held.add(info.identity)
                missing = isinstance(planned.action, Grow)
                volumes = await self._volumes(record, (disk,))
                return Need(keys=tuple(sorted(held)), missing=missing, volumes=volumes)

    async def make_disk(self, record: SpecRecord, disk: Disk, progress: Callable[[float], None]) -> None:
        """As `make`, of one disk of a VM that runs."""
        await self._make_one(record, await self._plan(record, disk), progress)

    async def definition(
        self, record: SpecRecord, vm: VirtualMachineSpec, disk: Disk | None = None
    ) -> Definition:
        """The VM's definition with no disk but this one. Raises DiskError, StartFailed, ControllerError."""
        disks = (disk,) if disk is not None else ()
        planned = [await self._plan(record, each) for each in disks]
        for item in planned:
            if not isinstance(item.action, Use):
                raise ImageMissing(f"disk '{item.disk.name}': its image '{item.image}' is not ready")
        return await self._render(record, replace(vm, disks=disks), planned)

    def _names_of(self, record: SpecRecord, disk: Disk) -> tuple[str, ...]:
        default = self._context.views.cluster_spec().default_pool
        return writable_names((disk,), record.metadata.name, default)

    async def keys_of(self, record: SpecRecord, disk: Disk, path: str) -> frozenset[str]:
        """What a claim holds for a disk that is attached at this path. Raises DiskError."""
        found = set(self._names_of(record, disk))
        if path:
            found.add(await self.identity_of(path))
        return frozenset(found)

    def _only_node(self, pool: str) -> str:
        """This node, for a pool whose images no other node sees."""
        spec = self._context.pools.specs().get(pool)
        local = spec is not None and spec.directory is not None and not spec.directory.shared
        return self._context.node if local else ""

    async def trash(self, record: SpecRecord, vm: VirtualMachineSpec) -> tuple[str, ...]:
        """Put the VM's writable images aside; the `volume/` keys that go with them. Raises DiskError."""
        gone = []
        for disk in self._all(vm):
            if disk.read_only:
                continue
            pool, image = self._place(record.metadata.name, disk)
            await self._backend(pool).trash(image, timeout=self._context.deadlines.disk)
            gone.append(keys.volume(pool, image))
        return tuple(gone)

    async def holders(self, record: SpecRecord, vm: VirtualMachineSpec) -> tuple[str, ...]:
        """Who else has the VM's writable images open, for an error message: 'IMAGE by WHO', sorted."""
        held = await self.held(record, vm)
        return tuple(sorted(f"{image} by {who.description} ({who.client})" for image, who in held))

    async def held(self, record: SpecRecord, vm: VirtualMachineSpec) -> tuple[tuple[str, Holder], ...]:
        """Who has the VM's writable images open: (image, holder) pairs. Raises DiskError."""
        found: list[tuple[str, Holder]] = []
        for disk in self._all(vm):
            if disk.read_only:
                continue
            pool, image = self._place(record.metadata.name, disk)
            held = await self._backend(pool).holders(image, timeout=self._context.deadlines.disk)
            found += [(image, holder) for holder in held]
        return tuple(found)

    async def identity_of(self, path: str) -> str:
        """The key of the image behind a path, as a claim holds it. Raises DiskError."""
        if not path.startswith("/"):
            return await self._network_key(path)
        pools = self._context.pools.all()
        try:
            return await pools[min(pools)].identify(path, timeout=self._context.deadlines.disk)
        except (ImageMissing, ValueError):
            return name_key(f"node-{self._context.node}", path.strip("/").replace("/", "|"))

    async def on_network(self, record: SpecRecord, vm: VirtualMachineSpec) -> tuple[DiskStatus, ...]:
        """The VM's disks on a network with who holds them, as they are now. Raises DiskError."""
        found, timeout = [], self._context.deadlines.guest
        for disk in self._all(vm):
            pool, image = self._place(record.metadata.name, disk)
            backend = self._backend(pool)
            if backend.network is None:
                continue
            info = await backend.inspect(image, timeout=timeout)
            if info is not None:
                holders = await backend.holders(image, timeout=timeout)
                found.append(
                    DiskStatus(
                        name=disk.name,
                        image=info.path,
                        size=info.size,
                        features=info.features,
                        owners=tuple(_owner(holder) for holder in holders),
                    )
                )
        return tuple(found)

    def pools_of(self, vm: VirtualMachineSpec) -> dict[str, DiskBackend]:
        """The pools that the VM's disks are in. Raises PoolUnavailable for one that is not here."""
        default = self._context.views.cluster_spec().default_pool
        return {pool: self._backend(pool) for pool in {pool_of(disk, default) for disk in self._all(vm)}}

    def names(self, vm: VirtualMachineSpec, name: str) -> tuple[str, ...]:
        """The keys that stand for the names of every image that the VM called `name` may write."""
        return writable_names(self._all(vm), name, self._context.views.cluster_spec().default_pool)

    def _all(self, vm: VirtualMachineSpec) -> tuple[Disk, ...]:
        return disks_of(self._context, vm)

    def _place(self, vm: str, disk: Disk) -> tuple[str, str]:
        default = self._context.views.cluster_spec().default_pool
        return pool_of(disk, default), disk.image_name(vm)

    def _backend(self, pool: str) -> DiskBackend:
        pools = self._context.pools.all()
        require_pool(pool, pools)
        return pools[pool]

    async def _plans(self, record: SpecRecord, vm: VirtualMachineSpec) -> list[_Planned]:
        context = self._context
        found = [await self._plan(record, disk) for disk in vm.disks]
        host, variables = (
            context.controllers[vm.controller].host,
            self._all(vm)[len(vm.disks) :],
        )
        if host is not None and variables:
            facts = await host.facts(timeout=context.deadlines.act)
            if facts.nvram_template:  # otherwise `render` says what is missing, or the controller has none
                origin = DiskSource(import_path=facts.nvram_template)
                found.append(await self._plan(record, replace(variables[0], source=origin)))
        return found

    async def _plan(self, record: SpecRecord, disk: Disk) -> _Planned:
        pool, image = self._place(record.metadata.name, disk)
        info = await self._backend(pool).inspect(image, timeout=self._context.deadlines.disk)
        template = await self._template(disk) if info is None else None
        view = DiskView(
            disk=disk,
            image=image,
            uid=record.metadata.uid,
            info=info,
            record=self._context.views.record(keys.volume(pool, image), VolumeRecord),
            template=template,
        )
        return _Planned(disk=disk, pool=pool, image=image, action=plan_disk(view), template=template)

    async def _template(self, disk: Disk) -> Template | None:
        default = self._context.views.cluster_spec().default_pool
        images: dict[str, ImageSpec] = self._context.views.specs(Kind.IMAGE)
        place = template_place(disk, images, default)
        if place is None:
            return None
        shared = disk.source is not None and disk.source.image is not None
        timeout = self._context.deadlines.disk
        if isinstance(place, str):
            identity = await self._backend(pool_of(disk, default)).identify(place, timeout=timeout)
            wanted = images[disk.source.image].format if disk.source and disk.source.image else None
            return Template(path=place, format=wanted, identity=identity, shared=shared)
        info = await self._backend(place[0]).inspect(place[1], timeout=timeout)
        if info is None:
            raise ImageMissing(
                f"disk '{disk.name}': its source image '{place[1]}' is not in pool '{place[0]}'",
                cure="correct the name or put the image there",
            )
        return Template(path=info.path, format=info.format, identity=info.identity, shared=shared)

    async def _refuse_template(self, item: _Planned, info: ImageInfo) -> None:
        """A template that clones are built on is never attached for writing."""
        images: dict[str, ImageSpec] = self._context.views.specs(Kind.IMAGE)
        default = self._context.views.cluster_spec().default_pool
        for name, spec in sorted(images.items()):
            place = spec.path or (spec.pool or default, spec.image or name)
            same_name = place in (info.path, (item.pool, item.image))
            if same_name or await self._identity(place) == info.identity:
                raise ImageInUse(
                    f"disk '{item.disk.name}' would write to the template of Image '{name}'",
                    cure="use `source: {image: ...}` to get a clone of it, or `readOnly: true`",
                )

    async def _identity(self, place: str | tuple[str, str]) -> str | None:
        """The identity of a template by (pool, image) or path; None when it cannot be had now: a template
        that is away does not keep VMs of other images from starting."""
        timeout = self._context.deadlines.disk
        pools = self._context.pools.all()
        try:
            if isinstance(place, str):
                return await pools[min(pools)].identify(place, timeout=timeout) if pools else None
            info = await pools[place[0]].inspect(place[1], timeout=timeout) if place[0] in pools else None
        except DiskError as error:
            log.debug("the template %s cannot be looked at: %s", place, error)
            return None
        return info.identity if info is not None else None

    async def _make_one(self, record: SpecRecord, item: _Planned, share: Callable[[float], None]) -> None:
        backend = self._backend(item.pool)
        match item.action:
            case Grow(size=size):
                await backend.grow(item.image, size, timeout=self._context.deadlines.disk)
            case Make(content=content):
                try:
                    await backend.create(
                        item.image,
                        content,
                        format=item.disk.format,
                        operation=record.metadata.uid,
                        progress=share,
                    )
                except AlreadyExists:
                    share(1.0)  # made by an attempt that was cut off before it was recorded
            case Use():
                share(1.0)

    async def _render(
        self, record: SpecRecord, vm: VirtualMachineSpec, planned: list[_Planned]
    ) -> Definition:
        context = self._context
        name = record.metadata.name
        pin = context.views.record(keys.pin(name), Pin)
        pinned = pin.machine if pin is not None and pin.uid == record.metadata.uid else ""
        request = StartRequest(
            name=name,
            uid=record.metadata.uid,
            cluster_uid=context.cluster_uid,
            node=context.node,
            generation=record.metadata.generation,
            spec=vm,
            disks=tuple(_attached(item) for item in planned if item.disk in vm.disks),
            machine=pinned,
            nvram=next((_attached(item) for item in planned if item.disk not in vm.disks), None),
        )
        controller = context.controllers[vm.controller]
        return await controller.lifecycle.render(request, timeout=context.deadlines.act)

    async def _network_key(self, path: str) -> str:
        """The key of a network disk that a domainXML brings along: its identity, if it is in a pool of ours,
        so that no VM of the pool has it too; else its name, one image for the whole cluster."""
        for _, backend in sorted(self._context.pools.all().items()):
            if backend.network is not None and RbdName.parse(path) is not None:
                try:
                    return await backend.identify(path, timeout=self._context.deadlines.disk)
                except (ImageInvalid, ImageMissing):
                    continue
        return f"network/{path}"

    async def _foreign_writable(self, definition: Definition, planned: list[_Planned]) -> set[str]:
        """Keys of writable paths that no `disks` entry stands for: a domainXML's own, and the NVRAM."""
        known = {item.action.info.path for item in planned if isinstance(item.action, Use)}
        return {await self.identity_of(path) for path in sorted(set(definition.writable) - known)}


def _owner(holder: Holder) -> str:
    """A holder in a few words, for `vcl describe`."""
    parts = ["open"] if holder.watching else []
    parts += [f"lock '{holder.lock}'"] if holder.lock else []
    parts += ["blocklisted"] if holder.fenced else []
    return f"{holder.client} ({', '.join(parts)})"


def _attached(item: _Planned) -> AttachedDisk:
    assert isinstance(item.action, Use)
    info = item.action.info
    return AttachedDisk(
        name=item.disk.name,
        path=info.path,
        format=info.format,
        read_only=item.disk.read_only,
        access=info.access,
    )
