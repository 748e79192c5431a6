"""vcl uncordon: place VMs on a node again."""

from __future__ import annotations

import typer

from vcl.node_verbs import BringBack, Nodes, perform


def run(ctx: typer.Context, nodes: Nodes = None, bring_back: BringBack = False) -> int:
    """Place VMs on a node again.

    This also ends a drain: VMs that have not left yet stay.

    \b
    Example:
      vcl uncordon r2
    """
    return perform(ctx, "uncordon", nodes, "uncordoned", {"bringBack": bring_back})
