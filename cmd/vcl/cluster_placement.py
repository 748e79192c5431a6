"""What `vcl cluster placement` says: what is wanted, owned, reported and there, side by side, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.resources.quantity import human_bytes
from vcl.describing import part
from vcl.table import clean, render

Object = Mapping[str, Any]

VM_HEADERS = ("VM", "DESIRED", "CLAIMED", "REPORTED", "LOCAL", "STATE", "NOTE")
NODE_HEADERS = ("NODE", "STANDING", "VCPU", "MEMORY", "VMS", "NOTE")
NOTHING = "-"


def placement_text(placement: Object) -> str:
    """The text: a line of how it is, the VMs with those first that do not agree, and the nodes."""
    vms: Sequence[Object] = placement.get("vms") or []
    nodes: Sequence[Object] = placement.get("nodes") or []
    here = placement.get("node")
    parts = [f"{_summary(vms)}\nAs node {here} sees it; LOCAL is what really is on {here}.\n"]
    if vms:
        parts.append(render([VM_HEADERS, *(_vm(vm) for vm in vms)]))
    note = "VCPU and MEMORY: used by VMs / usable after reserve and overcommit / what the node has.\n"
    parts.append(note + render([NODE_HEADERS, *(_node(node) for node in nodes)]))
    return "\n".join(parts)


def _summary(vms: Sequence[Object]) -> str:
    if not vms:
        return "There are no virtual machines."
    states = Counter(str(vm.get("state")) for vm in vms)
    if set(states) == {"OK"}:
        several = f"{len(vms)} virtual machines, all as wanted."
        return several if len(vms) > 1 else "1 virtual machine, as wanted."
    order = dict.fromkeys(str(vm.get("state")) for vm in vms)
    return f"{len(vms)} virtual machines: {', '.join(f'{states[word]} {word}' for word in order)}."


def _vm(vm: Object) -> tuple[str, ...]:
    cells = (
        vm.get("name"),
        vm.get("desired"),
        _held(part(vm, "claimed")),
        _held(part(vm, "reported")),
        vm.get("local"),
        vm.get("state"),
        vm.get("note") or "",
    )
    return tuple(NOTHING if cell is None else clean(str(cell)) for cell in cells)


def _held(held: Object) -> str | None:
    return f"{held.get('node')} {held.get('phase')}" if held else None


def _node(node: Object) -> tuple[str, ...]:
    amounts = [part(node, key) for key in ("used", "usable", "total")]
    cpu = "/".join(_cpu(amount.get("cpu")) for amount in amounts)
    memory = "/".join(_memory(amount.get("memory")) for amount in amounts)
    cells = (node.get("name"), node.get("standing"), cpu, memory, node.get("vms"), node.get("note") or "")
    return tuple(clean(str(cell)) for cell in cells)


def _cpu(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else "?"


def _memory(value: object) -> str:
    return human_bytes(value) if isinstance(value, (int, float)) else "?"
