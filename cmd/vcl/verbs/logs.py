"""vcl logs: what the daemons of all nodes say, in one order."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from reconciler.resources.errors import InvalidInput, VclError
from reconciler.resources.logrecords import parse_level, parse_log_time
from vcl import output
from vcl.durations import now, parse_duration
from vcl.log_stream import LogStream
from vcl.session import UsageError, connect, warn
from vcl.table import clean

Object = dict[str, Any]

FOLLOW_TAIL = 10
"""Lines that -f alone begins with."""

COLOURS = {"debug": "2", "warning": "33", "error": "31"}
DIM = "2"


def run(
    ctx: typer.Context,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is said from now on")
    ] = False,
    node: Annotated[str, typer.Option("--node", help="Only what this node says")] = "",
    vm: Annotated[str, typer.Option("--vm", help="Only what is about this virtual machine")] = "",
    level: Annotated[
        str, typer.Option("--level", help="This and worse: debug, info, warning, error")
    ] = "debug",
    since: Annotated[
        str, typer.Option("--since", help="Begin so long ago (10m), or at a time (2026-01-31T12:00:00Z)")
    ] = "",
    tail: Annotated[
        int | None,
        typer.Option(
            "--tail", help=f"Begin with the last N lines; -1: all [-f alone: {FOLLOW_TAIL}]", min=-1
        ),
    ] = None,
    output_format: Annotated[str, typer.Option("-o", "--output", help="json: one object a line")] = "",
) -> int:
    """Show what the nodes' daemons say.

    Times are those of each node's clock, in UTC. What is older than what the daemons hold in memory is in
    the files STATEDIR/log of each node.

    \b
    Example:
      vcl logs --since 10m
      vcl logs -f --vm web
      vcl logs --node r2 --level warning -o json
    """
    as_json = output.parse_format(output_format, ("json",)).name == "json"
    if tail is None and follow and not since:
        tail = FOLLOW_TAIL
    query = {"level": parse_level(level).value}
    query |= {"node": node} if node else {}
    query |= {"vm": vm.rpartition("/")[2]} if vm else {}
    query |= {"since": since_time(since)} if since else {}
    query |= {"tail": str(tail)} if tail is not None and tail >= 0 else {}
    query |= {"follow": "1"} if follow else {}
    colours = not as_json and coloured()
    for line in LogStream(connect(ctx), query, say=note).lines():
        if line.type == "RECORD":
            sys.stdout.write(as_line(line.object) if as_json else human(line.object, colours=colours))
        elif line.type == "MISSING" and node and not follow:
            raise VclError(
                str(line.object.get("message")), cure="see 'vcl cluster status', or ask on that node"
            )
        else:
            (note if line.type == "BACK" else warn)(clean(str(line.object.get("message", ""))))
        if follow:
            sys.stdout.flush()
    return 0


def note(message: str) -> None:
    """Say on stderr how the stream is doing."""
    sys.stdout.flush()
    print(message, file=sys.stderr, flush=True)


def since_time(text: str) -> str:
    """The time that `--since` means, as the API takes it. Raises UsageError."""
    try:
        seconds = parse_duration(text)
    except InvalidInput:
        try:
            return parse_log_time(text)
        except InvalidInput as error:
            raise UsageError(
                f"--since '{text[:40]}' is neither a duration nor a time",
                cure="write it like 10m, or 2026-01-31T12:00:00Z",
            ) from error
    try:
        return parse_log_time((now() - timedelta(seconds=seconds)).isoformat())
    except OverflowError as error:
        raise UsageError(f"--since {text[:40]} is before all time", cure="leave it out to see all") from error


def as_line(record: Object) -> str:
    """The record as one line of JSON."""
    return json.dumps(record, ensure_ascii=False) + "\n"


def human(record: Object, *, colours: bool = False) -> str:
    """`2026-01-31T12:00:00.000Z r1 INFO vm web: ...`; further lines of a message are indented."""
    level, vm = str(record.get("level", "")), record.get("vm")
    message = str(record.get("message", ""))
    if vm and not message.startswith(f"vm {vm}: "):
        message = f"vm {vm}: {message}"
    first, *rest = [clean(part) for part in message.rstrip("\n").split("\n")]
    time = clean(str(record.get("time", "")))
    time = time[:23] + "Z" if len(time) == 27 else time
    word = clean(level.upper())
    if colours:
        time = _paint(time, DIM)
        word = _paint(word, COLOURS.get(level, ""))
    text = f"{time} {clean(str(record.get('node', '')))} {word} {first}"
    return "\n    ".join([text, *rest]) + "\n"


def coloured() -> bool:
    """Whether people look at a terminal that shows colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _paint(text: str, colour: str) -> str:
    return f"\x1b[{colour}m{text}\x1b[0m" if colour else text
