"""What start, stop, restart, reset, pause, resume and retry share: ask for each VM, go on past failures.

Invariant: of VMs of different priority the more important ones are started first and stopped last; with
`--wait` those of one priority are done before the next are asked, while there is time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl.client import Client, is_not_found
from vcl.durations import parse_duration
from vcl.fetching import missing
from vcl.progress import Progress
from vcl.session import UsageError, complain, connect
from vcl.targets import vm_names
from vcl.waiting import Goal, deadline, look, phase_is, status_of, wait_for_all

VM = info_for(Kind.VIRTUAL_MACHINE)

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...")]
Selector = Annotated[str, typer.Option("-l", "--selector", help="Those with labels: a=b,c!=d,e in (f,g),!h")]
Everything = Annotated[bool, typer.Option("--all", help="Every virtual machine")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it is done")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long to --wait: 30s, 5m; negative: for ever")]
Force = Annotated[bool, typer.Option("--force", help="Pull the plug: do not ask the guest to shut down")]

ANEW = ("restart", "reset")
"""Verbs that a VM's claim shows as honoured, by the id of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """`asked` and `done` are what is printed; `phases` are where the VM ends up. `ends`: it takes VMs away,
    so the least important ones go first."""

    name: str
    asked: str
    done: str
    phases: tuple[str, ...]
    ends: bool = False


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
    waves = _waves(client, verb, which)
    total = sum(len(wave) for wave in waves)
    progress = Progress(total, plain=total > 1)
    failed = False
    for wave in waves:
        goals: dict[str, Goal] = {}
        for name in wave:
            try:
                goals[name] = _ask(client, verb, name, how)
                progress.clear()
                print(f"{VM.singular}/{name} {verb.asked}", flush=True)
            except VclError as error:
                progress.end(name)
                complain(missing(VM, name) if is_not_found(error) else error)
                failed = True
        if how.wait and not _awaited(client, verb, goals, until, progress):
            failed = True
    return 1 if failed else 0


def _awaited(client: Client, verb: Verb, goals: Mapping[str, Goal], until: float, progress: Progress) -> bool:
    """Wait for all, and say of each how it ended; whether all did well."""
    well = True
    for name, error in wait_for_all(client, VM, goals, until, progress):
        progress.end(f"{VM.singular}/{name}")
        if error is None:
            print(f"{VM.singular}/{name} {verb.done}", flush=True)
        else:
            complain(error)
            well = False
    return well


def _ask(client: Client, verb: Verb, name: str, how: How) -> Goal:
    anew = verb.name in ANEW
    before = _honoured(look(client, VM, name), verb) if anew else None
    client.verb(name, verb.name, {} if how.force is None else {"force": how.force})
    reached = phase_is(*verb.phases)
    if not anew:
        return reached

    def done_anew(item: Any) -> bool:
        waits = (status_of(item).get("intent") or {}).get(verb.name)
        return reached(item) and not waits and _honoured(item, verb) != before

    return done_anew


def _honoured(item: Any, verb: Verb) -> Any:
    """The request that the VM's run honours already: another one after each restart, or reset."""
    return (status_of(item).get("claim") or {}).get(verb.name)


def _waves(client: Client, verb: Verb, which: Which) -> list[list[str]]:
    """The names by priority, in the order in which they are asked; of one priority as they were given."""
    names, priorities = _chosen(client, verb, which)

    def rank(name: str) -> int:
        return priorities.get(name, 0) * (1 if verb.ends else -1)

    return [list(wave) for _, wave in groupby(sorted(names, key=rank), key=rank)]


def _chosen(client: Client, verb: Verb, which: Which) -> tuple[Sequence[str], Mapping[str, int]]:
    """The names, and the priorities of those that exist."""
    names = vm_names(which.words or (), verb.name)
    given = sum((bool(names), bool(which.selector), which.all))
    if given != 1:
        raise UsageError(
            f"say which virtual machines to {verb.name}"
            if not given
            else "names, -l and --all exclude each other",
            cure=f"write 'vcl {verb.name} NAME...', -l LABEL=VALUE or --all",
        )
    if len(names) == 1:
        return names, {}
    items = client.objects(VM, which.selector).get("items") or []
    priorities = {str(item["metadata"]["name"]): _priority(item) for item in items}
    if not names and not items:
        print("No resources found", file=sys.stderr)
    return names or tuple(priorities), priorities


def _priority(item: Mapping[str, Any]) -> int:
    value = (item.get("spec") or {}).get("priority")
    return value if isinstance(value, int) else 0
