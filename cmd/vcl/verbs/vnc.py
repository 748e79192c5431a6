"""vcl vnc: where a VM's screen is, and how to reach it from elsewhere."""

from __future__ import annotations

import socket
import sys
from typing import Annotated
from urllib.parse import quote

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind
from vcl import output
from vcl.client import is_not_found
from vcl.fetching import missing
from vcl.session import UsageError, connect
from vcl.targets import one_target


def run(
    ctx: typer.Context,
    what: Annotated[list[str], typer.Argument(metavar="NAME")],
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")] = "",
) -> int:
    """Show where a VM's screen is.

    The screen is on the loopback address of the VM's node; from elsewhere, tunnel to it with ssh.

    \b
    Example:
      vcl vnc web
      vncviewer $(vcl vnc web)
    """
    info, name = one_target(what, "vnc", default="vm")
    if info.kind is not Kind.VIRTUAL_MACHINE:
        raise UsageError(f"a {info.singular} has no screen", cure="write 'vcl vnc NAME' with a VM's name")
    chosen = output.parse_format(output_format, ("yaml", "json"))
    client = connect(ctx)
    try:
        answer = client.get(f"{info.plural}/{quote(name, safe='')}/vnc")
    except VclError as error:
        raise (missing(info, name) if is_not_found(error) else error) from error
    if chosen.name:
        output.printer(chosen)(answer)
        return 0
    host, port = str(answer["host"]), int(answer["port"])
    print(f"{f'[{host}]' if ':' in host else host}:{port}", flush=True)
    node = str((client.object(info, name).get("status") or {}).get("node") or "")
    if node and node != socket.gethostname() and sys.stderr.isatty():
        print(f"from another machine: ssh -L {port}:{host}:{port} {node}", file=sys.stderr)
    return 0
