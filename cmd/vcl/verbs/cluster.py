"""vcl cluster: how the cluster is doing, where everything runs, and all of it off and on again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from reconciler.resources.kinds import Kind, info_for
from vcl import output
from vcl.registry import EPILOG
from vcl.session import UsageError, connect

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)

Deadline = Annotated[
    str, typer.Option("--deadline", help="Seconds until guests are ended that have not powered off")
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the others and the log")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]
OutputFormat = Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")]
Watch = Annotated[bool, typer.Option("-w", "--watch", help="Show it again every two seconds")]


@app.callback(epilog=EPILOG)
def cluster(ctx: typer.Context) -> None:
    """Show how the cluster is doing, shut it down, and start it again.

    \b
    Example:
      vcl cluster status
      vcl cluster placement
      vcl cluster shutdown --reason="UPS on battery"
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


@app.command("shutdown", epilog=EPILOG)
def shutdown(
    ctx: typer.Context,
    deadline: Deadline = "300",
    reason: Reason = "",
    power_off: Annotated[
        bool,
        typer.Option("--power-off-hosts", help="Then switch all hosts off, by vcld's `power.offCommand`"),
    ] = False,
    ceph_flags: Annotated[
        bool, typer.Option("--ceph-flags", help="Tell Ceph first not to move data: noout, norebalance")
    ] = False,
    yes: Yes = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end")] = True,
) -> int:
    """Shut down all VMs, everywhere.

    Also without a master, without Ceph and without a majority: the order is written to this node's disk and
    passed on by the mesh, and every node ends its own guests. VMs of low priority stop first, and those that
    others start after ('startAfter') last. What has not powered off by the deadline is ended. Nothing starts
    again, not even after a power loss, until 'vcl cluster start'.

    \b
    Example:
      vcl cluster shutdown
      vcl cluster shutdown --deadline=120 --reason="UPS on battery" --power-off-hosts --yes
    """
    from vcl.durations import parse_duration
    from vcl.powering import follow_shutdown, question_text
    from vcl.prompting import confirm

    seconds, client = parse_duration(deadline), connect(ctx)
    question = "" if yes else question_text(client, power_off=power_off)
    if not confirm(question, yes=yes, what="shutting the cluster down"):
        print("Cancelled, nothing was shut down", file=sys.stderr)
        return 1
    asked = {"deadline": seconds, "reason": reason, "powerOffHosts": power_off, "cephFlags": ceph_flags}
    order = client.post("power/shutdown", asked)
    print(f"cluster shutting down, within {seconds:g} s ({order.get('id')})", flush=True)
    return follow_shutdown(client, seconds) if wait else 0


@app.command("start", epilog=EPILOG)
def start(
    ctx: typer.Context,
    parallel: Annotated[int, typer.Option("--parallel", help="So many VMs start at once")] = 10,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="Follow it for so long: 90s, 5m")] = "30m",
) -> int:
    """Start what a shutdown has stopped.

    Ends 'vcl cluster shutdown', also one that is still under way: VMs run again as their manifests and
    earlier 'start' and 'stop' say. VMs of high priority go first, each after those that it starts after.

    \b
    Example:
      vcl cluster start
      vcl cluster start --parallel=2
    """
    from vcl.durations import parse_duration
    from vcl.powering import follow_start
    from vcl.waiting import deadline as ends

    until, client = ends(parse_duration(timeout)), connect(ctx)
    asked = client.post("power/start", {"parallel": parallel})
    print("cluster starting", flush=True)
    return follow_start(client, str(asked.get("id")), until) if wait else 0


@app.command("rebalance", epilog=EPILOG)
def rebalance(
    ctx: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be moved, and why")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Only what breaks a rule, and what makes room for it")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the one that goes on")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it to its end")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="Follow it for so long; 0: no limit")] = "0",
    output_format: OutputFormat = "",
) -> int:
    """Move VMs, live, to where they are better off.

    \b
    VMs that break a rule are moved to where they keep it; then those whose move makes nodes more
    evenly used, as far as it is worth it. A few at a time, as the Cluster's 'migration' says, and only
    while every node is well. What cannot be migrated live stays. With 'balance' in the Cluster's
    manifest it happens by itself.

    \b
    Example:
      vcl cluster rebalance --dry-run
      vcl cluster rebalance --timeout=30m
    """
    from vcl.durations import parse_duration
    from vcl.rebalancing import draft_text, follow
    from vcl.waiting import deadline as ends

    chosen, client = output.parse_format(output_format, ("yaml", "json")), connect(ctx)
    if chosen.name and not dry_run:
        raise UsageError("-o shows what would be moved", cure="add --dry-run")
    if cancel:
        client.post("rebalance/cancel", {})
        print("cluster rebalancing cancelled; moves that had begun go on")
        return 0
    scope = {"scope": "Repair" if repair else "Full"}
    found = client.post("rebalance", {**scope, "dryRun": True}, at_least=60.0)
    if chosen.name:
        output.printer(chosen)(found)
        return 0
    print(draft_text(found), end="", flush=True)
    if dry_run or not found.get("moves"):
        return 0
    until = ends(parse_duration(timeout) or -1)
    record = client.post("rebalance", {**scope, "index": found.get("index") or ""}, at_least=60.0)
    print("cluster rebalancing", flush=True)
    return follow(client, str(record.get("id")), until) if wait else 0


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
