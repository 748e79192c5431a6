"""vcl cluster: how the cluster is doing, and where everything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from reconciler.resources.kinds import Kind, info_for
from vcl import output
from vcl.registry import EPILOG
from vcl.session import UsageError, connect

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)

OutputFormat = Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")]
Watch = Annotated[bool, typer.Option("-w", "--watch", help="Show it again every two seconds")]


@app.callback(epilog=EPILOG)
def cluster(ctx: typer.Context) -> None:
    """Show how the cluster is doing.

    \b
    Example:
      vcl cluster status
      vcl cluster placement
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command("status", epilog=EPILOG)
def run(ctx: typer.Context, output_format: OutputFormat = "", watch: Watch = False) -> int:
    """Show nodes, master, quorum and store.

    \b
    HEARTBEAT and LEASE are the ages of the last sign of life on each channel: the
    mesh, and the store.

    \b
    Example:
      vcl cluster status
      vcl cluster status -w
      vcl cluster status -o json
    """
    from vcl.cluster_status import status_text

    client = connect(ctx)

    def text(status: dict[str, Any]) -> str:
        vms = client.objects(info_for(Kind.VIRTUAL_MACHINE)).get("items") or []
        return status_text(status, vms)

    return _show(lambda: client.get("status"), text, output_format, watch=watch)


@app.command("placement", epilog=EPILOG)
def placement(ctx: typer.Context, output_format: OutputFormat = "", watch: Watch = False) -> int:
    """Show where VMs are wanted and really are.

    \b
    DESIRED is where the master wants a VM, CLAIMED who owns it, REPORTED what its
    owner says, LOCAL what is really there on the node that you ask. VMs for which
    these do not agree come first, with the reason. Then: what is used of each node.

    \b
    Example:
      vcl cluster placement
      vcl cluster placement -o json
    """
    from vcl.cluster_placement import placement_text

    client = connect(ctx)
    return _show(lambda: client.get("placement"), placement_text, output_format, watch=watch)


def _show(ask: Callable[[], Any], text: Callable[[Any], str], output_format: str, *, watch: bool) -> int:
    chosen = output.parse_format(output_format, ("yaml", "json"))
    if chosen.name and watch:
        raise UsageError("-w is for people", cure="leave out -o, or -w")
    if chosen.name:
        output.printer(chosen)(ask())
    elif watch:
        from vcl.refreshing import refresh

        return refresh(lambda: text(ask()))
    else:
        print(text(ask()), end="")
    return 0
