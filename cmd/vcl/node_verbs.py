"""What cordon and uncordon have in common: ask for each node, go on past failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl.client import is_not_found
from vcl.fetching import missing
from vcl.session import UsageError, complain, connect
from vcl.targets import checked_name

NODE = info_for(Kind.NODE)

Nodes = Annotated[list[str] | None, typer.Argument(metavar="NODE...")]
BringBack = Annotated[bool, typer.Option("--return", help="VMs that went away for it come back")]


def node_names(words: Sequence[str] | None, verb: str) -> tuple[str, ...]:
    """Bare names, or `node/r1`. Raises UsageError."""
    if not words:
        raise UsageError(f"say which node to {verb}", cure=f"write 'vcl {verb} NODE'")
    return tuple(dict.fromkeys(checked_name(word.removeprefix("node/")) for word in words))


def perform(
    ctx: typer.Context, verb: str, words: Sequence[str] | None, done: str, body: Mapping[str, Any]
) -> int:
    """Ask the daemon for each node. Returns the exit code."""
    client = connect(ctx)
    failed = False
    for name in node_names(words, verb):
        try:
            client.node_verb(name, verb, body)
            print(f"node/{name} {done}")
        except VclError as error:
            complain(missing(NODE, name) if is_not_found(error) else error)
            failed = True
    return 1 if failed else 0
