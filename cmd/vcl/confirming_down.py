"""What a person should know before they say that a host is down, as a pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from vcl.cluster_status import seconds
from vcl.describing import moment, part
from vcl.describing_node import attempt_lines
from vcl.sheet import Sheet

Object = Mapping[str, Any]


def question_text(item: Object, vms: Sequence[Object], at: datetime, seen_by: str) -> str:
    """The text. `item`: the Node; `vms`: all of them; `seen_by`: the node whose daemon was asked."""
    name, status = str(part(item, "metadata").get("name")), part(item, "status")
    fencing, seen = part(status, "fencing"), part(status, "liveness")
    sheet = Sheet()
    sheet.field("Node", name)
    sheet.field("Incident", fencing.get("incident"))
    sheet.field("Boot id", fencing.get("bootId"))
    sheet.field("Since", moment(fencing.get("began"), at))
    sheet.field("Cause", fencing.get("reason"))
    sheet.section(f"Last sign of life, as {seen_by} sees it")
    sheet.field("Mesh", _last(seen.get("heartbeatAge")))
    sheet.field("Store", _last(seen.get("leaseAge")))
    link = part(seen, "link")
    if link:
        sheet.field("Link", f"{link.get('state')} for {seconds(link.get('seconds'))}")
    sheet.end()
    sheet.optional("Fencers tried", "\n".join(attempt_lines(fencing, but="manual")))
    sheet.optional("Missing", "\n".join(str(line) for line in fencing.get("missing") or ()))
    mine = sorted(
        str(part(vm, "metadata").get("name"))
        for vm in vms
        if part(part(vm, "status"), "claim").get("node") == name
    )
    sheet.field("Would start elsewhere", ", ".join(mine))
    return sheet.text() + "\n".join(_warning(name, mine)) + "\n"


def _warning(name: str, vms: Sequence[str]) -> tuple[str, ...]:
    what = f"{len(vms)} VM{'s' if len(vms) != 1 else ''}" if vms else "its VMs"
    return (
        "",
        f"WARNING: if {name} still runs, {what} will run twice and write to the same disks at once.",
        "That destroys their data, and nothing can bring it back. A host that does not answer may still",
        "run: look at the machine itself. It must be switched off, or its plug pulled.",
    )


def _last(age: object) -> str:
    return f"{seconds(age)} ago" if isinstance(age, (int, float)) else "none since this daemon started"
