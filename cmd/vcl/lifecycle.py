"""What start, stop, restart, pause, resume and retry have in common: ask for each VM, go on past failures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl.client import Client, is_not_found
from vcl.durations import parse_duration
from vcl.fetching import missing
from vcl.session import UsageError, complain, connect
from vcl.targets import vm_names
from vcl.waiting import Goal, deadline, look, phase_is, status_of, wait_until

VM = info_for(Kind.VIRTUAL_MACHINE)

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...")]
Selector = Annotated[str, typer.Option("-l", "--selector", help="Those with labels: a=b,c!=d,e in (f,g),!h")]
Everything = Annotated[bool, typer.Option("--all", help="Every virtual machine")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is done")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to --wait: 30s, 5m; negative: for ever")]
Force = Annotated[bool, typer.Option("--force", help="Pull the plug: do not ask the guest to shut down")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """`asked` and `done` are what is printed; `phases` are where the VM ends up."""

    name: str
    asked: str
    done: str
    phases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """The VMs that the command line means."""

    words: Sequence[str] | None
    selector: str = ""
    all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """Whether to wait, for how long (a duration as written), and whether to be rude."""

    wait: bool = False
    timeout: str = "2m"
    force: bool | None = None


def perform(ctx: typer.Context, verb: Verb, which: Which, how: How) -> int:
    """Ask the daemon for each VM, then wait for all of them. Returns the exit code."""
    client = connect(ctx)
    until = deadline(parse_duration(how.timeout))
    goals: dict[str, Goal] = {}
    failed = False
    for name in _names(client, verb, which):
        try:
            goals[name] = _ask(client, verb, name, how)
            print(f"{VM.singular}/{name} {verb.asked}")
        except VclError as error:
            complain(missing(VM, name) if is_not_found(error) else error)
            failed = True
    sys.stdout.flush()
    for name, goal in goals.items() if how.wait else ():
        try:
            wait_until(client, VM, name, goal, until)
            print(f"{VM.singular}/{name} {verb.done}")
        except VclError as error:
            complain(error)
            failed = True
    return 1 if failed else 0


def _ask(client: Client, verb: Verb, name: str, how: How) -> Goal:
    before = _honoured(look(client, VM, name)) if verb.name == "restart" else None
    client.verb(name, verb.name, {} if how.force is None else {"force": how.force})
    reached = phase_is(*verb.phases)
    if verb.name != "restart":
        return reached

    def started_anew(item: Any) -> bool:
        waits = (status_of(item).get("intent") or {}).get("restart")
        return reached(item) and not waits and _honoured(item) != before

    return started_anew


def _honoured(item: Any) -> Any:
    """The request for a restart that the VM's run honours already: another one after each restart."""
    return (status_of(item).get("claim") or {}).get("restart")


def _names(client: Client, verb: Verb, which: Which) -> tuple[str, ...]:
    names = vm_names(which.words or (), verb.name)
    given = sum((bool(names), bool(which.selector), which.all))
    if given != 1:
        raise UsageError(
            f"say which virtual machines to {verb.name}"
            if not given
            else "names, -l and --all exclude each other",
            cure=f"write 'vcl {verb.name} NAME...', -l LABEL=VALUE or --all",
        )
    if names:
        return names
    items = client.objects(VM, which.selector).get("items") or []
    if not items:
        print("No resources found", file=sys.stderr)
    return tuple(str(item["metadata"]["name"]) for item in items)
