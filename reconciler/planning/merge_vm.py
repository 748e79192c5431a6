"""The `status` of a merged VirtualMachine: what the manifest loop, the verbs, the master and the node say.

Invariant: nothing here decides what happens to a VM. What a node said of an earlier VM of the same name, or
while another node owned it, is never shown as this one's state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reconciler.planning.cluster_view import NodeLine
from reconciler.planning.conditions import Conditions, condition, merged_conditions
from reconciler.planning.desired import Desired, Wish, desired
from reconciler.planning.failures import blame, in_force
from reconciler.planning.liveness import Standing
from reconciler.planning.merge_fencing import waiting_words
from reconciler.planning.snapshots import Reader
from reconciler.resources import keys
from reconciler.resources.codec import encode
from reconciler.resources.failures import FailureRecord
from reconciler.resources.fencing import FenceRecord
from reconciler.resources.infrastructure import Power
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, ClaimPhase, Intent, SpecRecord
from reconciler.resources.status import ConditionStatus, ConditionType, Phase
from reconciler.resources.virtualmachine import VirtualMachineSpec

CLUSTER_NAME = "cluster"
"""The name of the one Cluster object."""

_BY_CLAIM = {
    ClaimPhase.PROVISIONING: Phase.PROVISIONING,
    ClaimPhase.STARTING: Phase.STARTING,
    ClaimPhase.RUNNING: Phase.STARTING,
}
_NEEDS_CLAIM = frozenset({Phase.RUNNING, Phase.PAUSED, Phase.STOPPING, Phase.STOPPED, Phase.MIGRATING})
_ON_A_NODE = frozenset({Phase.STARTING, Phase.RUNNING, Phase.PAUSED, Phase.STOPPING, Phase.MIGRATING})
_READY = frozenset({Phase.RUNNING, Phase.MIGRATING})
_NODE_FIELDS = (
    "observedGeneration",
    "runningGeneration",
    "startTime",
    "restarts",
    "ipAddresses",
    "vnc",
    "virtualization",
    "lastExit",
    "progress",
    "disks",
)
_LASTING_FIELDS = ("observedGeneration", "restarts", "lastExit")
"""What a node's report still says when the VM is not there any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """The records about one VM, those of an earlier VM of its name left out. `node`: the node's report."""

    record: SpecRecord
    intent: Intent
    wanted: Desired | None
    binding: Binding | None
    claim: Claim | None
    earlier: Claim | None
    node: Mapping[str, Any]
    master: Mapping[str, Any]
    fencing: bool
    fence: FenceRecord | None


def vm_status(reader: Reader, record: SpecRecord, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """The merged `status` of the VM whose spec record this is."""
    parts = _parts(reader, record)
    phase = _phase(parts)
    conditions = _conditions(parts, phase, manifest)
    here = parts.claim or (parts.binding if phase is not Phase.STOPPED else None)
    status: dict[str, Any] = {
        "phase": phase.value,
        "ready": phase in _READY and _is_true(conditions, ConditionType.READY),
        "node": here.node if here else None,
        "message": _message(parts, phase, manifest, reader.unreadable),
        "restarts": 0,
    }
    shown = _NODE_FIELDS if parts.claim else _LASTING_FIELDS
    status |= {key: parts.node[key] for key in shown if key in parts.node}
    failures = parts.node.get("failures")
    if isinstance(failures, Mapping) and failures.get("count"):
        status["failures"] = dict(failures)
    failed = _failed_on(reader, parts)
    if failed:
        status["failedOn"] = failed
    status |= _records(parts)
    status["conditions"] = [conditions[key] for key in sorted(conditions)]
    return status


def as_seen(merged: Mapping[str, Any], line_of: Callable[[str], NodeLine | None]) -> Mapping[str, Any]:
    """The merged VM as the node that drew up the lines sees it now: a node that has lost contact pauses its
    guests or ends them, and can't write that; what runs on a node that is silent, nobody knows."""
    status = merged["status"]
    line = line_of(str(status.get("node") or ""))
    if line is None or status["phase"] not in _ON_A_NODE or "claim" not in status:
        return merged
    if line.held:
        phase = Phase.STOPPING if line.ending else Phase.PAUSED
        words = f"{'ended' if line.ending else 'paused'}: {line.held}"
    elif line.standing == Standing.SILENT:
        phase, words = Phase.UNKNOWN, f"node {line.name}: {line.reason}"
    else:
        return merged
    conditions = merged_conditions(status)
    before = conditions.get(ConditionType.READY, {})
    ready = condition(
        ConditionType.READY,
        False,
        phase.value,
        message=words,
        generation=int(before.get("observedGeneration") or 0),
        since=line.since,
    )
    unknown = {"status": ConditionStatus.UNKNOWN.value} if phase is Phase.UNKNOWN else {}
    conditions[ConditionType.READY] = {**ready, **unknown}
    shown = [conditions[key] for key in sorted(conditions)]
    told = {"phase": phase.value, "ready": False, "message": words, "conditions": shown}
    return {**merged, "status": {**status, **told}}


