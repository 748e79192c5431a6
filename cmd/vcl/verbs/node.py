"""vcl node: what only a person can decide or know of a node."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from reconciler.resources.errors import ConflictError
from reconciler.resources.kinds import Kind, info_for
from vcl.describing import part
from vcl.durations import now
from vcl.node_verbs import BringBack
from vcl.prompting import typed
from vcl.registry import EPILOG
from vcl.session import UsageError, connect
from vcl.targets import checked_name
from vcl.verbs.cluster import Deadline, Reason, Yes
from vcl.verbs.drain import NoMore, WaitFor

CONFIG = "/etc/vcl/vcld.yaml"

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@app.callback(epilog=EPILOG)
def node(ctx: typer.Context) -> None:
    """Take a node out for maintenance, or say of it what only a person can know.

    \b
    Example:
      vcl node maintenance r2 on
      vcl node shutdown r2
      vcl node confirm-down r3
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command("confirm-down", epilog=EPILOG)
def run(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The node that is down")],
    incident: Annotated[
        str, typer.Option("--incident", metavar="ID", help="Confirm only if this is the fencing under way")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; needs --incident")] = False,
) -> int:
    """Confirm that a node which is being fenced is down.

    The last resort, when no fencer can prove that the host does not write any more. Look at the
    machine itself: it must be off, or its plug pulled. If it still runs, its VMs run twice and
    write to the same disks, which destroys them. The word counts for this incident and this boot
    of the host only, and any sign of life of it makes it void.

    \b
    Example:
      vcl node confirm-down r3
      vcl node confirm-down r3 --incident r3-12 --yes
    """
    from vcl.confirming_down import question_text

    name = checked_name(name.removeprefix("node/"))
    if yes and not incident:
        raise UsageError(
            "--yes needs --incident, so that an old script cannot confirm a later incident",
            cure=f"add --incident ID, with the id that 'vcl describe node {name}' shows",
        )
    client = connect(ctx)
    item = client.object(info_for(Kind.NODE), name)
    fencing = _under_way(name, part(part(item, "status"), "fencing"), incident)
    vms = client.objects(info_for(Kind.VIRTUAL_MACHINE)).get("items") or []
    seen_by = str((client.get("/version") or {}).get("node") or "this node")
    print(question_text(item, vms, now(), seen_by), file=sys.stderr)
    id = str(fencing["incident"])
    cure = f"add --yes --incident {id}, if the machine is surely off"
    if not yes and not typed(
        f"Type {name} to confirm that it is off", name, what="confirming that a node is down", cure=cure
    ):
        print("Cancelled, nothing was confirmed", file=sys.stderr)
        return 1
    said = {"incident": id, "bootId": str(fencing.get("bootId") or ""), "by": _who()}
    client.post(f"nodes/{quote(name, safe='')}/confirm-down", said)
    print(f"node/{name} confirmed down ({id}); follow it with 'vcl describe failover {id}'")
    return 0


@app.command("maintenance", epilog=EPILOG)
def maintenance(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NODE", help="The node")],
    state: Annotated[str, typer.Argument(metavar="on|off")],
    bring_back: BringBack = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show who would go where")] = False,
    wait: WaitFor = True,
    timeout: NoMore = "0",
) -> int:
    """Take a node out of service, and back.

    On: its VMs are moved away as by 'vcl drain', and none is placed on it, whatever happens to it, until
    maintenance is over. Off: it takes VMs again; with --return those that went come back. Both stand above
    'maintenance' in the node's manifest, until that field is changed.

    \b
    Example:
      vcl node maintenance r2 on --timeout=10m
      vcl node maintenance r2 off --return
    """
    from vcl.draining import How, empty

    name = checked_name(name.removeprefix("node/"))
    if state not in ("on", "off"):
        raise UsageError(f"'{state}' is neither on nor off", cure=f"write 'vcl node maintenance {name} on'")
    if state == "on":
        if bring_back:
            raise UsageError("--return is for 'off'", cure="say it when the maintenance is over")
        how = How(dry_run=dry_run, wait=wait, timeout=timeout)
        return empty(connect(ctx), name, "maintenance-on", how)
    connect(ctx).node_verb(name, "maintenance-off", {"bringBack": bring_back})
    print(f"node/{name} back in service")
    return 0


@app.command("shutdown", epilog=EPILOG)
def shutdown(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NODE]", help="The node; by default this one")] = "",
    policy: Annotated[
        str, typer.Option("--policy", help="One of Migrate, Stop, Freeze; by default the cluster's")
    ] = "",
    local: Annotated[
        bool, typer.Option("--local", help="Shut down the VMs of this host, whatever else does not work")
    ] = False,
    deadline: Deadline = "",
    reason: Reason = "",
    power_off: Annotated[
        bool,
        typer.Option(
            "--power-off", help="With --local: then switch this host off, by vcld's `power.offCommand`"
        ),
    ] = False,
    yes: Yes = False,
    config: Annotated[str, typer.Option("--config", "-c", help="vcld's configuration")] = CONFIG,
) -> int:
    """Empty a node whose host goes down.

    Its VMs leave by a policy, which 'nodeShutdown' in the Cluster's manifest sets. Migrate: as in a drain,
    and what cannot leave within the deadline is shut down. Stop: they are shut down, and start elsewhere.
    Freeze: they are shut down, and start on this node again when it is back. It takes VMs again when its host
    has booted, or after 'vcl uncordon'. The host itself is not switched off.

    With --local, the last resort: all VMs of this host are shut down as by 'vcl cluster shutdown', also
    without vcld, and no VM of the cluster starts until 'vcl cluster start'.

    \b
    Example:
      vcl node shutdown r2
      vcl node shutdown --policy=Freeze --deadline=2m --yes
      vcl node shutdown --local --deadline=120 --yes
    """
    from vcl.durations import parse_duration
    from vcl.powering import shut_down_here
    from vcl.prompting import confirm

    if not local:
        if power_off or reason:
            raise UsageError("--power-off and --reason are for --local", cure="leave them out")
        return _depart(ctx, name, policy, deadline, yes=yes)
    if name or policy:
        raise UsageError("--local is for this host and has no policy", cure="leave out NODE and --policy")
    seconds = parse_duration(deadline or "300")
    question = (
        "All VMs of this host are shut down, and no VM of the cluster starts until 'vcl cluster start'."
    )
    if not confirm(question, yes=yes, what="shutting this host's VMs down"):
        print("Cancelled, nothing was shut down", file=sys.stderr)
        return 1
    return shut_down_here(connect(ctx), seconds, reason=reason, power_off=power_off, config=config)


