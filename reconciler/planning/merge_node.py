"""The `status` of a merged Node: what the node reports, what its manifest says, and what is heard of it.

The first two are in the store and the same for all; `with_liveness` adds how the node that answers sees it.
Invariant: a report is only as good as its node's last sign of life, so `ready` needs both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from reconciler.planning.cluster_view import NodeLine
from reconciler.planning.conditions import condition, merged_conditions
from reconciler.planning.liveness import Standing
from reconciler.planning.merge_fencing import fencing_status, with_fencing
from reconciler.planning.node_capacity import Amount, total, usable
from reconciler.planning.node_intents import in_force
from reconciler.planning.snapshots import Reader
from reconciler.resources import keys
from reconciler.resources.codec import decode, encode
from reconciler.resources.errors import InvalidInput
from reconciler.resources.infrastructure import NodeSpec
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import Member
from reconciler.resources.records import NodeIntent, SpecRecord
from reconciler.resources.status import ConditionStatus, ConditionType, NodeMasterStatus, NodeStatus

T = TypeVar("T")

NOT_HERE = ("name", "rank", "address", "version", "schemas", "master", "held", "ending")
"""What a node's line tells that has a place of its own in the status."""


def node_status(reader: Reader, name: str, record: SpecRecord | None) -> dict[str, Any]:
    """What the store says of the node."""
    report = reader.raw(keys.node_status(Kind.NODE, name)) or {}
    member = reader.record(keys.member(name), Member)
    spec = record.spec if record else {}
    status = with_ready(report, record, "" if member is None else "it has not reported yet")
    epoch = reader.aside().raw(keys.EPOCH) or {}
    fencing = fencing_status(reader, name)
    address = spec.get("address") or (member.address if member else "") or status.get("address") or ""
    return {
        **status,
        "version": status.get("version") or (member.version if member else ""),
        "rank": spec.get("rank", member.rank if member else 0),
        "address": address,
        "member": member is not None,
        **_capacity(spec, report),
        "roles": ["master"] if epoch.get("holder") == name else [],
        **_in_force(reader, name, spec),
        **_drain(reader, name, str(status.get("message") or "")),
        **({"fencing": fencing} if fencing else {}),
    }


def with_ready(status: dict[str, Any], record: SpecRecord | None, silent: str = "") -> dict[str, Any]:
    """The report with a Ready condition, also when nobody has reported yet (`silent`: what to say then)."""
    if not status:
        status = {"ready": False, "message": silent or "no node has reported on it yet"}
    found = merged_conditions(status)
    if ConditionType.READY not in found:
        ready, message = bool(status.get("ready")), str(status.get("message") or "")
        generation = record.metadata.generation if record else 0
        reason = "Reported" if ready else "NotReady"
        found[ConditionType.READY] = condition(
            ConditionType.READY, ready, reason, message=message, generation=generation
        )
    return {**status, "conditions": [found[key] for key in sorted(found)]}


def with_liveness(merged: Mapping[str, Any], line: NodeLine) -> dict[str, Any]:
    """The merged Node as the node that drew up `line` sees it now."""
    status = merged["status"]
    line = _in_order(line, status)
    alive = line.standing == Standing.READY
    message = line.held or str(status.get("message") or "")
    told = {key: value for key, value in encode(line).items() if key not in NOT_HERE}
    return {
        **merged,
        "status": {
            **status,
            "ready": bool(status.get("ready")) and alive,
            "message": with_fencing(status, message or line.reason if alive else line.reason),
            "version": line.version or status.get("version") or "",
            "roles": ["master"] if line.master else [],
            "master": line.master,
            "liveness": told,
            "conditions": _conditions(status, line),
        },
    }


def _in_order(line: NodeLine, status: Mapping[str, Any]) -> NodeLine:
    """A daemon that was stopped because its host goes down says nothing of guests that run on."""
    shutdown = (status.get("intent") or {}).get("shutdown")
    if line.standing != Standing.STOPPED or shutdown is None:
        return line
    return replace(line, reason=f"its daemon was stopped, as its host goes down ({shutdown['policy']})")


def _conditions(status: Mapping[str, Any], line: NodeLine) -> list[dict[str, Any]]:
    """Those of the report, and Ready only while the node is."""
    found = merged_conditions(status)
    reported = found.get(ConditionType.READY, {})
    if line.standing == Standing.READY:
        since = max(str(reported.get("lastTransitionTime") or ""), line.since)
        found[ConditionType.READY] = {**reported, **({"lastTransitionTime": since} if since else {})}
    else:
        known = line.standing in (Standing.DEGRADED, Standing.STOPPED)
        same = reported.get("status") == ConditionStatus.FALSE and known
        since = str(reported.get("lastTransitionTime") or "") if same else line.since
        generation = int(reported.get("observedGeneration") or 0)
        gone = condition(
            ConditionType.READY,
            False,
            line.standing,
            message=line.reason,
            generation=generation,
            since=since,
        )
        found[ConditionType.READY] = gone if known else {**gone, "status": ConditionStatus.UNKNOWN.value}
    return [found[key] for key in sorted(found)]


def _capacity(spec: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    """`capacity`: all that the node has; `usable`: what VMs may use of it, `cpu` in vCPUs."""
    node, told = _decoded(NodeSpec, spec), _decoded(NodeStatus, report) or NodeStatus(uid="", ready=False)
    if node is None:
        return {}
    has = total(node, told)
    if not has.cpu and not has.memory:
        return {}
    return {"capacity": _amount(has), "usable": _amount(usable(node, told))}


def _in_force(reader: Reader, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Whether it takes VMs, and what verbs asked for on top of the manifest."""
    intent = reader.record(keys.intent(Kind.NODE, name), NodeIntent) or NodeIntent()
    now = in_force(_decoded(NodeSpec, spec) or NodeSpec(), intent)
    asked = {
        "unschedulable": intent.unschedulable,
        "maintenance": intent.maintenance,
        "drain": intent.drain,
        "bringBack": intent.bring_back or None,
        "shutdown": encode(intent.shutdown) if intent.shutdown is not None else None,
        "requested": intent.requested or None,
    }
    shown = {key: value for key, value in asked.items() if value is not None}
    return {
        "unschedulable": now.spec.unschedulable or now.spec.maintenance,
        "maintenance": now.spec.maintenance,
        **({"intent": shown} if shown else {}),
    }


def _drain(reader: Reader, name: str, message: str) -> dict[str, Any]:
    """How the last drain goes, or went, and, when nothing else is to be said, what it waits for."""
    record = reader.record(keys.master_status(Kind.NODE, name), NodeMasterStatus)
    if record is None:
        return {}
    ended = "Cancelled" if record.cancelled else "Drained"
    phase = ended if record.finished else "Draining"
    waiting = [{"vm": each.vm, "reason": each.reason, "going": each.going} for each in record.waiting]
    shown = {
        "id": record.drain,
        "phase": phase,
        "started": record.started,
        "finished": record.finished or None,
    }
    found: dict[str, Any] = {"drain": {**shown, "waiting": waiting, "away": list(record.away)}}
    if not message and waiting and not record.finished:
        more = f", and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        found["message"] = f"drained; VM {waiting[0]['vm']} is still here: {waiting[0]['reason']}{more}"
    return found


def _amount(amount: Amount) -> dict[str, Any]:
    whole = int(amount.cpu) if float(amount.cpu).is_integer() else amount.cpu
    return {"cpu": whole, "memory": amount.memory}


def _decoded(cls: type[T], data: Mapping[str, Any]) -> T | None:
    try:
        return decode(cls, data)
    except InvalidInput:
        return None