def _failed_on(reader: Reader, parts: _Parts) -> list[dict[str, Any]]:
    """What failed on which node and still counts, but for its age: only who decides knows what time it is."""
    meta, found = parts.record.metadata, []
    prefix = keys.failures(meta.name)
    for key in reader.under(prefix):
        record = reader.record(key, FailureRecord)
        if record is None:
            continue
        now, reset = record.failures.last_time, parts.intent.reset_failures
        if in_force(record, uid=meta.uid, generation=meta.generation, reset=reset, now=now):
            whose = blame(record.failures.reason).value
            found.append({"node": key.removeprefix(prefix), "blame": whose, **encode(record.failures)})
    return found


def _parts(reader: Reader, record: SpecRecord) -> _Parts:
    name, uid = record.metadata.name, record.metadata.uid
    key = keys.spec(Kind.VIRTUAL_MACHINE, name)
    vm = reader.decoded(key, VirtualMachineSpec, record.spec)
    intent = reader.record(keys.intent(Kind.VIRTUAL_MACHINE, name), Intent) or Intent()
    last = reader.record(keys.claim(name), Claim)
    held = last if last is not None and last.node else None
    binding = reader.record(keys.binding(name), Binding)
    if binding is not None and binding.uid != uid:
        binding = None
    claim = held if held is not None and held.uid == uid else None
    owner = claim or binding
    node = reader.raw(keys.node_status(Kind.VIRTUAL_MACHINE, name)) or {}
    if node.get("uid") != uid or (owner is not None and node.get("node") != owner.node):
        node = {}
    master = reader.raw(keys.master_status(Kind.VIRTUAL_MACHINE, name)) or {}
    mine = last if last is not None and last.uid == uid else None
    wanted = desired(record, vm, intent, mine, power_on=power_on(reader)) if vm else None
    return _Parts(
        record=record,
        intent=intent,
        wanted=wanted,
        binding=binding,
        claim=claim,
        earlier=held if claim is None else None,
        node=node,
        master=master if master.get("uid") == uid else {},
        fencing=claim is not None and reader.exists(keys.fence(claim.node)),
        fence=reader.aside().record(keys.fence(claim.node), FenceRecord) if claim is not None else None,
    )


def power_on(reader: Reader) -> bool:
    """Whether the cluster's VMs may run at all."""
    if reader.exists(keys.POWER_INTENT):
        return False
    cluster = reader.aside().raw(keys.spec(Kind.CLUSTER, CLUSTER_NAME)) or {}
    spec = cluster.get("spec")
    return not isinstance(spec, Mapping) or spec.get("power", Power.ON) != Power.OFF


def _phase(parts: _Parts) -> Phase:
    if parts.record.metadata.deletion_timestamp:
        return Phase.TERMINATING
    if parts.fencing:
        return Phase.FENCING
    reported = _word(parts.node.get("phase"))
    if parts.claim is not None:
        return reported or _BY_CLAIM[parts.claim.phase]
    if parts.wanted is None:
        return Phase.UNKNOWN
    if parts.wanted.wish is not Wish.RUN:
        return Phase.STOPPED
    if parts.binding is None:
        return Phase.UNSCHEDULABLE if _refused(parts) else Phase.PENDING
    return Phase.PENDING if reported is None or reported in _NEEDS_CLAIM else reported


def _word(value: object) -> Phase | None:
    return Phase(value) if isinstance(value, str) and value in Phase._value2member_map_ else None


def _refused(parts: _Parts) -> bool:
    placed = merged_conditions(parts.master).get(ConditionType.PLACED)
    return placed is not None and placed.get("status") == ConditionStatus.FALSE


def _is_true(conditions: Conditions, kind: ConditionType) -> bool:
    return conditions.get(kind, {}).get("status") == ConditionStatus.TRUE


