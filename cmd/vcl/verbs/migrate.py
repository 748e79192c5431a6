"""vcl migrate: move a running VM to another node."""

from __future__ import annotations

from typing import Annotated

import typer

from vcl.session import connect
from vcl.targets import checked_name

Timeout = Annotated[str, typer.Option("--timeout", help="How long to --wait: 30s, 5m; negative: for ever")]


def run(
    ctx: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="VM", help="The virtual machine")],
    to: Annotated[str, typer.Option("--to", help="The node; without it the planner chooses")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended")] = False,
    timeout: Timeout = "10m",
    cancel: Annotated[bool, typer.Option("--cancel", help="End the one that is under way")] = False,
) -> int:
    """Move a running VM to another node.

    It runs on meanwhile, and stays where it is, whatever breaks off, until it runs on the other node. The
    request is recorded and goes on when this command ends; while too many are under way it waits for its
    turn, and says so.

    \b
    Example:
      vcl migrate web
      vcl migrate web --to r2 --wait
      vcl migrate web --cancel
      vcl get migrations
    """
    from vcl.migrating import cancelled, migrated

    client, name = connect(ctx), checked_name(vm.removeprefix("vm/").removeprefix("virtualmachine/"))
    if cancel:
        return cancelled(client, name)
    return migrated(client, name, to.removeprefix("node/"), timeout if wait else None)
