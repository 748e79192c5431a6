"""vcl drain: move all VMs off a node."""

from __future__ import annotations

from typing import Annotated

import typer

from vcl.session import connect
from vcl.targets import checked_name

NoMore = Annotated[str, typer.Option("--timeout", help="How long to wait: 30s, 5m; 0: no limit")]
WaitFor = Annotated[bool, typer.Option("--wait/--no-wait", help="Return when the node is empty")]


def run(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node to be emptied")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show who would go where")] = False,
    wait: WaitFor = True,
    timeout: NoMore = "0",
) -> int:
    """Move all VMs off a node, and place no more on it.

    First those that cannot leave are listed, and why; they keep running. Each of the others goes as its
    evictionStrategy says, a few at a time, as soon as another node has room. The drain is recorded: it goes
    on when this command ends, and the node stays empty, also over a reboot, until 'vcl uncordon', which also
    cancels it.

    \b
    Example:
      vcl drain r2 --dry-run
      vcl drain r2 --timeout=10m
      vcl uncordon r2 --return
    """
    from vcl.draining import How, empty

    name = checked_name(node.removeprefix("node/"))
    return empty(connect(ctx), name, "drain", How(dry_run=dry_run, wait=wait, timeout=timeout))
