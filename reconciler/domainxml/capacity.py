"""vCPUs, the CPU model, and memory, and what a user's XML says about the same amounts.

Invariant: the guest gets `cpu.cores` vCPUs and `memory` bytes, which the placement counted with; what it may
get later (`cpu.maxCores`, `maxMemory`) is beside that, and not given to it. Where domainXML spreads them
(topology, NUMA cells), it is fitted when there is one way to do it, else refused.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

from reconciler.domainxml.draft import Draft
from reconciler.domainxml.elements import (
    add,
    child,
    children,
    drop,
    ensure,
    in_bytes,
    number,
    put,
    section,
    set_memory,
    text_of,
    whole_mib,
)
from reconciler.resources.quantity import format_bytes

BLOCK = 2 << 20
"""Bytes of which a virtio-mem device gives and takes whole multiples: a huge page of x86."""
MEMORY_ALIAS = "ua-memory"
_MODES = ("host-model", "host-passthrough", "maximum")
_TOPOLOGY = ("sockets", "dies", "clusters", "cores", "threads")


def vcpus(draft: Draft) -> None:
    """`cpu.cores` vCPUs at start. A larger maximum, of the spec or in the user's XML, is room for more."""
    root, cores = draft.root, draft.spec.cpu.cores
    element = section(root, "vcpu")
    most = number(element.text)
    before = number(element.get("current")) or most
    if draft.spec.cpu.max_cores is not None:
        most = max(draft.spec.cpu.max_cores, cores)
        element.attrib["current"] = str(cores)
    if most is not None and most > cores and element.get("current") is not None:
        element.attrib["current"] = str(cores)
        most = cores if cores > most else most
    else:
        element.attrib.pop("current", None)
        most = cores
    element.text = str(most)
    if before != cores:
        drop(root, "vcpus")  # the list of single vCPUs would contradict the count
    _fit_topology(root, most)


