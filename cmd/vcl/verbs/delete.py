"""vcl delete: take objects out of their manifests, and wait until they are gone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import KindInfo
from vcl import output
from vcl.client import Client, is_not_found
from vcl.durations import parse_duration
from vcl.fetching import check_selector, missing
from vcl.prompting import confirm
from vcl.session import UsageError, complain, connect
from vcl.targets import Target, parse_targets
from vcl.waiting import deadline, is_gone, wait_until

Doomed = list[tuple[KindInfo, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`timeout` in seconds, 0 for no limit."""

    purge: bool
    ignore_missing: bool
    wait: bool
    timeout: float
    names_only: bool


def run(
    ctx: typer.Context,
    what: Annotated[list[str] | None, typer.Argument(metavar="TYPE NAME... | TYPE/NAME...")] = None,
    filenames: Annotated[
        list[str] | None, typer.Option("-f", "--filename", help="The objects of FILE, DIR, -")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="Go into subdirectories of -f")
    ] = False,
    selector: Annotated[
        str, typer.Option("-l", "--selector", help="Those with labels: a=b,c!=d,e in (f,g)")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="All objects of the type")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Put the disk images into the trash as well")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --purge")] = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="A missing object is no error")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when the objects are gone")] = True,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait; 0: no limit")] = "0",
    output_format: Annotated[str, typer.Option("-o", "--output", help="name: print TYPE/NAME only")] = "",
) -> int:
    """Delete objects; disk images stay.

    A virtual machine is shut down first. Its disk images stay, unless its deletionPolicy is Delete or you
    say --purge; then they go to the trash.

    \b
    Example:
      vcl delete vm web
      vcl delete vm/web vm/db --no-wait
      vcl delete -f web.yaml
      vcl delete vms -l app=web --purge --yes
    """
    options = Options(
        purge=purge,
        ignore_missing=ignore_not_found,
        wait=wait,
        timeout=parse_duration(timeout),
        names_only=output.parse_format(output_format, ("name",)).name == "name",
    )
    if filenames and what:
        raise UsageError("-f and names cannot be used together", cure="delete them one after the other")
    if filenames:
        from vcl.inputs import targets_of_files

        targets = targets_of_files(filenames, recursive=recursive)
    else:
        targets = parse_targets(what or ())
    check_selector(targets, selector)
    client = connect(ctx)
    doomed = _doomed(client, targets, selector, everything=everything)
    if purge and doomed and not _sure(doomed, yes=yes):
        print("Cancelled, nothing was deleted")
        return 1
    return delete_all(client, doomed, options)


def delete_all(client: Client, doomed: Doomed, options: Options) -> int:
    """Ask for each deletion, then wait for all. Returns the exit code."""
    failed = False
    going: Doomed = []
    for info, name in doomed:
        try:
            client.delete(f"{info.plural}/{quote(name, safe='')}", {"purge": "1"} if options.purge else None)
            print(f"{info.singular}/{name}" if options.names_only else f'{info.singular} "{name}" deleted')
            going.append((info, name))
        except VclError as error:
            if is_not_found(error) and options.ignore_missing:
                continue
            complain(missing(info, name) if is_not_found(error) else error)
            failed = True
    sys.stdout.flush()
    until = deadline(options.timeout or -1)
    for info, name in going if options.wait else ():
        try:
            wait_until(client, info, name, is_gone, until)
        except VclError as error:
            complain(error)
            failed = True
    return 1 if failed else 0


def _doomed(client: Client, targets: Sequence[Target], selector: str, *, everything: bool) -> Doomed:
    doomed: Doomed = []
    for target in targets:
        names: Sequence[str] = target.names
        if not names:
            if not (selector or everything):
                raise UsageError(
                    f"say which {target.info.plural} to delete",
                    cure="name them, or write -l LABEL=VALUE or --all",
                )
            items = client.objects(target.info, selector).get("items") or []
            names = [str(item["metadata"]["name"]) for item in items]
        doomed += [(target.info, name) for name in names]
    if not doomed:
        print("No resources found", file=sys.stderr)
    return doomed


def _sure(doomed: Doomed, *, yes: bool) -> bool:
    names = ", ".join(f"{info.singular}/{name}" for info, name in doomed)
    return confirm(f"This deletes {names} and puts the disk images into the trash.", yes=yes, what="--purge")
