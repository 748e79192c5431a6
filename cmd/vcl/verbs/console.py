"""vcl console: a VM's serial console in this terminal.

The terminal is put back as it was however this ends: by Ctrl-], a signal, an error or the daemon's end.
"""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import quote

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind
from vcl.client import is_not_found
from vcl.durations import parse_duration
from vcl.fetching import missing
from vcl.session import UsageError, connect, session
from vcl.targets import one_target

BYTES_A_LINE = 400
MOST_BYTES = 2**20


def run(
    ctx: typer.Context,
    what: Annotated[list[str], typer.Argument(metavar="NAME")],
    tail: Annotated[int, typer.Option("--tail", help="Print the last N lines and leave", min=0)] = 0,
    linger: Annotated[
        str,
        typer.Option("--linger", help="When input is piped: leave after this much silence; negative: never"),
    ] = "1s",
) -> int:
    """Attach to a serial console.

    Press Ctrl-] to leave; the guest goes on. Press Enter if nothing is shown: the guest may be waiting.

    \b
    Example:
      vcl console web
      vcl console web --tail 20
      echo uptime | vcl console web
    """
    info, name = one_target(what, "console", default="vm")
    if info.kind is not Kind.VIRTUAL_MACHINE:
        raise UsageError(
            f"a {info.singular} has no console", cure="write 'vcl console NAME' with a VM's name"
        )
    silence = parse_duration(linger)
    client = connect(ctx)
    path = f"{info.plural}/{quote(name, safe='')}/console"
    try:
        if tail:
            size = min(tail * BYTES_A_LINE, MOST_BYTES)
            sys.stdout.buffer.write(last_lines(client.read(f"{path}/tail", {"bytes": str(size)}), tail))
            return 0
        client.read(f"{path}/tail", {"bytes": "1"})  # says in words why there is no console, if so
    except VclError as error:
        raise (missing(info, name) if is_not_found(error) else error) from error
    from vcl.terminal import attach

    return attach(session(ctx).socket, path, name, linger=silence)


def last_lines(data: bytes, count: int) -> bytes:
    """The last lines of what a console printed, ended by a newline."""
    lines = data.replace(b"\r\n", b"\n").splitlines(keepends=True)[-count:]
    text = b"".join(lines)
    return text if not text or text.endswith(b"\n") else text + b"\n"