def _fit_topology(root: ET.Element, most: int) -> None:
    topology = child(root, "cpu", "topology")
    if topology is None:
        return
    sizes = {name: number(topology.get(name)) or 1 for name in _TOPOLOGY}
    if math.prod(sizes.values()) == most:
        return
    rest = math.prod(value for name, value in sizes.items() if name != "cores")
    if most % rest == 0:
        topology.attrib["cores"] = str(most // rest)
    else:
        section(root, "cpu").remove(topology)


def model(draft: Draft) -> str:
    """The CPU that the guest sees, and how it is remembered: a mode, a model's name, or '' (user's XML).

    Without a wish it is the most that can migrate: host-model with KVM; 'maximum' under emulation, where
    the default would be too old for current distributions.
    """
    root, emulated = draft.root, draft.host.virtualization == "qemu"
    asked = draft.spec.cpu.model
    if asked is None and draft.own:
        _fit_emulation(root, emulated)
        return ""
    if asked is None:
        asked = "maximum" if emulated else "host-model"
    if emulated and asked == "host-passthrough":
        asked = "maximum"
    cpu = section(root, "cpu")
    drop(cpu, "model", "vendor", "feature")
    cpu.attrib.clear()
    if asked in _MODES:
        cpu.attrib["mode"] = asked
    else:
        cpu.attrib.update({"mode": "custom", "match": "exact"})
        put(cpu, "model", asked).attrib["fallback"] = "forbid"
    _fit_emulation(root, emulated)
    return asked


def _fit_emulation(root: ET.Element, emulated: bool) -> None:
    """Without KVM there is no host CPU to pass through, nor to compare a model with."""
    cpu = child(root, "cpu")
    if cpu is None:
        return
    if emulated and cpu.get("mode") == "host-passthrough":
        cpu.attrib["mode"] = "maximum"
        cpu.attrib.pop("check", None)
    if emulated and child(cpu, "model") is not None:
        cpu.attrib["check"] = "none"
    if cpu.get("mode") != "host-passthrough":
        for tag in ("cache", "maxphysaddr"):
            for element in list(children(cpu, tag)):
                if element.get("mode") == "passthrough":
                    cpu.remove(element)


def memory(draft: Draft) -> None:
    """`memory`, rounded up to whole MiB as libvirt would; a smaller balloon of the user's stays."""
    root, wanted = draft.root, whole_mib(draft.spec.memory)
    before = in_bytes(child(root, "memory"))
    if before is None or whole_mib(before) != wanted:
        set_memory(section(root, "memory"), wanted)
        set_memory(section(root, "currentMemory"), wanted)
    if draft.spec.max_memory is not None:
        _make_room(draft, wanted, draft.spec.max_memory)
    else:
        _fit_numa(draft, wanted)


def _make_room(draft: Draft, wanted: int, most: int) -> None:
    """A virtio-mem device of which the guest has nothing yet. A balloon would do without a driver for more
    memory, but gives a guest that has no driver for the balloon all of it at once."""
    room = -(-(whole_mib(most) - wanted) // BLOCK) * BLOCK
    if room <= 0:
        _fit_numa(draft, wanted)
        return
    root = draft.root
    cells = list(children(child(root, "cpu", "numa"), "cell"))
    own = next(children(draft.devices, "memory"), None)
    if len(cells) > 1 or own is not None:
        raise draft.refuse(
            "spec.maxMemory does not go with several NUMA cells, or memory devices, of one's own",
            at=own if own is not None else cells[1],
            cure="remove them, or spec.maxMemory",
        )
    cores = number(text_of(child(root, "vcpu"))) or 1
    cell = cells[0] if cells else ensure(section(root, "cpu"), "numa", "cell")
    cell.attrib.setdefault("id", "0")
    cell.attrib["cpus"] = "0" if cores == 1 else f"0-{cores - 1}"
    cell.attrib.update({"memory": str(wanted // 1024), "unit": "KiB"})
    top = section(root, "maxMemory")
    top.attrib["slots"] = "1"
    set_memory(top, wanted + room)
    set_memory(section(root, "memory"), wanted + room)
    set_memory(section(root, "currentMemory"), wanted)
    device = add(draft.devices, "memory", {"model": "virtio-mem"})
    target = add(device, "target")
    set_memory(add(target, "size"), room)
    add(target, "node", text=cell.attrib["id"])
    set_memory(add(target, "block"), BLOCK)
    set_memory(add(target, "requested"), 0)
    add(device, "alias", {"name": MEMORY_ALIAS})


def _fit_numa(draft: Draft, wanted: int) -> None:
    """libvirt takes the sum of NUMA cells and memory devices for the memory: it must be what was asked."""
    cells = list(children(child(draft.root, "cpu", "numa"), "cell"))
    if not cells:
        return
    cores = number(text_of(child(draft.root, "vcpu"))) or 1
    modules = sum(_module_sizes(draft.root))
    if len(cells) == 1 and modules < wanted:
        if cells[0].get("cpus") is not None:
            cells[0].attrib["cpus"] = "0" if cores == 1 else f"0-{cores - 1}"
        cells[0].attrib.update({"memory": str((wanted - modules) // 1024), "unit": "KiB"})
        return
    total = modules + sum(_cell_memory(cell) or 0 for cell in cells)
    if whole_mib(total) != wanted:
        raise draft.refuse(
            f"NUMA cells and memory devices add up to {format_bytes(total)}, not to spec.memory, "
            f"{format_bytes(wanted)}",
            at=cells[0],
            cure="make the two agree",
        )
    for cell in cells:
        last = max((int(n) for n in re.findall(r"[0-9]{1,9}", cell.get("cpus", ""))), default=0)
        if last >= cores:
            message = f"a NUMA cell has CPU {last}, but spec.cpu.cores is {cores} (CPUs 0 to {cores - 1})"
            raise draft.refuse(message, at=cell, cure="make the two agree")


def _module_sizes(root: ET.Element) -> Iterator[int]:
    for module in children(child(root, "devices"), "memory"):
        yield in_bytes(child(module, "target", "size")) or 0


def _cell_memory(cell: ET.Element) -> int | None:
    scaled = ET.Element("memory", {"unit": cell.get("unit", "KiB")})
    scaled.text = cell.get("memory")
    return in_bytes(scaled)
