"""vcl doctor: what is wrong with this machine, and how to cure it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl import output
from vcl.checks import cluster, daemon, guests, host, virtualization
from vcl.checks.machine import Daemon, Finding, Level, Machine
from vcl.client import ApiError, Client
from vcl.session import UsageError, connect
from vcl.table import clean, render

Check = Callable[[Machine, Daemon], Iterator[Finding]]

CONFIG = "/etc/vcl/vcld.yaml"

CHECKS: tuple[Check, ...] = (
    daemon.daemon,
    daemon.socket_rights,
    daemon.manifest_directory,
    daemon.held_deletions,
    virtualization.libvirt,
    virtualization.qemu,
    virtualization.kvm,
    virtualization.firmware,
    virtualization.seed_maker,
    virtualization.autostart,
    virtualization.libvirt_guests,
    cluster.configuration,
    cluster.cluster,
    cluster.other_clients,
    guests.guests_user,
    guests.images,
    daemon.disk_space,
    host.python,
    host.open_files,
    host.inotify,
    host.time_sync,
)


def run(
    ctx: typer.Context,
    only: Annotated[
        list[str] | None, typer.Argument(metavar="[CHECK...]", help="Only these, such as kvm")
    ] = None,
    config: Annotated[str, typer.Option("--config", "-c", help="vcld's configuration")] = CONFIG,
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")] = "",
) -> int:
    """Check this machine, and say how to cure it.

    On a node of a cluster it also tries out, in Ceph, all that failover needs; it changes nothing there.
    The exit code is 1 when a check fails; warnings alone leave it 0.

    \b
    Example:
      vcl doctor
      vcl doctor kvm libvirt
      vcl doctor -o json
    """
    chosen = output.parse_format(output_format, ("yaml", "json"))
    findings = examine(Machine(config=config), ask_daemon(connect(ctx)), only or ())
    if chosen.name:
        items = [
            {"check": f.check, "level": f.level.value, "message": f.message, "cure": f.cure} for f in findings
        ]
        sys.stdout.write(
            json.dumps(items, indent=4) + "\n" if chosen.name == "json" else output.to_yaml(items)
        )
    else:
        sys.stdout.write(report(findings))
    return 1 if any(finding.level is Level.FAIL for finding in findings) else 0


def examine(machine: Machine, vcld: Daemon, only: Sequence[str] = ()) -> list[Finding]:
    """Every finding, in the order of the checks. UsageError when `only` names none of them."""
    findings = [finding for check in CHECKS for finding in check(machine, vcld)]
    if not only:
        return findings
    known = {finding.check for finding in findings}
    for name in only:
        if name not in known:
            raise UsageError(
                f"there is no check '{name}'", cure=f"the checks are: {', '.join(sorted(known))}"
            )
    return [finding for finding in findings if finding.check in only]


def report(findings: Iterable[Finding]) -> str:
    """One line a finding, its cure below it, and a summary."""
    found = list(findings)
    rows = render([(f.level.value, f.check, clean(f.message)) for f in found], gap="  ").splitlines()
    lines = []
    for finding, row in zip(found, rows, strict=True):
        lines.append(row)
        if finding.cure and finding.level is not Level.OK:
            lines.append(f"      cure: {clean(finding.cure)}")
    failed = sum(f.level is Level.FAIL for f in found)
    warned = sum(f.level is Level.WARN for f in found)
    verdict = f"{failed} failed, {warned} warnings, {len(found) - failed - warned} fine"
    return "\n".join([*lines, "", verdict]) + "\n"


def ask_daemon(client: Client) -> Daemon:
    """What the daemon says of itself; never raises."""
    try:
        version = client.get("/version")
        status = client.get("status")
        nodes = client.objects(info_for(Kind.NODE)).get("items") or []
        pools = client.objects(info_for(Kind.STORAGE_POOL)).get("items") or []
        vms = client.objects(info_for(Kind.VIRTUAL_MACHINE)).get("items") or []
    except VclError as error:
        return Daemon(socket=client.path, error=error.message, cure=error.cure)
    mine = [node for node in nodes if (node.get("metadata") or {}).get("name") == version.get("node")]
    return Daemon(
        socket=client.path,
        version=version,
        status=status,
        problems=_readiness(client),
        node=mine[0] if mine else {},
        pools=tuple(pools),
        vms=tuple(vms),
    )


def _readiness(client: Client) -> tuple[str, ...]:
    try:
        client.read("/readyz")
    except ApiError as error:
        return tuple(error.message.splitlines())
    except VclError as error:
        return (error.message,)
    return ()
