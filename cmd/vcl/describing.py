"""What `vcl describe` says about an object of any kind; virtual machines and nodes have modules of their own.

Secrets stay out: of cloud-init and domain XML only the size is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.resources.quantity import human_bytes
from vcl.durations import age, human_duration
from vcl.sheet import Sheet
from vcl.verbs.events import seen

Object = dict[str, Any]

SIZES = ("total", "free")
"""The fields of a status that count bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything a description is made of. `vms`: all VMs, for nodes only. `at`: the time of ages."""

    item: Object
    events: Sequence[Object]
    vms: Sequence[Object]
    at: datetime


def describe(facts: Facts) -> str:
    """The description as text."""
    from vcl.describing_node import node_body
    from vcl.describing_vm import vm_body

    sheet = Sheet()
    if facts.item.get("kind") == "Failover":
        from vcl.describing_failover import failover_body

        failover_body(sheet, facts)
        _events(sheet, facts)
        return sheet.text()
    _head(sheet, facts)
    match facts.item.get("kind"):
        case "VirtualMachine":
            vm_body(sheet, facts)
        case "Node":
            node_body(sheet, facts)
        case _:
            _other_body(sheet, facts)
    _conditions(sheet, facts)
    _events(sheet, facts)
    return sheet.text()


def part(item: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A map inside a map; empty when absent."""
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def moment(timestamp: object, at: datetime) -> str:
    """`2026-01-31T12:00:00Z (5m ago)`, or nothing."""
    return f"{timestamp} ({age(timestamp, at)} ago)" if timestamp else ""


def until(timestamp: object, at: datetime) -> str:
    """`2026-01-31T12:00:00Z (in 5s)`, or nothing."""
    if not isinstance(timestamp, str) or not timestamp:
        return ""
    try:
        left = (datetime.fromisoformat(timestamp) - at).total_seconds()
    except (ValueError, TypeError):
        return timestamp
    return f"{timestamp} (in {human_duration(left)})" if left > 0 else f"{timestamp} (now)"


def _head(sheet: Sheet, facts: Facts) -> None:
    metadata, status = part(facts.item, "metadata"), part(facts.item, "status")
    sheet.field("Name", metadata.get("name"))
    sheet.field("Kind", facts.item.get("kind"))
    sheet.mapping("Labels", metadata.get("labels"))
    sheet.mapping("Annotations", metadata.get("annotations"))
    sheet.field("Created", moment(metadata.get("creationTimestamp"), facts.at))
    sheet.optional("Deleted", moment(metadata.get("deletionTimestamp"), facts.at))
    sheet.field("UID", metadata.get("uid"))
    sheet.field("Generation", _generations(metadata, status))
    source = part(status, "source")
    sheet.field("Manifest", f"{source['path']}, line {source.get('line', 1)}" if source.get("path") else None)


def _generations(metadata: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    told = [
        f"{word} {status[key]}"
        for key, word in (("observedGeneration", "observed"), ("runningGeneration", "running"))
        if status.get(key)
    ]
    return f"{metadata.get('generation', 1)}" + (f" ({', '.join(told)})" if told else "")


def _other_body(sheet: Sheet, facts: Facts) -> None:
    spec = part(facts.item, "spec")
    if spec:
        sheet.section("Spec")
        sheet.tree(spec)
        sheet.end()
    else:
        sheet.field("Spec", None)
    status = {
        k: human_bytes(v) if k in SIZES and isinstance(v, int) else v
        for k, v in part(facts.item, "status").items()
        if k not in ("conditions", "source", "observedGeneration", "uid")
    }
    if status:
        sheet.section("Status")
        sheet.tree(status)
        sheet.end()


def _conditions(sheet: Sheet, facts: Facts) -> None:
    rows = [
        (
            c.get("type"),
            c.get("status"),
            c.get("reason"),
            age(c.get("lastTransitionTime"), facts.at),
            c.get("message"),
        )
        for c in part(facts.item, "status").get("conditions") or []
    ]
    sheet.table("Conditions", ("Type", "Status", "Reason", "Age", "Message"), rows)


def _events(sheet: Sheet, facts: Facts) -> None:
    rows = [
        (e.get("type"), e.get("reason"), seen(e, facts.at), e.get("node"), e.get("message"))
        for e in facts.events
    ]
    sheet.table("Events", ("Type", "Reason", "Age", "From", "Message"), rows)
