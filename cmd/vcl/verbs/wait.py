"""vcl wait: return when objects are as asked, or fail after a while."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from vcl.client import Client
from vcl.durations import parse_duration
from vcl.fetching import check_selector, missing
from vcl.session import UsageError, complain, connect
from vcl.targets import Target, parse_targets
from vcl.waiting import Goal, condition_is, deadline, is_gone, look, wait_until

FOR = "condition=TYPE[=STATUS], delete, create, or jsonpath='{PATH}'[=VALUE]"


def run(
    ctx: typer.Context,
    what: Annotated[list[str] | None, typer.Argument(metavar="TYPE NAME... | TYPE/NAME...")] = None,
    goal: Annotated[str, typer.Option("--for", help=FOR)] = "",
    timeout: Annotated[
        str, typer.Option("--timeout", help="30s, 5m; 0 looks once, negative waits for ever")
    ] = "30s",
    selector: Annotated[
        str, typer.Option("-l", "--selector", help="Those with labels: a=b,c!=d,e in (f,g)")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="All objects of the type")] = False,
    filenames: Annotated[
        list[str] | None, typer.Option("-f", "--filename", help="The objects of FILE, DIR, -")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="Go into subdirectories of -f")
    ] = False,
) -> int:
    """Wait until objects are as you want them.

    \b
    Example:
      vcl wait vm web --for=condition=Ready --timeout=2m
      vcl wait vm --all --for=condition=Ready
      vcl wait vm/web --for=delete
      vcl wait vm/web --for=jsonpath='{.status.phase}'=Stopped
    """
    reached = parse_goal(goal)
    if filenames:
        from vcl.inputs import targets_of_files

        targets = targets_of_files(filenames, recursive=recursive)
    else:
        targets = parse_targets(what or ())
    check_selector(targets, selector)
    client = connect(ctx)
    until = deadline(parse_duration(timeout))
    failed = False
    for target in _named(client, targets, selector, everything=everything):
        for name in target.names:
            try:
                if goal != "delete" and goal != "create" and look(client, target.info, name) is None:
                    raise missing(target.info, name)
                wait_until(client, target.info, name, reached, until)
                print(f"{target.info.singular}/{name} condition met", flush=True)
            except VclError as error:
                complain(error)
                failed = True
    return 1 if failed else 0


def parse_goal(text: str) -> Goal:
    """What `--for` asks for. Raises UsageError."""
    word, _, rest = text.partition("=")
    if text == "delete":
        return is_gone
    if text == "create":
        return lambda item: item is not None
    if word == "condition" and rest:
        kind, _, status = rest.partition("=")
        return condition_is(kind, status or "True")
    if word == "jsonpath" and rest:
        return _jsonpath_goal(rest)
    raise UsageError(
        f"cannot wait for '{text}'" if text else "say what to wait for", cure=f"write --for={FOR}"
    )


def _jsonpath_goal(text: str) -> Goal:
    from vcl.jsonpath import find, parse_path, text_of

    path, brace, wanted = text.rpartition("}=") if "}=" in text else (text, "", "")
    parsed = parse_path(f"{path}}}" if brace else path)

    def goal(item: dict[str, Any] | None) -> bool:
        found = find(parsed, item or {})
        return any(text_of(value) == wanted for value in found) if brace else bool(found)

    return goal


def _named(client: Client, targets: tuple[Target, ...], selector: str, *, everything: bool) -> list[Target]:
    named = []
    for target in targets:
        names = target.names
        if not names:
            if not (selector or everything):
                raise UsageError(
                    f"say which {target.info.plural} to wait for",
                    cure="name them, or write --all or -l LABEL=VALUE",
                )
            items = client.objects(target.info, selector).get("items") or []
            names = tuple(str(item["metadata"]["name"]) for item in items)
        named.append(Target(info=target.info, names=names))
    if not any(target.names for target in named):
        raise UsageError("no object matches", cure="see what exists with 'vcl get all'")
    return named
