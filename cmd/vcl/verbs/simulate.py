"""vcl simulate: where VMs would go on nodes that need not exist. No daemon is asked."""

from __future__ import annotations

from typing import Annotated

import typer

from vcl import output
from vcl.session import UsageError

MOST_NODES = 50
"""With more nodes than this losses are only looked for when asked: it takes a placement for each."""


def run(
    nodes: Annotated[
        list[str] | None,
        typer.Option("--nodes", metavar="FILE|DIR", help="Node manifests, or .csv; repeat it"),
    ] = None,
    vms: Annotated[
        list[str] | None,
        typer.Option("--vms", metavar="FILE|DIR", help="VMs and constraints, or .csv; repeat it"),
    ] = None,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="Go into subdirectories")] = False,
    node_down: Annotated[
        list[str] | None, typer.Option("--node-down", metavar="NODE", help="Then lose this node; repeat it")
    ] = None,
    losses: Annotated[
        bool | None,
        typer.Option("--losses/--no-losses", help="Try the loss of each node; default: up to 50 nodes"),
    ] = None,
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")] = "",
) -> int:
    """Place VMs on nodes, without a cluster.

    Nodes are Node manifests with spec.capacity, VMs and constraints are manifests as for apply; or either is
    a CSV file with the columns name, cpu (2 or 500m) and memory (4Gi). Nodes may also have labels (a=b;c=d),
    reserved_cpu, reserved_memory, overcommit_cpu (default 4) and overcommit_memory (1); VMs labels,
    node_selector, priority and count. cpu_milli and memory_mib are plain numbers.

    The exit code is 1 when a VM finds no place.

    \b
    Example:
      vcl simulate --nodes nodes.yaml --vms manifests/
      vcl simulate --nodes nodes.csv --vms vms.csv --node-down r1
      vcl simulate --nodes nodes.yaml --vms vms.csv -o json
    """
    from reconciler.planning.offline import simulate
    from vcl.simulating import as_json, read_cluster, require_nodes

    chosen = output.parse_format(output_format, ("yaml", "json"))
    if not vms:
        raise UsageError("say which VMs", cure="name them with --vms DIR, and nodes with --nodes FILE")
    cluster = read_cluster(nodes or (), vms, recursive=recursive)
    down = frozenset(node_down or ())
    require_nodes(cluster, down)
    with_losses = len(cluster.nodes) <= MOST_NODES if losses is None else losses
    found = as_json(simulate(cluster, down, with_losses=with_losses))
    if chosen.name:
        output.printer(chosen)(found)
    else:
        from vcl.prospects import simulation_text

        print(simulation_text(found, len(cluster.vms), sorted(down)), end="")
    return 1 if found["waiting"] else 0
