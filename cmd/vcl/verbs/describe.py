"""vcl describe: one object in words, with its history."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from reconciler.resources.kinds import Kind, info_for
from vcl.client import Client
from vcl.durations import now
from vcl.fetching import fetch
from vcl.session import complain, connect
from vcl.targets import parse_targets
from vcl.verbs.events import list_events


def run(
    ctx: typer.Context,
    what: Annotated[list[str] | None, typer.Argument(metavar="TYPE [NAME...] | TYPE/NAME...")] = None,
    selector: Annotated[
        str, typer.Option("-l", "--selector", help="Those with labels: a=b,c!=d,e in (f,g)")
    ] = "",
    filenames: Annotated[
        list[str] | None, typer.Option("-f", "--filename", help="The objects of FILE, DIR, -")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="Go into subdirectories of -f")
    ] = False,
    show_events: Annotated[bool, typer.Option("--show-events/--no-show-events", help="With events")] = True,
) -> int:
    """Show all about an object, with its history.

    \b
    Example:
      vcl describe vm web
      vcl describe node/r1
      vcl describe vms -l app=web
    """
    from vcl.describing import Facts, describe

    if filenames:
        from vcl.inputs import targets_of_files

        targets = targets_of_files(filenames, recursive=recursive)
    else:
        targets = parse_targets(what or ())
    client = connect(ctx)
    found = fetch(client, targets, selector)
    vms = _vms(client, found.objects)
    for index, item in enumerate(found.objects):
        events = _events_of(client, item) if show_events else []
        sys.stdout.write("\n\n" if index else "")
        sys.stdout.write(describe(Facts(item=item, events=events, vms=vms, at=now())))
    for error in found.errors:
        complain(error)
    if not found.objects and not found.errors:
        print("No resources found", file=sys.stderr)
    return 1 if found.errors else 0


def _events_of(client: Client, item: dict[str, Any]) -> list[dict[str, Any]]:
    """Its events; those of a failover are its node's that name the incident."""
    kind, name = str(item.get("kind")), str((item.get("metadata") or {}).get("name"))
    if kind != Kind.FAILOVER:
        return list_events(client, {"kind": kind, "name": name})
    node = str((item.get("status") or {}).get("node"))
    found = list_events(client, {"kind": Kind.NODE.value, "name": node})
    return [event for event in found if name in str(event.get("message"))]


def _vms(client: Client, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if not any(item.get("kind") == Kind.NODE for item in objects):
        return []
    return list(client.objects(info_for(Kind.VIRTUAL_MACHINE)).get("items") or [])