def _depart(ctx: typer.Context, name: str, policy: str, deadline: str, *, yes: bool) -> int:
    """`vcl node shutdown` without --local."""
    from vcl.departing import POLICIES, shut_down_node
    from vcl.durations import parse_duration
    from vcl.prompting import confirm

    if policy and policy not in POLICIES:
        raise UsageError(f"there is no policy '{policy}'", cure=f"write one of {', '.join(POLICIES)}")
    timeout, client = parse_duration(deadline) if deadline else None, connect(ctx)
    if name:
        name = checked_name(name.removeprefix("node/"))
    else:
        name = str((client.get("/version") or {}).get("node") or "")
    question = f"No VM runs on node {name} until its host has booted, or 'vcl uncordon {name}'."
    if not confirm(question, yes=yes, what="shutting a node's VMs down"):
        print("Cancelled, nothing was shut down", file=sys.stderr)
        return 1
    return shut_down_node(client, name, policy=policy, timeout=timeout)


def _under_way(name: str, fencing: dict[str, Any], incident: str) -> dict[str, Any]:
    """The fencing to be confirmed. Raises ConflictError; the daemon checks all of it once more."""
    if not fencing.get("incident"):
        raise ConflictError(
            f"no fencing of node '{name}' is under way, so there is nothing to confirm",
            cure=f"see 'vcl describe node {name}'",
        )
    if incident and fencing["incident"] != incident:
        raise ConflictError(
            f"the fencing under way is {fencing['incident']}, not {incident}: nothing was confirmed",
            cure=f"look again at 'vcl describe node {name}'",
        )
    if fencing.get("phase") == "Fenced":
        raise ConflictError(
            f"node '{name}' is fenced already ({fencing['incident']}): nothing is left to take from it"
        )
    return fencing


def _who() -> str:
    """user@host; the person behind sudo, if there is one."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
