"""Objects as rows for people: the columns of `vcl get` for each kind, filled from merged objects.

The daemon makes the cells, so that a command has nothing to decode and every client shows the same words.
Ages stay times (columns of type `date`): only who prints them knows what time it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.planning.liveness import Standing
from reconciler.resources.infrastructure import PoolType
from reconciler.resources.kinds import API_VERSION, Kind
from reconciler.resources.quantity import format_bytes, human_bytes, parse_bytes
from reconciler.resources.status import ConditionStatus, ConditionType

NONE = "<none>"
UNKNOWN = "<unknown>"

Object = Mapping[str, Any]
Cell = str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """`type` is string or date; `wide` columns are for `-o wide`."""

    name: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the VMs that are placed on a node ask for. `memory` in bytes."""

    vms: int = 0
    cpu: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a row shows of other objects: usage by node, and how many nodes there are."""

    usage: Mapping[str, Usage] = field(default_factory=dict)
    nodes: int = 0


def _columns(*normal: str, wide: Sequence[str] = ()) -> tuple[Column, ...]:
    def column(name: str, is_wide: bool) -> Column:
        return Column(name=name, type="date" if name == "AGE" else "string", wide=is_wide)

    return (*(column(name, False) for name in normal), *(column(name, True) for name in wide))


COLUMNS: Mapping[Kind, tuple[Column, ...]] = {
    Kind.VIRTUAL_MACHINE: _columns(
        "NAME", "STATUS", "READY", "NODE", "AGE", wide=("IP", "CPU", "MEMORY", "MESSAGE")
    ),
    Kind.NODE: _columns(
        *("NAME", "STATUS", "ROLES", "RANK", "AGE", "VERSION"),
        wide=("ADDRESS", "CPUS", "VCPU", "MEMORY", "VMS", "HYPERVISOR", "MESSAGE"),
    ),
    Kind.STORAGE_POOL: _columns("NAME", "TYPE", "STATUS", "FREE", "TOTAL", "AGE", wide=("MESSAGE",)),
    Kind.IMAGE: _columns("NAME", "SOURCE", "AGE", wide=("MESSAGE",)),
    Kind.PLACEMENT_CONSTRAINT: _columns(
        "NAME", "TYPE", "ENFORCEMENT", "VMS", "NODES", "AGE", wide=("MESSAGE",)
    ),
    Kind.CLUSTER: _columns("NAME", "POWER", "NODES", "AGE", wide=("MESSAGE",)),
    Kind.FAILOVER: _columns(
        *("NAME", "NODE", "STATUS", "VMS", "DETECTED", "RELEASED", "RUNNING", "AGE"),
        wide=("CAUSE", "MESSAGE"),
    ),
    Kind.MIGRATION: _columns(
        *("NAME", "VM", "FROM", "TO", "STATUS", "PROGRESS", "AGE"), wide=("REASON", "MESSAGE")
    ),
}


def column_definitions(kind: Kind) -> list[dict[str, Any]]:
    """The columns as the API tells them; `priority` 1 is for `-o wide`."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": "date" if column.type == "date" else "",
            "priority": int(column.wide),
        }
        for column in COLUMNS[kind]
    ]


def row(item: Object, around: Surroundings) -> dict[str, Any]:
    """One row of the table of the object's kind."""
    kind = Kind(item["kind"])
    return {"cells": _CELLS[kind](item, around), "object": {"name": item["metadata"]["name"]}}


def self_contained(kind: Kind) -> bool:
    """Whether rows of this kind depend on nothing but their object."""
    return kind not in (Kind.NODE, Kind.CLUSTER)


