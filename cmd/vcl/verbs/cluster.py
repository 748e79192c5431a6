"""vcl cluster status: nodes, VMs by state, and what the daemon's loops say."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from reconciler.resources.kinds import Kind, info_for
from vcl import output
from vcl.client import Client
from vcl.registry import EPILOG
from vcl.session import connect
from vcl.sheet import Sheet
from vcl.verbs.confirm import held_deletions, object_name

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@app.callback(epilog=EPILOG)
def cluster(ctx: typer.Context) -> None:
    """Show how the cluster is doing.

    \b
    Example:
      vcl cluster status
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command("status", epilog=EPILOG)
def run(
    ctx: typer.Context,
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")] = "",
) -> int:
    """Show how the cluster is doing.

    \b
    Example:
      vcl cluster status
      vcl cluster status -o json
    """
    chosen = output.parse_format(output_format, ("yaml", "json"))
    client = connect(ctx)
    status = client.get("status")
    if chosen.name:
        output.printer(chosen)(status)
        return 0
    sheet = Sheet()
    _objects(sheet, client)
    held = held_deletions(status)
    if held:
        sheet.section("Held deletions")
        sheet.field("Id", held.get("id"))
        sheet.field("Reason", held.get("reason"))
        sheet.field("Objects", ", ".join(output.named(*object_name(i)) for i in held.get("objects") or []))
        sheet.field("Cure", f"put the files back, or let them go with 'vcl confirm {held.get('id')}'")
        sheet.end()
    sheet.section("Daemon")
    sheet.tree({k: v for k, v in status.items() if k not in ("heldDeletions", "kind", "apiVersion")})
    print(sheet.text(), end="")
    return 0


def _objects(sheet: Sheet, client: Client) -> None:
    nodes = client.objects(info_for(Kind.NODE)).get("items") or []
    ready = sum(_ready(node) for node in nodes)
    sheet.field("Nodes", f"{ready} of {len(nodes)} ready")
    vms = client.objects(info_for(Kind.VIRTUAL_MACHINE)).get("items") or []
    phases = Counter(str((vm.get("status") or {}).get("phase") or "Unknown") for vm in vms)
    told = ", ".join(f"{count} {phase}" for phase, count in sorted(phases.items()))
    sheet.field("Virtual machines", f"{len(vms)}" + (f": {told}" if told else ""))


def _ready(item: dict[str, Any]) -> bool:
    status = item.get("status") or {}
    if "ready" in status:
        return bool(status["ready"])
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or [])
