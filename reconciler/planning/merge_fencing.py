"""Fencing and failovers as people see them: in the Node, in each VM that waits, and as a Failover object.

Read from the records at the time of the question, so that it is true while masters change. Invariant: what a
VM is told to wait for is what the fencing itself recorded as missing, and nothing is promised here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.planning.failover import first, last_running, phase_of, up
from reconciler.planning.snapshots import Reader, Snapshot
from reconciler.resources import keys
from reconciler.resources.codec import encode
from reconciler.resources.failover import FailoverPhase, FailoverRecord, VmFailover, VmStep
from reconciler.resources.fencing import (
    Attempt,
    Blocklisted,
    ConfirmedDown,
    FenceMethod,
    FenceRecord,
    PoweredOff,
    ReturnRecord,
    StepName,
    WatchdogExpired,
)
from reconciler.resources.kinds import API_VERSION, Kind
from reconciler.resources.records import Session

FENCING = "Fencing"
FENCED = "Fenced"
"""The node's words: something is still to be taken from it, or nothing is and it has not returned."""
SHORT = 160
"""Characters of one fencer's error in a VM's message; `vcl describe node` has all of it."""


def fencing_status(reader: Reader, node: str) -> dict[str, Any]:
    """`status.fencing` of a Node, empty when it is not being fenced. The phase is all that is known when the
    record cannot be read."""
    if not reader.exists(keys.fence(node)):
        return {}
    aside = reader.aside()
    record = aside.record(keys.fence(node), FenceRecord)
    if record is None:
        return {"phase": FENCING, "message": f"the store's record {keys.fence(node)} cannot be read"}
    fenced = bool(record.released)
    shown = encode(record)
    kept = ("incident", "cause", "reason", "epoch", "session", "bootId", "began", "silence", "steps", "vms")
    return {
        "phase": FENCED if fenced else FENCING,
        "message": _node_message(aside, record),
        **{key: shown[key] for key in kept if shown.get(key)},
        "proofs": [proof_words(proof) for proof in (*record.blocklisted, *record.host_proofs)],
        "attempts": encode(record.attempts),
        "missing": list(record.missing),
        **({"waitsFor": _waits_for(aside, record)} if fenced else {}),
    }


def waiting_words(record: FenceRecord | None, vm: str, node: str) -> str:
    """Why a VM on a node that is being fenced is not started elsewhere yet."""
    if record is None:
        return f"node {node} is being fenced"
    begin = f"node {node} is being fenced ({record.incident})"
    mine = [line.partition(": ")[2] for line in record.missing if line.startswith(f"{vm}: ")]
    failed = [_failure(attempt) for attempt in record.attempts if _tells(attempt)]
    asks = any(attempt.fencer == FenceMethod.MANUAL for attempt in record.attempts) and mine
    cure = [f"if {node} is surely off: vcl node confirm-down {node}"] if asks else []
    told = "; ".join([*mine, *failed, *cure])
    return f"{begin}: {told}" if told else begin


def proof_words(proof: Blocklisted | PoweredOff | WatchdogExpired | ConfirmedDown) -> str:
    """A proof, in words."""
    match proof:
        case Blocklisted():
            state = "settled, stale locks broken" if proof.unlocked else "settled" if proof.settled else "new"
            state = "lifted at its return" if proof.lifted else state
            left = f": {', '.join(proof.entries)}" if proof.entries else ""
            return f"blocklisted in Ceph cluster {proof.fsid} ({state}){left}"
        case PoweredOff():
            return f"switched off by {proof.agent}"
        case WatchdogExpired():
            return f"reset by its watchdog {proof.device}, which nothing fed for {proof.seconds:g} s"
        case ConfirmedDown():
            return f"{proof.by} says that this boot of it is down ({proof.boot_id})"


