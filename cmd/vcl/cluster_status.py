"""What `vcl cluster status` says: one daemon's status as text, the most important first.

A pure function of what the daemon answered, so that the layout is tested on values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.resources.quantity import human_bytes
from vcl import output
from vcl.describing import part
from vcl.durations import human_duration
from vcl.powering import power_line
from vcl.rebalancing import rebalance_line
from vcl.sheet import Sheet
from vcl.table import clean, render
from vcl.verbs.confirm import held_deletions, object_name

Object = Mapping[str, Any]

HEADERS = (
    *("NAME", "RANK", "ROLE", "STANDING", "LINK", "HEARTBEAT", "LEASE"),
    *("VERSION", "LOAD", "DISK FREE", "REASON"),
)
NOTHING = "-"


def status_text(status: Object, vms: Sequence[Object]) -> str:
    """The text. `status`: the answer of /status; `vms`: all virtual machines."""
    cluster, sheet = part(status, "cluster"), Sheet()
    nodes: Sequence[Object] = cluster.get("nodes") or []
    sheet.field("Cluster", f"{cluster.get('name') or 'vcl'}, as node {status.get('node')} sees it")
    if cluster:
        sheet.field("Master", _master(status, cluster))
        sheet.field("Quorum", _quorum(part(cluster, "quorum")))
    sheet.optional("Power", power_line(part(status, "power")))
    sheet.optional("Rebalancing", rebalance_line(part(status, "rebalance")))
    sheet.optional("Store", _store(part(status, "store"), nodes))
    sheet.optional("Versions", _versions(nodes))
    sheet.field("Virtual machines", _machines(vms))
    sheet.optional("Fencing", _lines(part(status, "fencing")))
    sheet.optional("Frozen", status.get("frozen"))
    sheet.optional("Problems here", "\n".join(str(problem) for problem in status.get("problems") or []))
    _held(sheet, status)
    _daemon(sheet, status)
    table = [HEADERS, *(_row(node, str(status.get("node"))) for node in nodes)]
    return sheet.text() + ("\n" + render(table) if nodes else "")


def seconds(value: object) -> str:
    """An age in a column: tenths while it is short."""
    if not isinstance(value, (int, float)):
        return NOTHING
    return f"{value:.1f}s" if value < 10 else human_duration(value)


def _master(status: Object, cluster: Object) -> str:
    if cluster.get("master"):
        return f"{cluster['master']}, epoch {cluster.get('epoch')}"
    why = status.get("frozen") or cluster.get("election") or "not decided yet"
    return f"none: {why}"


def _quorum(quorum: Object) -> str:
    count, needed = int(quorum.get("nodes") or 0), quorum.get("needed")
    if count == 1:
        return "this is the only node"
    told = f"{len(quorum.get('seen') or ())} of {count} nodes seen, {needed} needed"
    if not quorum.get("reached"):
        return f"not reached: {told}; VMs run on where they are, nothing is started elsewhere"
    if count == 2:
        return f"{told}; two nodes: no automatic failover, a third one would allow it"
    return told


def _store(store: Object, nodes: Sequence[Object]) -> str:
    if not store:
        return ""
    health = "healthy" if store.get("healthy") else "does not answer"
    told = f"{store.get('type')} {store.get('path')}: {health}, revision {store.get('revision')}"
    schema = store.get("schema")
    return told if schema is None else f"{told}, schema {schema}{_next_schema(int(schema), nodes)}"


def _next_schema(schema: int, nodes: Sequence[Object]) -> str:
    """Who has to be upgraded before the store can be."""
    newest = {str(node.get("name")): max(node.get("schemas") or (schema,)) for node in nodes}
    target = max(newest.values(), default=schema)
    if target <= schema:
        return ""
    behind = [name for name, known in newest.items() if known < target]
    return f" ({target} once {' and '.join(behind)} can)" if behind else f" (about to be {target})"


def _versions(nodes: Sequence[Object]) -> str:
    """One version, or who has which; a member that never told its own is left out."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        if node.get("version"):
            found.setdefault(str(node["version"]), []).append(str(node.get("name")))
    if len(found) < 2:
        return "".join(found)
    told = "; ".join(f"{version} on {', '.join(names)}" for version, names in sorted(found.items()))
    return f"{told} (an upgrade is under way)"


def _machines(vms: Sequence[Object]) -> str:
    phases = Counter(str(part(vm, "status").get("phase") or "Unknown") for vm in vms)
    told = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    return f"{len(vms)}" + (f": {told}" if told else "")


def _held(sheet: Sheet, status: Object) -> None:
    held = held_deletions(dict(status))
    if not held:
        return
    sheet.section("Held deletions")
    sheet.field("Id", held.get("id"))
    sheet.field("Reason", held.get("reason"))
    sheet.field("Objects", ", ".join(output.named(*object_name(item)) for item in held.get("objects") or []))
    sheet.field("Cure", f"put the files back, or let them go with 'vcl confirm {held.get('id')}'")
    sheet.end()


def _daemon(sheet: Sheet, status: Object) -> None:
    """The loops of the daemon that answered; what is empty is well, and left out."""
    manifests = part(status, "manifests")
    sheet.section("Daemon")
    sheet.optional("Session", status.get("session"))
    sheet.optional("VMs to look at", part(status, "agent").get("queued") or None)
    sheet.optional("Manifests", _files(manifests))
    for label, key in (
        ("Manifest problem", "problem"),
        ("Invalid files", "invalid"),
        ("Conflicts", "conflicts"),
        ("Waiting files", "waiting"),
    ):
        sheet.optional(label, _lines(manifests.get(key)))
    sheet.optional("Files not written", _lines(manifests.get("unwritten")))
    for name, state in sorted(part(status, "controllers").items()):
        sheet.field(f"Controller {name}", state)
    for name, why in sorted(part(status, "pools").items()):
        sheet.field(f"Pool {name}", why)
    sheet.end()


def _files(manifests: Object) -> str:
    if not manifests:
        return ""
    ignored = len(manifests.get("ignored") or ())
    return f"{manifests.get('files')} in {manifests.get('directory')}, read at {manifests.get('scanned')}" + (
        f"; {ignored} ignored" if ignored else ""
    )


def _lines(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{key}: {why}" for key, why in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return "\n".join(str(item) for item in value)
    return str(value or "")


def _row(node: Object, here: str) -> tuple[str, ...]:
    mine = node.get("name") == here
    heard = mine or part(node, "link").get("state") == "Connected"
    load, free = (node.get("load"), node.get("diskFree")) if heard else (None, None)
    cells = (
        node.get("name"),
        node.get("rank"),
        "master" if node.get("master") else NOTHING,
        node.get("standing"),
        _link(node, mine),
        NOTHING if mine else seconds(node.get("heartbeatAge")),
        NOTHING if mine else seconds(node.get("leaseAge")),
        node.get("version") or NOTHING,
        NOTHING if load is None else f"{load:.2f}",
        NOTHING if not free else human_bytes(free),
        _reason(node),
    )
    return tuple(clean(str(cell)) for cell in cells)


def _link(node: Object, mine: bool) -> str:
    if mine:
        return "this node"
    link = part(node, "link")
    if not link:
        return "none"
    state = str(link.get("state"))
    return state if state == "Connected" else f"{state} {seconds(link.get('seconds'))}"


def _reason(node: Object) -> str:
    """Why it is not well; and why there is no connection, if that does not say it already."""
    why, link = str(node.get("reason") or ""), part(node, "link")
    if link.get("state") == "Connected" or (why and link.get("state") == "Refused"):
        return why
    return "; ".join(words for words in (why, str(link.get("reason") or "")) if words)