def table(kind: Kind, items: Iterable[Object], around: Surroundings, revision: int) -> dict[str, Any]:
    """A whole Table as of the store's `revision`."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Table",
        "metadata": {"resourceVersion": str(revision)},
        "columnDefinitions": column_definitions(kind),
        "rows": [row(item, around) for item in items],
    }


def usage_by_node(vms: Iterable[Object]) -> dict[str, Usage]:
    """What VMs take up on the nodes that they are placed on."""
    found: dict[str, Usage] = {}
    for vm in vms:
        node = vm["status"].get("node")
        if not node:
            continue
        before = found.get(node, Usage())
        found[node] = Usage(
            vms=before.vms + 1,
            cpu=before.cpu + int(_cores(vm) or 0),
            memory=before.memory + (_bytes(vm["spec"].get("memory")) or 0),
        )
    return found


def _vm(item: Object, around: Surroundings) -> list[Cell]:
    status = item["status"]
    addresses = status.get("ipAddresses")
    memory = _bytes(item["spec"].get("memory"))
    return [
        item["metadata"]["name"],
        status.get("phase") or UNKNOWN,
        str(bool(status.get("ready"))),
        status.get("node") or NONE,
        _created(item),
        addresses[0] if isinstance(addresses, list) and addresses else NONE,
        str(_cores(item) or NONE),
        NONE if memory is None else format_bytes(memory),
        status.get("message") or "",
    ]


def _node(item: Object, around: Surroundings) -> list[Cell]:
    """VCPU and MEMORY are used/usable: after reserve and overcommit. CPUS is what the node has."""
    status, name = item["status"], item["metadata"]["name"]
    used = around.usage.get(name, Usage())
    has, offers = status.get("capacity") or {}, status.get("usable") or {}
    cpu, memory = offers.get("cpu"), offers.get("memory")
    return [
        name,
        _node_word(status),
        ",".join(status.get("roles") or ()) or NONE,
        str(status.get("rank", 0)),
        _created(item),
        status.get("version") or UNKNOWN,
        status.get("address") or NONE,
        f"{has['cpu']:g}" if "cpu" in has else UNKNOWN,
        f"{used.cpu}/{UNKNOWN if cpu is None else f'{cpu:g}'}",
        f"{human_bytes(used.memory)}/{UNKNOWN if memory is None else human_bytes(memory)}",
        str(used.vms),
        status.get("hypervisor") or UNKNOWN,
        status.get("message") or "",
    ]


def _node_word(status: Object) -> str:
    """How the node is, as the one who answers sees it: its own report counts only while it is alive."""
    standing = (status.get("liveness") or {}).get("standing")
    words = [standing if standing and standing != Standing.READY else _ready_word(status)]
    words += [str(status["fencing"].get("phase"))] if status.get("fencing") else []
    drain = (status.get("drain") or {}).get("phase")
    words += [str(drain)] if drain and drain != "Cancelled" and status.get("unschedulable") else []
    words += ["SchedulingDisabled"] if status.get("unschedulable") else []
    return ",".join(words)


def _ready_word(status: Object) -> str:
    """Unknown as long as nobody has reported."""
    if not status.get("uid"):
        return "Unknown"
    return "Ready" if status.get("ready") else "NotReady"


def _pool(item: Object, around: Surroundings) -> list[Cell]:
    status = item["status"]
    known = bool(status.get("total"))
    return [
        item["metadata"]["name"],
        item["spec"].get("type") or PoolType.DIRECTORY.value,
        _pool_word(status),
        human_bytes(status.get("free") or 0) if known else UNKNOWN,
        human_bytes(status["total"]) if known else UNKNOWN,
        _created(item),
        status.get("message") or "",
    ]


def _pool_word(status: Mapping[str, Any]) -> str:
    """As `kubectl get nodes` does it: `Ready,NearFull`."""
    conditions = status.get("conditions") or ()
    near: Mapping[str, Any] = next((c for c in conditions if c.get("type") == ConditionType.NEAR_FULL), {})
    true = near.get("status") == ConditionStatus.TRUE
    return ",".join([_ready_word(status), *([str(near.get("reason"))] if true else [])])


def _image(item: Object, around: Surroundings) -> list[Cell]:
    spec = item["spec"]
    image = "/".join(str(part) for part in (spec.get("pool"), spec.get("image")) if part)
    source = spec.get("path") or image or NONE
    return [item["metadata"]["name"], source, _created(item), item["status"].get("message") or ""]


def _constraint(item: Object, around: Surroundings) -> list[Cell]:
    spec = item["spec"]
    return [
        item["metadata"]["name"],
        spec.get("type") or UNKNOWN,
        spec.get("enforcement") or "Required",
        _selector(spec.get("vms")),
        _selector(spec.get("nodes")),
        _created(item),
        item["status"].get("message") or "",
    ]


def _cluster(item: Object, around: Surroundings) -> list[Cell]:
    status = item["status"]
    return [
        item["metadata"]["name"],
        status.get("power") or UNKNOWN,
        str(around.nodes),
        _created(item),
        status.get("message") or "",
    ]


def _failover(item: Object, around: Surroundings) -> list[Cell]:
    """VMS: running again, of those that were taken. Times: since the node's last sign of life."""
    status = item["status"]
    seconds = status.get("seconds") or {}
    return [
        item["metadata"]["name"],
        status.get("node") or UNKNOWN,
        status.get("phase") or UNKNOWN,
        f"{status.get('running', 0)}/{len(status.get('vms') or ())}",
        *(_seconds(seconds.get(step)) for step in ("detected", "released", "running")),
        _created(item),
        status.get("cause") or UNKNOWN,
        status.get("message") or "",
    ]


def _migration(item: Object, around: Surroundings) -> list[Cell]:
    status = item["status"]
    share = (status.get("progress") or {}).get("percent")
    return [
        item["metadata"]["name"],
        status.get("vm") or UNKNOWN,
        status.get("sourceNode") or UNKNOWN,
        status.get("targetNode") or UNKNOWN,
        status.get("phase") or UNKNOWN,
        NONE if share is None else f"{share}%",
        _created(item),
        status.get("reason") or "",
        status.get("message") or "",
    ]


def _seconds(value: Any) -> str:
    return f"{value:.1f}s" if isinstance(value, (int, float)) else NONE


_CELLS: Mapping[Kind, Callable[[Object, Surroundings], list[Cell]]] = {
    Kind.VIRTUAL_MACHINE: _vm,
    Kind.NODE: _node,
    Kind.STORAGE_POOL: _pool,
    Kind.IMAGE: _image,
    Kind.PLACEMENT_CONSTRAINT: _constraint,
    Kind.CLUSTER: _cluster,
    Kind.FAILOVER: _failover,
    Kind.MIGRATION: _migration,
}


def _selector(selector: Any) -> str:
    """A selector in one word: names, then labels, then expressions."""
    if not isinstance(selector, Mapping):
        return NONE
    parts = [str(name) for name in selector.get("names") or ()]
    parts += [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    parts += [_expression(expression) for expression in selector.get("matchExpressions") or ()]
    return ",".join(parts) or NONE


def _expression(expression: Mapping[str, Any]) -> str:
    key, values = expression.get("key"), ",".join(str(v) for v in expression.get("values") or ())
    match expression.get("operator"):
        case "In":
            return f"{key} in ({values})"
        case "NotIn":
            return f"{key} notin ({values})"
        case "DoesNotExist":
            return f"!{key}"
        case _:
            return str(key)


def _created(item: Object) -> Cell:
    return item["metadata"].get("creationTimestamp") or None


def _cores(vm: Object) -> int | None:
    cpu = vm["spec"].get("cpu")
    cores = cpu.get("cores") if isinstance(cpu, Mapping) else None
    return cores if isinstance(cores, int) else None


def _bytes(value: Any) -> int | None:
    try:
        return None if value is None else parse_bytes(value)
    except ValueError:
        return None
