"""What `vcl describe node` says: what it has, what runs on it, and what runs there that vcl did not make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.resources.quantity import human_bytes, parse_bytes
from vcl.cluster_status import seconds
from vcl.describing import Facts, moment, part
from vcl.sheet import Sheet


def node_body(sheet: Sheet, facts: Facts) -> None:
    """Everything between the head and the conditions."""
    spec, status = part(facts.item, "spec"), part(facts.item, "status")
    sheet.field("Ready", bool(status.get("ready")))
    sheet.field("Master", "master" in (status.get("roles") or ()))
    sheet.optional("Message", status.get("message"))
    sheet.field("Schedulable", not status.get("unschedulable", spec.get("unschedulable")))
    sheet.field("Address", status.get("address") or spec.get("address"))
    sheet.field("Rank", status.get("rank", spec.get("rank", 0)))
    sheet.optional("Taints", "\n".join(_taint(taint) for taint in spec.get("taints") or []))
    _drain(sheet, part(status, "drain"), facts)
    _liveness(sheet, part(status, "liveness"), facts)
    _fencing(sheet, part(status, "fencing"), facts)
    sheet.section("System")
    sheet.optional("Heartbeat", moment(status.get("heartbeatTime"), facts.at))
    for label, key in (
        ("vcl", "version"),
        ("Hypervisor", "hypervisor"),
        ("Architecture", "architecture"),
        ("Virtualization", "virtualization"),
    ):
        sheet.optional(label, status.get(key))
    load, free = part(status, "liveness").get("load"), part(status, "liveness").get("diskFree")
    sheet.optional("Load", None if load is None else f"{load:.2f} of each CPU")
    sheet.optional("Disk free", human_bytes(free) if free else None)
    for name, state in sorted(part(status, "controllers").items()):
        sheet.field(f"Controller {name}", state)
    for name, there in sorted(part(status, "networks").items()):
        for word in ("bridges", "networks"):
            if word not in (there.get("unknown") or ()):
                sheet.field(f"{word.capitalize()} of {name}", ", ".join(there.get(word) or ()) or "none")
    sheet.end()
    mine = _vms(facts)
    _capacity(sheet, spec, status, mine)
    rows = [_vm_row(vm) for vm in mine]
    sheet.table("Virtual machines", ("Name", "Status", "CPU", "Memory"), rows)
    foreign = [
        (d.get("name"), d.get("phase"), d.get("vcpus"), human_bytes(d.get("memory") or 0))
        for d in status.get("foreignDomains") or []
    ]
    sheet.table("Domains not made by vcl", ("Name", "Status", "CPU", "Memory"), foreign)


def _liveness(sheet: Sheet, seen: Mapping[str, Any], facts: Facts) -> None:
    """As the node that answers sees it; ages are of the last sign of life on each channel."""
    if not seen:
        return
    sheet.section("Liveness")
    sheet.field("Standing", f"{seen.get('standing')}{' (it answers itself)' if seen.get('here') else ''}")
    sheet.optional("Reason", seen.get("reason"))
    sheet.optional("Since", moment(seen.get("since"), facts.at))
    link = part(seen, "link")
    if link:
        why = f": {link['reason']}" if link.get("reason") else ""
        sheet.field("Link", f"{link.get('state')} for {seconds(link.get('seconds'))}{why}")
    if not seen.get("here"):
        sheet.field("Last heartbeat (mesh)", _ago(seen.get("heartbeatAge")))
        sheet.field("Last lease (store)", _ago(seen.get("leaseAge")))
    sheet.end()


def _drain(sheet: Sheet, drain: Mapping[str, Any], facts: Facts) -> None:
    """How the last drain goes, or went."""
    if not drain:
        return
    sheet.section("Drain")
    sheet.field("Status", drain.get("phase"))
    sheet.optional("Began", moment(drain.get("started"), facts.at))
    sheet.optional("Ended", moment(drain.get("finished"), facts.at))
    sheet.optional("Went away", ", ".join(drain.get("away") or ()))
    waiting = [(each.get("vm"), each.get("reason")) for each in drain.get("waiting") or ()]
    sheet.table("Still to go" if drain.get("phase") == "Draining" else "Not back yet", ("VM", "Why"), waiting)
    sheet.end()


def _fencing(sheet: Sheet, fencing: Mapping[str, Any], facts: Facts) -> None:
    """How far it is, what it lacks, and, once nothing is left to take, what the node's return waits for."""
    if not fencing:
        return
    sheet.section("Fencing")
    sheet.field("Status", fencing.get("phase"))
    sheet.optional("Incident", fencing.get("incident"))
    sheet.optional("Cause", fencing.get("cause"))
    sheet.optional("Reason", fencing.get("reason"))
    sheet.optional("Began", moment(fencing.get("began"), facts.at))
    sheet.optional("Boot id", fencing.get("bootId"))
    sheet.optional("Proofs", "\n".join(fencing.get("proofs") or ()))
    sheet.optional("Failed attempts", "\n".join(attempt_lines(fencing)))
    sheet.optional("Missing", "\n".join(fencing.get("missing") or ()))
    sheet.optional("Taken from it", ", ".join(fencing.get("vms") or ()))
    sheet.optional("Return waits for", fencing.get("waitsFor"))
    steps = [
        (step.get("step"), step.get("at"), step.get("by"), _seconds(step.get("seconds")), step.get("detail"))
        for step in fencing.get("steps") or ()
    ]
    sheet.table("Steps", ("Step", "At", "By", "Took", "What"), steps)
    sheet.end()


