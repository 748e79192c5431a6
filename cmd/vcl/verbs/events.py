"""vcl events: what happened, oldest first, and what happens from now on with -w."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

from vcl import output
from vcl.client import Client, Unreachable
from vcl.durations import age, now
from vcl.session import connect
from vcl.table import clean, render
from vcl.targets import one_target

Object = dict[str, Any]
HEADERS = ("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE")


def run(
    ctx: typer.Context,
    what: Annotated[list[str] | None, typer.Argument(metavar="[TYPE NAME | TYPE/NAME]")] = None,
    about: Annotated[str, typer.Option("--for", help="Only about this object: TYPE/NAME")] = "",
    types: Annotated[str, typer.Option("--types", help="Only these: Normal, Warning")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Then print every new one")] = False,
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of wide, yaml, json")] = "",
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Leave out the header line")] = False,
) -> int:
    """Show what happened.

    \b
    Example:
      vcl events
      vcl events vm/web -w
      vcl events --types=Warning -o json
    """
    chosen = output.parse_format(output_format, ("wide", "yaml", "json"))
    words = [about] if about else (what or [])
    query = event_query(words)
    wanted = {word.strip().capitalize() for word in types.split(",") if word.strip()}
    client = connect(ctx)
    if watch:
        return _follow(client, query, wanted, chosen)
    items = [item for item in list_events(client, query) if not wanted or item.get("type") in wanted]
    if not chosen.is_table:
        output.printer(chosen)({"apiVersion": "vcl/v1", "kind": "EventList", "items": items})
    elif items:
        sys.stdout.write(render(event_rows(items, now(), wide=chosen.name == "wide", headers=not no_headers)))
    else:
        print("No events found", file=sys.stderr)
    return 0


def event_query(words: Sequence[str]) -> dict[str, str]:
    """The API's query for events of one object, or of all."""
    if not words:
        return {}
    info, name = one_target(words, "events")
    return {"kind": info.kind.value, "name": name}


def list_events(client: Client, query: dict[str, str]) -> list[Object]:
    """The events that the daemon remembers, oldest first."""
    return list(client.get("events", query).get("items") or [])


def event_rows(
    items: Sequence[Object], at: datetime, *, wide: bool = False, headers: bool = True
) -> list[tuple[str, ...]]:
    """The lines of a table of events."""
    rows = [(*HEADERS, "NODE")[: 6 if wide else 5]] if headers else []
    for item in items:
        about = output.named(str(item.get("kind", "")), str(item.get("name", "")))
        cells = (
            seen(item, at),
            str(item.get("type", "")),
            str(item.get("reason", "")),
            about,
            str(item.get("message", "")),
            str(item.get("node", "")),
        )
        rows.append(tuple(clean(cell) for cell in cells[: 6 if wide else 5]))
    return rows


def seen(item: Object, at: datetime) -> str:
    """`5m`, or `5m (x3 over 1h)` of an event that was counted."""
    last = age(item.get("time"), at)
    count = item.get("count") or 1
    return (
        f"{last} (x{count} over {age(item.get('firstTime'), at)})"
        if count > 1 and item.get("firstTime")
        else last
    )


def _follow(client: Client, query: dict[str, str], wanted: set[str], chosen: output.Format) -> int:
    least = [9, 7, 12, 20, 7, 4][: 6 if chosen.name == "wide" else 5]
    if chosen.is_table:
        sys.stdout.write(render([(*HEADERS, "NODE")[: len(least)]], least))
        sys.stdout.flush()
    for item in _stream(client, query):
        if wanted and item.get("type") not in wanted:
            continue
        if chosen.is_table:
            rows = event_rows([item], now(), wide=chosen.name == "wide", headers=False)
            sys.stdout.write(render(rows, least))
        else:
            output.printer(chosen)(item)
        sys.stdout.flush()
    raise Unreachable("the daemon ended the watch", cure="it may be restarting; run the command again")


def _stream(client: Client, query: dict[str, str]) -> Iterator[Object]:
    for event in client.watch("events", query):
        if event.type in ("ADDED", "MODIFIED"):
            yield event.object
