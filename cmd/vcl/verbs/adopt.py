"""vcl adopt: make VMs of libvirt domains that exist already; those that run here go on running."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from reconciler.domainxml.adopt import Places
from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind
from reconciler.resources.virtualmachine import RunStrategy
from vcl import output
from vcl.adopting import (
    Manifest,
    is_uri,
    make_manifests,
    parse_renames,
    places_of,
    read_sources,
)
from vcl.applying import APPLY_SECONDS
from vcl.client import Client, Unreachable
from vcl.prompting import confirm
from vcl.session import UsageError, complain, connect, warn

DRY_RUNS = ("none", "client", "server")


def run(
    ctx: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Domains; without any: all of them")
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="URI|FILE", help="A libvirt URI, or an XML file, or -; repeat it"),
    ] = None,
    rename: Annotated[
        list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Another name for the VM")
    ] = None,
    run_strategy: Annotated[
        str, typer.Option("--run-strategy", help="Default: Always for what runs, Manual for what is off")
    ] = "",
    dry_run: Annotated[
        str,
        typer.Option("--dry-run", help="client: print the manifests; server: look at all, change nothing"),
    ] = "none",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of name, yaml, json")] = "",
) -> int:
    """Make VMs of libvirt domains that you have.

    What a manifest cannot say in fields stays in its 'domainXML'; disks are matched to
    StoragePools. A domain that runs on the node that you ask goes on running: its
    autostart and its definition in libvirt are taken away (a copy is kept), and it is
    vcl's from then on. --dry-run=client prints the manifests and changes nothing.

    \b
    Example:
      vcl adopt --from qemu:///system --dry-run=client -o yaml > vms.yaml
      vcl adopt --from qemu:///system web db
      vcl adopt --from qemu+ssh://old-host/system --dry-run=client
      vcl adopt --from web.xml --rename 'web server=web'
    """
    if dry_run not in DRY_RUNS:
        raise UsageError(f"there is no dry run '{dry_run}'", cure="use --dry-run=client or --dry-run=server")
    if not origins:
        raise UsageError("say where the domains are", cure="--from qemu:///system, or --from FILE.xml")
    chosen = output.parse_format(output_format, ("name", "yaml", "json"))
    client = connect(ctx)
    strategy, renames = _strategy(run_strategy), parse_renames(rename or ())
    if dry_run == "client":
        # Who applies the file later must not start a second copy of what still runs then.
        strategy = strategy or RunStrategy.MANUAL
    sources, errors = read_sources(origins, names or ())
    places = _places(client, dry_run == "client")
    found = make_manifests(sources, places, renames, strategy)
    for error in (*errors, *found.errors):
        complain(error)
    well = not errors and not found.errors
    manifests = found.manifests if names else _without_own(found.manifests)
    if not manifests:
        if well:
            print("No domains found", file=sys.stderr)
        return 0 if well else 1
    if dry_run == "client":
        _print_manifests(manifests, chosen)
        return 0 if well else 1
    if dry_run == "none" and not _agreed(manifests, yes):
        print("Cancelled, nothing was changed")
        return 1
    return 0 if _send(client, manifests, chosen, dry_run == "server") and well else 1


def _without_own(manifests: Sequence[Manifest]) -> list[Manifest]:
    """Those that are not vcl's already, where nobody named any."""
    own = [manifest.vm.domain for manifest in manifests if manifest.vm.owner is not None]
    if own:
        print(f"Left out, since they carry the mark of vcl: {', '.join(own)}", file=sys.stderr)
    return [manifest for manifest in manifests if manifest.vm.owner is None]


def _places(client: Client, alone: bool) -> Places:
    """The StoragePools; `alone`: it may do without a daemon."""
    try:
        return places_of(client)
    except Unreachable as error:
        if not alone:
            raise
        warn(f"disks are matched to no StoragePool: {error}")
        return Places()


def _strategy(text: str) -> RunStrategy | None:
    if not text:
        return None
    try:
        return RunStrategy(text)
    except ValueError as error:
        choices = ", ".join(RunStrategy)
        raise UsageError(f"there is no run strategy '{text}'", cure=f"use one of {choices}") from error


def _print_manifests(manifests: Sequence[Manifest], chosen: output.Format) -> None:
    """YAML with its comments, so that it can be kept as a file."""
    if chosen.name in ("json", "name"):
        objects = [manifest.object() for manifest in manifests]
        output.printer(chosen)(objects[0] if len(objects) == 1 else output.list_of(objects))
        return
    sys.stdout.write("---\n".join(manifest.text for manifest in manifests))


def _agreed(manifests: Sequence[Manifest], yes: bool) -> bool:
    """Show what is to be taken over, and ask."""
    for manifest in manifests:
        for remark in manifest.vm.remarks:
            warn(f"{manifest.vm.name}: {'only on its host: ' if remark.pins else ''}{remark}")
    running = [manifest.vm.name for manifest in manifests if manifest.running]
    if not running:
        return True
    print(f"Running, to be taken over without a stop: {', '.join(running)}", file=sys.stderr)
    question = "libvirt will forget their definitions, and vcl decides what becomes of them."
    return confirm(question, yes=yes, what="taking over what runs")


def _send(client: Client, manifests: Sequence[Manifest], chosen: output.Format, dry_run: bool) -> bool:
    """One at a time, so that each has its own deadline. Returns whether all went well."""
    results: list[dict[str, Any]] = []
    for manifest in manifests:
        vm = manifest.vm
        domain = {
            "name": manifest.source,
            "content": manifest.text,
            "domain": vm.domain,
            "uuid": vm.uuid or None,
            "running": manifest.running,
        }
        body = {"domains": [domain], "dryRun": dry_run}
        try:
            results += client.post("adopt", body, at_least=APPLY_SECONDS).get("results") or []
        except VclError as error:
            results.append(
                {"source": manifest.source, "name": vm.name, "result": "failed", "error": str(error)}
            )
    _report(results, chosen, " (server dry run)" if dry_run else "")
    if not dry_run:
        _hints(manifests, results)
    return all(result.get("result") != "failed" for result in results)


def _report(results: Sequence[dict[str, Any]], chosen: output.Format, suffix: str) -> None:
    if chosen.name in ("yaml", "json"):
        output.printer(chosen)({"results": list(results)})
        return
    for result in results:
        label = output.named(Kind.VIRTUAL_MACHINE.value, str(result.get("name")))
        if result.get("result") == "failed":
            complain(f"{label}: {result.get('error') or 'it was refused'}")
        else:
            print(label if chosen.name == "name" else f"{label} {result.get('result')}{suffix}", flush=True)


def _hints(manifests: Sequence[Manifest], results: Sequence[dict[str, Any]]) -> None:
    """What is left to do where vcl cannot do it."""
    left = {
        str(each.get("name")) for each in results if each.get("result") == "created" and not each.get("here")
    }
    for manifest in manifests:
        uri, _, domain = manifest.source.partition(" ")
        if manifest.vm.name in left and is_uri(uri):
            undefine = f"virsh -c {uri} undefine --keep-nvram '{domain}'"
            print(f"So that nobody starts it there as well: {undefine}", file=sys.stderr)
