"""Domains as people have them, adopted and built again: the same domain, but for what is said here.

Each step of `plain` is one normalisation that docs/concepts/domain-xml.md lists under "Adopting"; whatever
else differs is a bug.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.domainxml import metadata
from reconciler.domainxml.adopt import Adopted, Places, adopt
from reconciler.domainxml.build import GuestPaths, HostProfile, build
from reconciler.domainxml.elements import child, children, drop, in_bytes, text_of, whole_mib
from reconciler.domainxml.machine import is_stock_emulator
from reconciler.domainxml.parse import parse
from reconciler.domainxml.runtime import strip_run
from reconciler.resources.codec import decode
from reconciler.resources.domains import AttachedDisk, StartRequest
from reconciler.resources.images import RbdAccess
from reconciler.resources.infrastructure import DirectoryPool, PoolType, RbdPool, StoragePoolSpec
from reconciler.resources.manifest import parse_manifest
from reconciler.resources.virtualmachine import Disk, DiskFormat, VirtualMachineSpec

HERE = Path(__file__).parent
DOMAINS = {path.stem: path for folder in ("fixtures", "samples") for path in (HERE / folder).glob("*.xml")}
NAMES = sorted(DOMAINS.keys() - {"memory-devices"})
"""All but one that a block job is copying (test_adopt.py)."""
SECRET = "99999999-0000-4000-8000-000000000001"
ACCESS = RbdAccess(monitors=("10.0.0.9:6789",), user="qemu", secret=SECRET)


def _rbd(pool: str, namespace: str = "") -> StoragePoolSpec:
    return StoragePoolSpec(type=PoolType.RBD, rbd=RbdPool(pool=pool, namespace=namespace))


def _files(path: str) -> StoragePoolSpec:
    return StoragePoolSpec(type=PoolType.DIRECTORY, directory=DirectoryPool(path=path))


PLACES = Places(
    pools={
        "ceph": _rbd("vms"),
        "tenant": _rbd("vms", "tenant1"),
        "local": _files("/srv/images/"),
        "nfs": _files("/mnt/nfs/vms"),
        "images": _files("/var/lib/libvirt/images"),
    },
    default="ceph",
)


def read(name: str) -> str:
    return DOMAINS[name].read_text(encoding="utf-8")


def adopted(name: str) -> Adopted:
    return adopt(read(name), PLACES, name="web" if name in ("rbd-many-monitors",) else "")


def attached(disk: Disk, vm: str, element: ET.Element | None) -> AttachedDisk:
    """As the agent finds the image in its pool."""
    pool, image = disk.pool or PLACES.default, disk.image_name(vm)
    spec = PLACES.pools[pool]
    if spec.rbd is not None:
        place = "/".join(part for part in (spec.rbd.pool, spec.rbd.namespace, image) if part)
        return AttachedDisk(name=disk.name, path=f"rbd:{place}", format=DiskFormat.RAW, access=ACCESS)
    assert spec.directory is not None
    driver = None if element is None else child(element, "driver")
    format = DiskFormat.RAW if driver is None else DiskFormat(driver.get("type", "raw"))
    plain = image.endswith((".img", ".iso")) or image in ("fedora",)
    path = f"{spec.directory.path.rstrip('/')}/{image}{'' if plain else f'.{format.value}'}"
    return AttachedDisk(name=disk.name, path=path, format=format)


def built(found: Adopted, host: HostProfile, paths: GuestPaths) -> str:
    vm = decode(VirtualMachineSpec, found.spec)
    assert vm.domain_xml is not None
    mine = {target_of(disk): disk for disk in children(child(parse(vm.domain_xml).root, "devices"), "disk")}
    names = {alias_name(disk): disk for disk in mine.values()}
    request = StartRequest(
        name=found.name,
        uid=found.uuid or "a0000000-0000-4000-8000-0000000000ff",
        cluster_uid="c1",
        node="r1",
        generation=1,
        spec=vm,
        disks=tuple(
            attached(disk, found.name, mine.get(disk.name, names.get(disk.name))) for disk in vm.disks
        ),
    )
    return build(request, host, paths).document


def target_of(disk: ET.Element) -> str:
    target = child(disk, "target")
    return "" if target is None else target.get("dev", "")


def alias_of(device: ET.Element) -> str:
    alias = child(device, "alias")
    return "" if alias is None else alias.get("name", "")


def alias_name(disk: ET.Element) -> str:
    return alias_of(disk).removeprefix("ua-disk-")


def plain(text: str, found: Adopted, host: HostProfile) -> ET.Element:
    """The domain without what is allowed to differ."""
    root = parse(text).root
    strip_run(root)
    metadata.clear(root)
    drop(root, "name", "uuid", "on_poweroff", "on_reboot", "on_crash")
    root.attrib["type"] = host.virtualization
    _amounts(root)
    _machine(root, host)
    devices = child(root, "devices")
    if devices is None:
        devices = ET.SubElement(root, "devices")
    pooled = {disk["name"] for disk in found.spec.get("disks", ())}
    for disk in children(devices, "disk"):
        if {target_of(disk), alias_name(disk)} & pooled:
            _pooled_disk(disk)
    for nic in children(devices, "interface"):
        _interface(nic, found)
    _essentials(devices)
    return root


def _amounts(root: ET.Element) -> None:
    memory, current = child(root, "memory"), child(root, "currentMemory")
    size = whole_mib(in_bytes(memory) or 0)
    less = in_bytes(current) if current is not None else None
    if less is None or whole_mib(less) == size:
        less = size
    drop(root, "memory", "currentMemory")
    root.attrib["memory"], root.attrib["current"] = str(size), str(less)
    vcpu = child(root, "vcpu")
    if vcpu is None or vcpu.get("placement") == "static":
        (ET.SubElement(root, "vcpu") if vcpu is None else vcpu).attrib.pop("placement", None)
    child_vcpu = child(root, "vcpu")
    assert child_vcpu is not None
    child_vcpu.text = text_of(child_vcpu) or "1"
    for cell in children(child(root, "cpu", "numa"), "cell"):
        amount = ET.Element("memory", {"unit": cell.attrib.pop("unit", "KiB")})
        amount.text = cell.get("memory")
        cell.attrib["memory"] = str(in_bytes(amount))


def _machine(root: ET.Element, host: HostProfile) -> None:
    os = child(root, "os")
    kind = child(os, "type")
    assert os is not None
    assert kind is not None
    machine = kind.get("machine", "pc")
    kind.attrib["machine"] = host.machine_types.get(machine, machine)
    kind.attrib.setdefault("arch", "x86_64")
    if text_of(child(os, "loader")):
        os.attrib.pop("firmware", None)
        drop(os, "firmware")
    variables = child(os, "nvram")
    if variables is not None and (text_of(variables).startswith("/var/lib/vcl/") or not text_of(variables)):
        os.remove(variables)


def _pooled_disk(disk: ET.Element) -> None:
    """The way to the image is the pool's, its name the spec's."""
    source = child(disk, "source")
    assert source is not None
    drop(disk, "auth", "alias")
    if source.get("protocol") == "rbd":
        drop(source, "host", "auth", "config")
    if "file" in source.attrib:
        source.attrib["file"] = source.attrib["file"].replace("//share/..", "")
    if text_of(child(disk, "serial")) == target_of(disk):
        drop(disk, "serial")
    driver = child(disk, "driver")
    if driver is None:
        driver = ET.SubElement(disk, "driver")
    driver.attrib.setdefault("name", "qemu")
    driver.attrib.setdefault("type", "raw")


def _interface(nic: ET.Element, found: Adopted) -> None:
    unwritten = {f"ua-nic-{one['name']}" for one in found.spec.get("interfaces", ()) if "mac" not in one}
    if alias_of(nic) in unwritten:
        drop(nic, "mac")
    mac = child(nic, "mac")
    if mac is not None:
        mac.attrib["address"] = mac.get("address", "").lower()
    alias = child(nic, "alias")
    if alias is not None and alias.get("name", "").startswith("ua-nic-"):
        nic.remove(alias)


def _essentials(devices: ET.Element) -> None:
    """A serial console with a log, and the agent's channel, are vcl's own where there was none."""
    serial, console = child(devices, "serial"), child(devices, "console")
    first = serial if serial is not None else console
    if first is not None:
        log = child(first, "log")
        if log is not None and log.get("file", "").startswith("/var/log/vcl/"):
            first.remove(log)
    emulator = child(devices, "emulator")
    if emulator is not None and is_stock_emulator(text_of(emulator)):
        devices.remove(emulator)


def without_added_console(devices: ET.Element, before: ET.Element) -> None:
    if child(before, "serial") is None and child(before, "console") is None:
        drop(devices, "serial", "console")


def shape(element: ET.Element) -> tuple[Any, ...]:
    """An element to compare: the order of parts counts among devices of one kind only."""
    parts = [shape(child) for child in element]
    ordered = (
        sorted(parts, key=lambda part: str(part[0])) if element.tag == "devices" else sorted(parts, key=str)
    )
    text = (element.text or "").strip()
    return (str(element.tag), tuple(sorted(element.attrib.items())), text, tuple(ordered))


def lines(element: ET.Element) -> list[str]:
    """Each part in a line, so that a difference can be read."""
    _, attributes, _, parts = shape(element)
    flat = [str(attributes)]
    for part in parts:
        flat += [str(inner) for inner in part[3]] if part[0] == "devices" else [str(part)]
    return flat


@pytest.mark.parametrize("name", NAMES)
def test_a_domain_that_is_adopted_and_built_again_is_the_same(
    name: str, host: HostProfile, paths: GuestPaths
) -> None:
    found = adopted(name)
    kind = "qemu" if parse(read(name)).root.get("type") == "qemu" else "kvm"
    on = replace(host, virtualization=kind)
    before = plain(read(name), found, on)
    after = plain(built(found, on, paths), found, on)
    inner, other = child(after, "devices"), child(before, "devices")
    assert inner is not None
    assert other is not None
    without_added_console(inner, other)
    assert sorted(set(lines(after)) ^ set(lines(before))) == []
    assert lines(after) == lines(before)


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_is_one_that_vcl_takes(name: str) -> None:
    import json

    found = adopted(name)
    manifest = {
        "apiVersion": "vcl/v1",
        "kind": "VirtualMachine",
        "metadata": {"name": found.name},
        "spec": found.spec,
    }
    parsed = parse_manifest("vm.json", json.dumps(manifest).encode(), load_schemas())
    assert [problem.message for problem in parsed.problems] == []


@pytest.mark.parametrize("name", NAMES)
def test_adopting_what_was_built_gives_the_same_fields(
    name: str, host: HostProfile, paths: GuestPaths
) -> None:
    """A domain of vcl's that is brought back: nothing moves from the fields into domainXML."""
    found = adopted(name)
    again = adopt(built(found, host, paths), PLACES)
    kept = ("cpu", "memory", "disks", "interfaces", "boot", "firmware")
    wanted = {key: value for key, value in found.spec.items() if key in kept}
    given = {key: value for key, value in again.spec.items() if key in kept}
    for nic, wish in zip(given.get("interfaces", ()), wanted.get("interfaces", ()), strict=True):
        if "mac" not in wish:
            nic.pop("mac")
    assert given == wanted


@pytest.mark.libvirt
def test_libvirts_schema_knows_every_one_of_them(
    host: HostProfile, paths: GuestPaths, validate: Callable[[Iterable[str]], None]
) -> None:
    validate([read(name) for name in NAMES])
    validate([built(adopted(name), host, paths) for name in NAMES])


def test_there_are_domains_of_many_ages_and_shapes() -> None:
    assert len(list((HERE / "fixtures").glob("*.xml"))) >= 30
