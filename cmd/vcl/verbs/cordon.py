"""vcl cordon: place no more VMs on a node."""

from __future__ import annotations

import typer

from vcl.node_verbs import Nodes, perform


def run(ctx: typer.Context, nodes: Nodes = None) -> int:
    """Place no more VMs on a node.

    Those that run there stay; 'vcl drain' moves them away as well. The manifest stays as it is: this
    stands above its 'unschedulable' until 'vcl uncordon', or until that field is changed.

    \b
    Example:
      vcl cordon r2
    """
    return perform(ctx, "cordon", nodes, "cordoned", {})
