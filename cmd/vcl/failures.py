"""vcl get failures: what of which VM failed on which node, as its objects' status.failedOn tells it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from reconciler.planning.failures import expired
from reconciler.resources.kinds import Kind, info_for
from vcl import output
from vcl.client import Client
from vcl.describing import moment, until
from vcl.fetching import missing
from vcl.session import complain
from vcl.table import clean, render

VM = info_for(Kind.VIRTUAL_MACHINE)
HEADERS = ("VM", "NODE", "COUNT", "REASON", "LAST", "NEXT-TRY", "GIVEN-UP")


def show_failures(client: Client, names: Sequence[str], format: output.Format, *, headers: bool) -> int:
    """Print them; those of all VMs without names. Returns the exit code."""
    items = client.objects(VM, "").get("items") or []
    known = {str(item["metadata"]["name"]): item for item in items}
    absent = [name for name in names if name not in known]
    for name in absent:
        complain(missing(VM, name))
    found = [entry for name in (names or sorted(known)) if name in known for entry in _entries(known[name])]
    if not format.is_table:
        output.printer(format, headers=headers)(output.list_of(found))
    elif found:
        wide = format.name == "wide"
        rows = [_row(entry, wide) for entry in found]
        head = [(*HEADERS, "MESSAGE") if wide else HEADERS] if headers else []
        sys.stdout.write(render([*head, *rows]))
    elif not absent:
        print("No failures are remembered", file=sys.stderr)
    return 1 if absent else 0


def in_force(failed_on: Sequence[Mapping[str, Any]], at: datetime) -> list[Mapping[str, Any]]:
    """Those of `status.failedOn` that still count: a record outlives its meaning when its node is away."""
    return [each for each in failed_on if not expired(str(each.get("lastTime")), at.isoformat())]


def _entries(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = in_force((item.get("status") or {}).get("failedOn") or [], datetime.now(UTC))
    return [{"vm": item["metadata"]["name"], **failed} for failed in found]


def _row(entry: Mapping[str, Any], wide: bool) -> tuple[str, ...]:
    at = datetime.now(UTC)
    cells = (
        entry["vm"],
        entry["node"],
        entry.get("count"),
        entry.get("reason"),
        moment(entry.get("lastTime"), at),
        until(entry.get("retryTime"), at),
        "yes" if entry.get("givenUp") else "no",
        *([entry.get("message") or ""] if wide else []),
    )
    return tuple(clean(str(cell)) for cell in cells)
