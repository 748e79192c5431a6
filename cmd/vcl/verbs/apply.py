"""vcl apply: put manifests into the watched directory, byte for byte, through the daemon."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, find_kind, info_for
from vcl import output
from vcl.applying import print_report, results, submit
from vcl.client import Client
from vcl.durations import parse_duration
from vcl.inputs import read_inputs
from vcl.session import UsageError, complain, connect
from vcl.waiting import condition_is, deadline, wait_until

DRY_RUNS = ("none", "client", "server")


def run(
    ctx: typer.Context,
    filenames: Annotated[
        list[str] | None, typer.Option("-f", "--filename", help="FILE, DIR or - (stdin); repeat it")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="Go into subdirectories of -f")
    ] = False,
    dry_run: Annotated[
        str, typer.Option("--dry-run", help="client: check here; server: let the daemon check; none")
    ] = "none",
    wait: Annotated[bool, typer.Option("--wait", help="Return when the virtual machines are ready")] = False,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to --wait: 30s, 5m")] = "5m",
    check_index: Annotated[
        str, typer.Option("--check-index", metavar="INDEX", help="Only if 'vcl plan --apply' still says so")
    ] = "",
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of name, yaml, json")] = "",
) -> int:
    """Create or change objects from manifest files.

    A file is written as it is, comments and all, into the daemon's manifest directory: over the file that
    defines its objects already, or as KIND-NAME.yaml. What is wrong in one file does not hold up the others.

    \b
    Example:
      vcl apply -f web.yaml
      vcl apply -f manifests/ -R --dry-run=server
      vcl apply -f web.yaml --check-index 4f2a91c03b1e
      cat web.yaml | vcl apply -f - --wait
    """
    if dry_run not in DRY_RUNS:
        raise UsageError(f"there is no dry run '{dry_run}'", cure="use --dry-run=client or --dry-run=server")
    chosen = output.parse_format(output_format, ("name", "yaml", "json"))
    inputs = read_inputs(filenames or (), recursive=recursive)
    for error in inputs.errors:
        complain(error)
    if dry_run == "client":
        from vcl.manifests import dry_run_locally

        return 1 if not dry_run_locally(inputs.files) or inputs.errors else 0
    client = connect(ctx)
    if check_index:
        inputs.all()
    sent = submit(client, inputs.files, dry_run=dry_run == "server", index=check_index)
    for failure in sent.errors:
        complain(failure)
    well = _print(sent.report, chosen, " (server dry run)" if dry_run == "server" else "")
    if wait and dry_run == "none":
        well = _wait(client, sent.report, parse_duration(timeout)) and well
    return 0 if well and not inputs.errors and not sent.errors else 1


def _print(report: dict[str, Any], chosen: output.Format, suffix: str) -> bool:
    if chosen.name in ("yaml", "json"):
        output.printer(chosen)(report)
        return all(result.get("result") != "failed" for result in results(report))
    return print_report(report, suffix=suffix, names_only=chosen.name == "name")


def _wait(client: Client, report: dict[str, Any], timeout: float) -> bool:
    vm, until, well = info_for(Kind.VIRTUAL_MACHINE), deadline(timeout), True
    for result in results(report):
        if find_kind(str(result.get("kind", ""))) is not vm or result.get("result") == "failed":
            continue
        try:
            wait_until(client, vm, str(result["name"]), condition_is("Ready", "True"), until)
            print(f"{vm.singular}/{result['name']} ready", flush=True)
        except VclError as error:
            complain(error)
            well = False
    return well