def failover_object(snapshot: Snapshot, name: str) -> dict[str, Any] | None:
    """The merged Failover, or None when there is none."""
    key = keys.failover(name)
    reader = Reader(snapshot)
    if not reader.exists(key):
        return None
    record = reader.record(key, FailoverRecord)
    if record is None:
        status: dict[str, Any] = {"message": f"the store's record {key} cannot be read"}
        metadata: dict[str, Any] = {"name": name, "uid": "", "generation": 1}
    else:
        status = _failover_status(record)
        metadata = {"name": name, "uid": record.id, "generation": 1, "creationTimestamp": record.began}
    metadata["resourceVersion"] = str(reader.revision)
    return {
        "apiVersion": API_VERSION,
        "kind": Kind.FAILOVER.value,
        "metadata": metadata,
        "spec": {},
        "status": status,
    }


def _failover_status(record: FailoverRecord) -> dict[str, Any]:
    shown: dict[str, Any] = encode(record)
    for hidden in ("incident", "id", "number"):
        shown.pop(hidden, None)
    times = {
        "detected": first(record, StepName.INTENT),
        "fenced": first(record, StepName.FENCE),
        "settled": first(record, StepName.SETTLE),
        "locksBroken": first(record, StepName.BREAK_LOCKS),
        "released": first(record, StepName.RELEASE),
        "finished": first(record, StepName.FINISH),
        "running": last_running(record),
    }
    return {
        **shown,
        "phase": phase_of(record).value,
        "message": _failover_message(record),
        "running": up(record),
        "seconds": {key: value for key, value in times.items() if value is not None},
    }


def _failover_message(record: FailoverRecord) -> str:
    match phase_of(record):
        case FailoverPhase.WAITING | FailoverPhase.FENCING:
            failed = [_failure(attempt) for attempt in record.attempts if _tells(attempt)]
            return "; ".join([*record.missing, *failed])
        case FailoverPhase.STARTING:
            waiting = [vm for vm in record.vms if not (vm.ended or vm.reached(VmStep.RUNNING))]
            return "; ".join(_vm_words(vm) for vm in waiting)
        case FailoverPhase.COMPLETED:
            return "" if record.returned else f"{record.node} has not returned"


def _vm_words(vm: VmFailover) -> str:
    where = f" on {vm.node}" if vm.node else ""
    return f"{vm.name}{where}: {vm.note}" if vm.note else f"{vm.name}{where}: being started"


def _tells(attempt: Attempt) -> bool:
    """Whether its failure is news: that nobody has confirmed anything is none."""
    return bool(attempt.failures and attempt.error) and attempt.fencer != FenceMethod.MANUAL


def _failure(attempt: Attempt) -> str:
    error = attempt.error if len(attempt.error) <= SHORT else attempt.error[: SHORT - 3] + "..."
    times = f" {attempt.failures} times" if attempt.failures > 1 else ""
    return f"{attempt.fencer} failed{times}: {error}"


def _node_message(reader: Reader, record: FenceRecord) -> str:
    if record.released:
        return f"fenced ({record.incident}): {_waits_for(reader, record)}"
    failed = [_failure(attempt) for attempt in record.attempts if _tells(attempt)]
    told = "; ".join([*record.missing[:3], *failed])
    more = f"; and {len(record.missing) - 3} VMs more" if len(record.missing) > 3 else ""
    return f"being fenced ({record.incident}): {told or 'under way'}{more}"


def _waits_for(reader: Reader, record: FenceRecord) -> str:
    session = reader.record(keys.session(record.node), Session)
    if session is None or session.session <= record.session:
        return "it has not come back"
    back = reader.record(keys.returned(record.node), ReturnRecord)
    if back is None or back.session != session.session:
        return "it is back, and has not shown yet that nothing is left running on it"
    return "it is back and empty; its return is being settled"


def with_fencing(status: Mapping[str, Any], reason: str) -> str:
    """A node's message as the one who answers sees it: the fencing first."""
    fencing = status.get("fencing")
    told = str(fencing.get("message") or "") if isinstance(fencing, Mapping) else ""
    return "; ".join(words for words in (told, reason) if words)
