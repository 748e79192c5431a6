"""What `vcl describe failover` says: the story from the last sign of life to the guests, with its seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.resources.failover import VmStep
from vcl.describing import Facts, moment, part
from vcl.describing_node import attempt_lines
from vcl.sheet import Sheet

NOTHING = "-"

WORDS = {
    "Intent": "detected, intent recorded",
    "Fence": "fenced",
    "Settle": "fence settled",
    "BreakLocks": "stale locks broken",
    "Release": "claims released",
    "Finish": "nothing left to take",
    "Lift": "let in again",
    "Clear": "return settled",
}
"""The steps of a fencing in words; Intent is when the master was sure, and had written so."""


def failover_body(sheet: Sheet, facts: Facts) -> None:
    """Everything but the events."""
    status = part(facts.item, "status")
    sheet.field("Name", part(facts.item, "metadata").get("name"))
    sheet.field("Kind", facts.item.get("kind"))
    sheet.field("Node", status.get("node"))
    sheet.field("Status", status.get("phase"))
    sheet.optional("Message", status.get("message"))
    sheet.field("Cause", f"{status.get('cause')}: {status.get('reason')}")
    sheet.field("Began", moment(status.get("began"), facts.at))
    sheet.field("Returned", bool(status.get("returned")))
    sheet.optional("Missing", "\n".join(status.get("missing") or ()))
    sheet.optional("Failed attempts", "\n".join(attempt_lines(status)))
    _silence(sheet, part(status, "silence"))
    sheet.table("Fencing", ("After", "Step", "+", "Took", "By", "What"), _steps(status))
    vms = status.get("vms") or ()
    sheet.table("Virtual machines", ("Name", "Node", *_headings(), "Note"), [_vm(vm) for vm in vms])
    sheet.field("Seconds", "\n".join(_clocks(status)))


def _silence(sheet: Sheet, silence: Mapping[str, Any]) -> None:
    if not silence:
        return
    sheet.section("Silent at the intent")
    heard = silence.get("heard")
    sheet.field("Last heard (mesh)", "never" if heard is None else f"{heard:.1f} s before")
    sheet.field("Lease last changed (store)", f"{silence.get('lease') or 0.0:.1f} s before")
    sheet.end()


def _steps(status: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("0.0s", "last sign of life", NOTHING, NOTHING, NOTHING, str(status.get("node")))
    ]
    before = 0.0
    for mark in status.get("marks") or ():
        after, took = mark.get("after"), mark.get("seconds")
        step = str(mark.get("step"))
        known = isinstance(after, (int, float))
        rows.append(
            (
                f"{after:.1f}s" if known else mark.get("at") or NOTHING,
                WORDS.get(step, step),
                f"{after - before:.2f}s" if known else NOTHING,
                f"{took:.2f}s" if took else NOTHING,
                str(mark.get("by") or NOTHING),
                str(mark.get("detail") or NOTHING),
            )
        )
        before = after if known else before
    return rows


def _headings() -> Sequence[str]:
    return tuple(step.value for step in VmStep)


def _vm(vm: Mapping[str, Any]) -> tuple[object, ...]:
    """When it last got to each step, and how long that took since the one before."""
    cells: list[str] = []
    before: float | None = None
    latest = {mark.get("step"): mark.get("after") for mark in vm.get("marks") or ()}
    for step in _headings():
        after = latest.get(step)
        if after is None:
            cells.append(NOTHING)
            continue
        cells.append(f"{after:.1f}s" if before is None else f"{after:.1f}s (+{after - before:.1f})")
        before = after
    return vm.get("name"), vm.get("node") or NOTHING, *cells, vm.get("note") or NOTHING


def _clocks(status: Mapping[str, Any]) -> list[str]:
    """Whose clock the seconds are of; clocks of different hosts are not to be compared silently."""
    marks = [
        *(status.get("marks") or ()),
        *(m for vm in status.get("vms") or () for m in vm.get("marks") or ()),
    ]
    clocks = sorted({str(mark.get("by")) for mark in marks if mark.get("by")})
    steady = [by for by in clocks if "," not in by]
    node = status.get("node")
    lines = [
        f"since the last sign of life of {node}, by the steady clock of {' and '.join(steady) or 'nobody'}"
        + (" (each from when it heard it itself)" if len(steady) > 1 else ""),
        "of a VM: when the master saw it in the store; Running: its CPUs run, the guest may still boot;",
        "GuestUp: the guest agent inside answered (never, without one)",
    ]
    if len(steady) < len(clocks):
        others = ", ".join(by.partition(",")[0] for by in clocks if "," in by)
        lines.append(f"{others} did not hear {node}: by wall clocks, as exact as the hosts agree on the time")
    return lines
