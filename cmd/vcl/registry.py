"""Which verbs there are. A verb's module is imported when the verb is used, so that `vcl get` stays fast.

The one-line help stands here for the same reason; tests hold it against the modules.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

EPILOG = "Every verb also takes --socket PATH (or VCL_SOCKET) and --request-timeout DURATION."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """`module` in vcl.verbs holds a function `run`, or a typer app called `app`."""

    name: str
    module: str
    help: str
    group: str


BASIC = "See and change"
POWER = "Run"
WRITE = "Write manifests"
CARE = "Care"

VERBS: tuple[Verb, ...] = (
    Verb(name="get", module="get", group=BASIC, help="Show one or many objects."),
    Verb(name="describe", module="describe", group=BASIC, help="Show all about an object, with its history."),
    Verb(name="apply", module="apply", group=BASIC, help="Create or change objects from manifest files."),
    Verb(name="adopt", module="adopt", group=BASIC, help="Make VMs of libvirt domains that you have."),
    Verb(name="edit", module="edit", group=BASIC, help="Edit an object's manifest in your editor."),
    Verb(name="delete", module="delete", group=BASIC, help="Delete objects; disk images stay."),
    Verb(name="diff", module="diff", group=BASIC, help="Show what apply would change."),
    Verb(name="plan", module="plan", group=BASIC, help="Show what would happen, and do nothing."),
    Verb(name="capacity", module="capacity", group=BASIC, help="Show how many more of a VM fit."),
    Verb(name="wait", module="wait", group=BASIC, help="Wait until objects are as you want them."),
    Verb(name="events", module="events", group=BASIC, help="Show what happened."),
    Verb(name="logs", module="logs", group=BASIC, help="Show what the nodes' daemons say."),
    Verb(name="start", module="start", group=POWER, help="Start virtual machines."),
    Verb(name="stop", module="stop", group=POWER, help="Shut virtual machines down."),
    Verb(name="restart", module="restart", group=POWER, help="Shut virtual machines down and start them."),
    Verb(name="reset", module="reset", group=POWER, help="Press virtual machines' reset button."),
    Verb(name="pause", module="pause", group=POWER, help="Freeze virtual machines where they are."),
    Verb(name="resume", module="resume", group=POWER, help="Let paused virtual machines go on."),
    Verb(name="retry", module="retry", group=POWER, help="Forget failures and try again now."),
    Verb(name="migrate", module="migrate", group=POWER, help="Move a running VM to another node."),
    Verb(name="console", module="console", group=POWER, help="Attach to a serial console."),
    Verb(name="vnc", module="vnc", group=POWER, help="Show where a VM's screen is."),
    Verb(name="validate", module="validate", group=WRITE, help="Check manifest files, without a daemon."),
    Verb(name="simulate", module="simulate", group=WRITE, help="Place VMs on nodes, without a cluster."),
    Verb(name="explain", module="explain", group=WRITE, help="Explain the fields of a kind."),
    Verb(name="schema", module="schema", group=WRITE, help="Print a kind's JSON Schema."),
    Verb(name="init", module="init", group=CARE, help="Make a cluster, on its first node."),
    Verb(name="join", module="join", group=CARE, help="Make this host a node of a cluster."),
    Verb(name="disk", module="disk", group=CARE, help="Show who holds disk images, and unlock them."),
    Verb(name="confirm", module="confirm", group=CARE, help="Let held deletions pass."),
    Verb(name="cordon", module="cordon", group=CARE, help="Place no more VMs on a node."),
    Verb(name="uncordon", module="uncordon", group=CARE, help="Place VMs on a node again."),
    Verb(name="drain", module="drain", group=CARE, help="Move all VMs off a node, and place no more on it."),
    Verb(
        name="node",
        module="node",
        group=CARE,
        help="Take a node out for maintenance, or say of it what only a person can know.",
    ),
    Verb(
        name="cluster",
        module="cluster",
        group=CARE,
        help="Show how the cluster is doing, shut it down, and start it again.",
    ),
    Verb(name="doctor", module="doctor", group=CARE, help="Check this machine, and say how to cure it."),
    Verb(name="completion", module="completion", group=CARE, help="Print a shell completion script."),
    Verb(name="version", module="version", group=CARE, help="Print the versions of vcl and vcld."),
)

HIDDEN: tuple[Verb, ...] = (
    Verb(name="__complete", module="complete", group="", help="Print completions of a command line."),
)

_BY_NAME = {verb.name: verb for verb in (*VERBS, *HIDDEN)}


def load(verb: Verb) -> Any:
    """Import the verb's module and build its command."""
    module = importlib.import_module(f"vcl.verbs.{verb.module}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        settings = {"ignore_unknown_options": True, "help_option_names": []} if verb in HIDDEN else None
        app.command(verb.name, epilog=EPILOG, context_settings=settings, hidden=verb in HIDDEN)(module.run)
    command = typer.main.get_command(app)
    command.name = verb.name
    return command


class VerbGroup(TyperGroup):
    """A command group that knows its verbs by name and imports the one that is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [verb.name for verb in VERBS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        verb = _BY_NAME.get(cmd_name)
        return load(verb) if verb else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs by group, from the table above: no module is imported for it."""
        width = max(len(verb.name) for verb in VERBS)
        for group in (BASIC, POWER, WRITE, CARE):
            with formatter.section(group):
                formatter.write_dl([(v.name.ljust(width), v.help) for v in VERBS if v.group == group])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in _BY_NAME:
            ctx.fail(_unknown(args[0]))
        return super().resolve_command(ctx, args)


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, [verb.name for verb in VERBS], n=1)
    return f"unknown verb '{name}'" + (f"; did you mean '{near[0]}'?" if near else "")
