"""Whatever the spec: the XML is well-formed and valid, and says what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.domainxml.build import GuestPaths, HostProfile, UefiFirmware, build
from reconciler.domainxml.changes import pending_restart
from reconciler.domainxml.elements import whole_mib
from reconciler.domainxml.read import describe_xml
from reconciler.resources.domains import AttachedDisk, Definition, StartRequest
from reconciler.resources.virtualmachine import (
    Boot,
    CloudInit,
    Cpu,
    Disk,
    DiskBus,
    DiskCache,
    DiskFormat,
    Firmware,
    Interface,
    NicModel,
    NicState,
    VirtualMachineSpec,
)

NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9.\-]{0,61}[A-Za-z0-9])?", fullmatch=True)
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=20)
PATHS = TEXT.map(lambda text: "/p/" + text.replace("/", ""))
HOSTS = st.builds(
    HostProfile,
    virtualization=st.sampled_from(["kvm", "qemu"]),
    machine_types=st.just({"q35": "pc-q35-7.2", "pc": "pc-i440fx-7.2"}),
    emulator=st.sampled_from(["", "/usr/bin/qemu-system-x86_64"]),
    uefi=st.just(UefiFirmware(loader="/usr/share/code.fd", nvram_template="/usr/share/vars.fd")),
)
SPECS = st.builds(
    VirtualMachineSpec,
    cpu=st.builds(
        Cpu,
        cores=st.integers(1, 512),
        max_cores=st.none() | st.integers(1, 512),
        model=st.sampled_from([None, "host-model", "host-passthrough", "Nehalem", "Haswell-noTSX"]),
    ),
    memory=st.integers(1 << 20, 1 << 42),
    max_memory=st.none() | st.integers(1 << 20, 1 << 43),
    machine=st.sampled_from(["q35", "pc", "pc-q35-6.2"]),
    firmware=st.sampled_from(Firmware),
    disks=st.lists(
        st.builds(
            Disk,
            name=NAMES,
            bus=st.sampled_from(DiskBus),
            cache=st.sampled_from(DiskCache),
            read_only=st.booleans(),
        ),
        max_size=6,
        unique_by=lambda disk: disk.name,
    ).map(tuple),
    interfaces=st.lists(
        st.builds(
            Interface,
            name=NAMES,
            bridge=st.none() | st.sampled_from(["br0", "ovs-1"]),
            model=st.sampled_from(NicModel),
            state=st.none() | st.sampled_from(NicState),
        ),
        max_size=4,
        unique_by=lambda nic: nic.name,
    ).map(tuple),
    cloud_init=st.none() | st.builds(CloudInit, user_data=st.text(max_size=9)),
    boot=st.none() | st.builds(Boot, kernel=PATHS, initrd=st.none() | PATHS, cmdline=st.none() | TEXT),
    guest_agent=st.booleans(),
)


@st.composite
def requests(draw: st.DrawFn) -> StartRequest:
    spec = draw(SPECS)
    disks = tuple(
        AttachedDisk(
            name=disk.name, path=f"/pool/{number} {disk.name}", format=draw(st.sampled_from(DiskFormat))
        )
        for number, disk in enumerate(spec.disks)
    )
    return StartRequest(
        name=draw(NAMES),
        uid=str(draw(st.uuids())),
        cluster_uid=str(draw(st.uuids())),
        node=draw(NAMES),
        generation=draw(st.integers(0, 10**9)),
        spec=spec,
        disks=disks,
    )


def defined(request: StartRequest, host: HostProfile) -> Definition:
    name = f"/var/lib/vcl/{request.name}"
    paths = GuestPaths(console_log=f"{name}.log", seed_image=f"{name}.img", nvram=f"{name}.fd")
    return build(request, host, paths)


def disk_facts(definition: Definition) -> list[tuple[Any, ...]]:
    disks = [disk for disk in describe_xml(definition.document).disks if disk.name]
    return [(d.name, d.source, d.format, d.bus, d.cache, d.read_only) for d in disks]


@settings(deadline=None)
@given(requests(), HOSTS)
def test_the_facts_read_back_are_those_asked_for(request: StartRequest, host: HostProfile) -> None:
    definition = defined(request, host)
    facts, spec = describe_xml(definition.document), request.spec
    assert (facts.name, facts.uuid, facts.vcpus) == (request.name, request.uid, spec.cpu.cores)
    assert (facts.memory, facts.firmware) == (whole_mib(spec.memory), spec.firmware.value)
    assert (facts.virtualization, facts.machine) == (host.virtualization, definition.machine)
    assert disk_facts(definition) == [
        (disk.name, attached.path, attached.format, disk.bus, disk.cache, disk.read_only)
        for disk, attached in zip(spec.disks, request.disks, strict=True)
    ]
    assert [(nic.name, nic.model, nic.source) for nic in facts.interfaces] == [
        (nic.name, nic.model, nic.bridge or "") for nic in spec.interfaces
    ]
    assert (facts.agent is not None) == spec.guest_agent
    assert bool(definition.seed) == (spec.cloud_init is not None)
    mark = facts.ownership
    assert mark is not None
    assert (mark.cluster_uid, mark.node, mark.uid) == (request.cluster_uid, request.node, request.uid)


@settings(deadline=None)
@given(requests(), HOSTS)
def test_it_writes_to_its_own_images_and_nothing_else(request: StartRequest, host: HostProfile) -> None:
    writable = {
        attached.path
        for disk, attached in zip(request.spec.disks, request.disks, strict=True)
        if not disk.read_only
    }
    if request.spec.firmware is Firmware.UEFI:
        writable.add(f"/var/lib/vcl/{request.name}.fd")
    assert defined(request, host).writable == tuple(sorted(writable))


@settings(deadline=None)
@given(requests(), HOSTS)
def test_targets_and_macs_are_distinct(request: StartRequest, host: HostProfile) -> None:
    facts = describe_xml(defined(request, host).document)
    assert len({disk.target for disk in facts.disks}) == len(facts.disks)
    assert len({disk.alias for disk in facts.disks}) == len(facts.disks)
    assert len({nic.mac for nic in facts.interfaces}) == len(facts.interfaces)


@settings(deadline=None)
@given(requests(), HOSTS)
def test_building_again_gives_the_same_bytes_and_needs_no_restart(
    request: StartRequest, host: HostProfile
) -> None:
    definition = defined(request, host)
    assert defined(request, host) == definition
    assert pending_restart(definition.document, definition) == ()


@pytest.mark.libvirt
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=requests(), host=HOSTS)
def test_libvirts_schema_accepts_it(
    validate: Callable[[Iterable[str]], None], request: StartRequest, host: HostProfile
) -> None:
    validate([defined(request, host).document])