def _conditions(parts: _Parts, phase: Phase, manifest: Mapping[str, Any] | None) -> Conditions:
    """Everybody's conditions by type; Ready and ManifestValid are always there, so that one can wait."""
    found = merged_conditions(parts.node, parts.master, manifest_conditions(parts.record, manifest))
    stale = phase not in _READY and _is_true(found, ConditionType.READY)
    if stale or ConditionType.READY not in found:
        generation = parts.record.metadata.generation
        found[ConditionType.READY] = condition(ConditionType.READY, False, phase.value, generation=generation)
    return found


def manifest_conditions(record: SpecRecord, manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """ManifestValid, from what the manifest loop says of the file that defines the object."""
    valid = manifest is None or bool(manifest.get("valid"))
    changed = "" if manifest is None else str(manifest.get("since") or "")
    return {
        "conditions": [
            condition(
                ConditionType.MANIFEST_VALID,
                valid,
                "Accepted" if valid else "Invalid",
                message="" if manifest is None else manifest_message(manifest),
                generation=record.metadata.generation,
                since=changed or (record.metadata.creation_timestamp if valid else ""),
            )
        ]
    }


def manifest_message(manifest: Mapping[str, Any]) -> str:
    """What is wrong with the manifest, in one line; a warning when it is valid."""
    problems = manifest.get("problems")
    first = str(problems[0]).partition("\n")[0] if isinstance(problems, list) and problems else ""
    return str(manifest.get("message") or "") or first


def _message(parts: _Parts, phase: Phase, manifest: Mapping[str, Any] | None, unreadable: list[str]) -> str:
    """The first that has something to say, the nearest to the person first."""
    reported = str(parts.node.get("message") or "")
    if phase is Phase.TERMINATING:
        return reported or _waiting_to_end(parts)
    said = []
    if manifest is not None and not manifest.get("valid"):
        said.append(
            manifest_message(manifest) or "its manifest is not valid; the last valid spec stays in force"
        )
    if unreadable:
        said.append(f"the store's record {unreadable[0]} cannot be read; `vcl doctor` says what to do")
    if phase is Phase.FENCING and parts.claim:
        said.append(waiting_words(parts.fence, parts.record.metadata.name, parts.claim.node))
    if parts.earlier is not None:
        said.append(f"an earlier VM of this name still has to end on node {parts.earlier.node}")
    if _refused(parts) or (phase is Phase.PENDING and parts.binding is None):
        said.append(str(parts.master.get("message") or ""))
    if phase is Phase.STOPPED and parts.wanted is not None and parts.claim is None:
        said.append(parts.wanted.reason)
    said.append(reported)
    return next((text for text in said if text), "")


def _waiting_to_end(parts: _Parts) -> str:
    owner = parts.claim or parts.earlier
    return f"waiting for it to stop on node {owner.node}" if owner else "being removed"


def _records(parts: _Parts) -> dict[str, Any]:
    """source, intent, binding and claim, where there is one."""
    found: dict[str, Any] = {"source": {"path": parts.record.source.path, "line": parts.record.source.line}}
    intent = _intent(parts.intent, parts.claim)
    if intent:
        found["intent"] = intent
    if parts.binding is not None:
        binding = parts.binding
        found["binding"] = {"node": binding.node, "bound": binding.bound, "reason": binding.reason}
    if parts.claim is not None:
        claim = parts.claim
        found["claim"] = {
            "node": claim.node,
            "phase": claim.phase.value,
            "disks": list(claim.disks),
            "clients": list(claim.clients),
            "claimed": claim.claimed,
            **({"start": claim.start} if claim.start else {}),
            **({"restart": claim.restart} if claim.restart else {}),
            **({"reset": claim.reset} if claim.reset else {}),
        }
    return found


def _intent(intent: Intent, claim: Claim | None) -> dict[str, Any]:
    """What a verb asked for and still matters; a restart that was honoured does not."""
    found: dict[str, Any] = {}
    if intent.run is not None:
        found["run"] = intent.run
    if intent.paused:
        found["paused"] = True
    if intent.restart is not None and claim is not None and claim.restart != intent.restart:
        found["restart"] = intent.restart
    if intent.reset is not None and claim is not None and claim.reset != intent.reset:
        found["reset"] = intent.reset
    if found:
        found |= {"force": True} if intent.force else {}
        found["requested"] = intent.requested
    return found