def attempt_lines(fencing: Mapping[str, Any], *, but: str = "") -> list[str]:
    """One line for each fencer that has failed; not of the one called `but`."""
    found = []
    for attempt in fencing.get("attempts") or ():
        if attempt.get("fencer") == but:
            continue
        count = attempt.get("failures") or 0
        times = "once" if count == 1 else f"{count} times"
        found.append(
            f"{attempt.get('fencer')}: failed {times}, last at {attempt.get('at')}: {attempt.get('error')}"
        )
    return found


def _seconds(value: object) -> str:
    return f"{value:.1f}s" if isinstance(value, (int, float)) and value else "-"


def _ago(age: object) -> str:
    return f"{seconds(age)} ago" if isinstance(age, (int, float)) else "none since this daemon started"


def _capacity(
    sheet: Sheet, spec: Mapping[str, Any], status: Mapping[str, Any], vms: Sequence[Mapping[str, Any]]
) -> None:
    has, offers = part(status, "capacity"), part(status, "usable")
    cores = sum(int(part(part(vm, "spec"), "cpu").get("cores") or 0) for vm in vms)
    memory = sum(_bytes(part(vm, "spec").get("memory")) for vm in vms)
    sheet.section("Capacity")
    if not has:
        sheet.field("CPUs", None)
        sheet.field("Memory", None)
    else:
        sheet.field("CPUs", has.get("cpu"))
        sheet.field("Memory", human_bytes(has.get("memory") or 0))
        sheet.field("vCPUs used", f"{cores} of {offers.get('cpu')} usable")
        sheet.field(
            "Memory used", f"{human_bytes(memory)} of {human_bytes(offers.get('memory') or 0)} usable"
        )
    for word in ("reserved", "overcommit"):
        sheet.optional(word.capitalize(), ", ".join(f"{k}={v}" for k, v in sorted(part(spec, word).items())))
    sheet.end()


def _vms(facts: Facts) -> list[Mapping[str, Any]]:
    name = part(facts.item, "metadata").get("name")
    mine = [vm for vm in facts.vms if part(vm, "status").get("node") == name]
    return sorted(mine, key=lambda vm: str(part(vm, "metadata").get("name")))


def _vm_row(vm: Mapping[str, Any]) -> tuple[object, ...]:
    spec = part(vm, "spec")
    return (
        part(vm, "metadata").get("name"),
        part(vm, "status").get("phase"),
        part(spec, "cpu").get("cores"),
        spec.get("memory"),
    )


def _taint(taint: Mapping[str, Any]) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint.get('key')}{value}:{taint.get('effect') or 'NoSchedule'}"


def _bytes(value: object) -> int:
    """Bytes of a quantity or a number; what cannot be read counts nothing."""
    try:
        return parse_bytes(value) if isinstance(value, (str, int)) else 0
    except ValueError:
        return 0
