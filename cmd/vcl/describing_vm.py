"""What `vcl describe vm` says: why it is as it is, where, what it has, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vcl.describing import Facts, moment, part, until
from vcl.failures import in_force
from vcl.sheet import Sheet


def vm_body(sheet: Sheet, facts: Facts) -> None:
    """Everything between the head and the conditions."""
    spec, status = part(facts.item, "spec"), part(facts.item, "status")
    sheet.field("Status", status.get("phase") or "Unknown")
    sheet.field("Ready", bool(status.get("ready")))
    sheet.optional("Progress", status.get("progress"))
    sheet.optional("Message", status.get("message"))
    sheet.optional("Asked by verbs", _intent(part(status, "intent")))
    _placement(sheet, facts, status)
    _guest(sheet, facts, spec, status)
    _hardware(sheet, facts, spec, str(part(facts.item, "metadata").get("name")))
    _failures(sheet, facts, part(status, "failures"))
    _failed_on(sheet, facts, status.get("failedOn") or [])


def _intent(intent: Mapping[str, Any]) -> str:
    words = [str(intent["run"]).lower()] if intent.get("run") else []
    words += ["pause"] if intent.get("paused") else []
    words += [word for word in ("restart", "reset") if intent.get(word)]
    return ", ".join(words)


def _placement(sheet: Sheet, facts: Facts, status: Mapping[str, Any]) -> None:
    binding, claim = part(status, "binding"), part(status, "claim")
    sheet.section("Placement")
    sheet.field("Node", status.get("node") or binding.get("node"))
    sheet.optional("Bound", moment(binding.get("bound"), facts.at))
    sheet.optional("Reason", binding.get("reason"))
    if claim.get("node"):
        sheet.field("Claim", f"{claim['node']}, {claim.get('phase', '')}".rstrip(", "))
        sheet.optional("Claimed", moment(claim.get("claimed"), facts.at))
    sheet.end()
    _rejections(sheet, status)


def _rejections(sheet: Sheet, status: Mapping[str, Any]) -> None:
    """Each node and why the VM is not there, when it has no place."""
    told = (c for c in status.get("conditions") or [] if c.get("type") == "Placed")
    placed: Mapping[str, Any] = next(told, {})
    if placed.get("status") != "False" or not placed.get("message"):
        return
    from reconciler.planning.reasons import by_node

    rows = [(each.node or "<all>", each.reason) for each in by_node(str(placed["message"]))]
    sheet.table("Why it has no place", ("Node", "Reason"), rows)


def _guest(sheet: Sheet, facts: Facts, spec: Mapping[str, Any], status: Mapping[str, Any]) -> None:
    sheet.section("Guest")
    sheet.field("Started", moment(status.get("startTime"), facts.at))
    sheet.field("Restarts", status.get("restarts") or 0)
    sheet.field("IP addresses", ", ".join(status.get("ipAddresses") or []))
    sheet.field("VNC", status.get("vnc"))
    sheet.optional("Virtualization", status.get("virtualization"))
    sheet.optional("Last exit", status.get("lastExit"))
    sheet.field("Run strategy", spec.get("runStrategy") or "Always")
    sheet.end()


def _hardware(sheet: Sheet, facts: Facts, spec: Mapping[str, Any], name: str) -> None:
    cpu = part(spec, "cpu")
    sheet.section("Hardware")
    sheet.field("CPUs", f"{cpu.get('cores')}" + (f" ({cpu['model']})" if cpu.get("model") else ""))
    sheet.field("Memory", spec.get("memory"))
    sheet.optional("Firmware", spec.get("firmware"))
    sheet.optional("Machine", spec.get("machine"))
    boot = part(spec, "boot")
    sheet.optional("Kernel", boot.get("kernel"))
    sheet.optional("Command line", boot.get("cmdline"))
    sheet.optional("Cloud-init", _sizes(part(spec, "cloudInit")))
    xml = spec.get("domainXML")
    sheet.optional("Domain XML", f"{len(str(xml))} characters of the user's own" if xml else None)
    sheet.table(
        "Disks",
        ("Name", "Pool", "Image", "Size", "Bus", "Source"),
        [_disk(d, name) for d in spec.get("disks") or []],
    )
    stored = [_stored(d) for d in part(facts.item, "status").get("disks") or []]
    if stored:
        sheet.table("Storage", ("Disk", "Image", "Features", "Open or locked by"), stored)
    rows = [_interface(i) for i in spec.get("interfaces") or []]
    sheet.table("Interfaces", ("Name", "Connected to", "MAC", "Model"), rows)
    sheet.end()


def _sizes(texts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} ({len(str(text))} characters)" for key, text in texts.items() if text)


def _disk(disk: Mapping[str, Any], vm: str) -> tuple[object, ...]:
    return (
        disk.get("name"),
        disk.get("pool") or "<default>",
        disk.get("image") or f"{vm}.{disk.get('name')}",
        disk.get("size"),
        disk.get("bus") or "virtio",
        _source(part(disk, "source")),
    )


def _stored(disk: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        disk.get("name"),
        disk.get("image"),
        ", ".join(disk.get("features") or []),
        ", ".join(disk.get("owners") or []) or "nobody",
    )


def _source(source: Mapping[str, Any]) -> str:
    for word, value in source.items():
        if word == "blank":
            return "blank"
        named = (
            f"{value['pool']}/{value['image']}" if isinstance(value, dict) and value.get("pool") else value
        )
        return f"{word} {named['image'] if isinstance(named, dict) else named}"
    return ""


def _interface(nic: Mapping[str, Any]) -> tuple[object, ...]:
    if nic.get("bridge"):
        where = f"bridge {nic['bridge']}"
    elif nic.get("network"):
        where = f"network {nic['network']}"
    else:
        where = "user-mode NAT"
    return nic.get("name"), where, nic.get("mac") or "<automatic>", nic.get("model") or "virtio"


def _failures(sheet: Sheet, facts: Facts, failures: Mapping[str, Any]) -> None:
    if not failures.get("count"):
        return
    sheet.section("Failures")
    sheet.field("In a row", failures["count"])
    sheet.field("Reason", failures.get("reason"))
    sheet.field("Message", failures.get("message"))
    sheet.field("Last", moment(failures.get("lastTime"), facts.at))
    sheet.field("Next try", until(failures.get("retryTime"), facts.at))
    sheet.end()


def _failed_on(sheet: Sheet, facts: Facts, entries: Sequence[Mapping[str, Any]]) -> None:
    standing = in_force(entries, facts.at)
    if not standing:
        return
    rows = [
        (e["node"], e.get("count"), e.get("reason"), moment(e.get("lastTime"), facts.at), e.get("message"))
        for e in standing
    ]
    sheet.table("Failed on", ("Node", "In a row", "Reason", "Last", "Message"), rows)
    sheet.end()
