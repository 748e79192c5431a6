"""vcl __complete: the candidates for a command line's last word, one a line; silent about any trouble."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import KINDS, Kind, KindInfo, find_kind, info_for
from vcl.client import Client
from vcl.registry import HIDDEN, VERBS, load
from vcl.session import session

TIMEOUT = 1.0
"""Seconds: a daemon that is slower than this completes nothing."""

FIXED: dict[str, dict[str, Sequence[str]]] = {
    "-o": {"get": ("wide", "yaml", "json", "name", "jsonpath=", "custom-columns="), "": ("yaml", "json")},
    "--dry-run": {"": ("none", "client", "server")},
    "--for": {"wait": ("condition=Ready", "delete", "create", "jsonpath="), "": ()},
    "--types": {"": ("Normal", "Warning")},
    "--level": {"": ("debug", "info", "warning", "error")},
}
FILES = ("-f", "--filename", "--socket", "--apply", "--nodes", "--vms")
NAMED = {
    "--node": Kind.NODE,
    "--node-down": Kind.NODE,
    "--drain": Kind.NODE,
    "--to": Kind.NODE,
    "--vm": Kind.VIRTUAL_MACHINE,
}
TYPED = ("get", "describe", "delete", "edit", "wait", "events")
NODES = ("cordon", "uncordon", "drain")
POWER = ("start", "stop", "restart", "reset", "pause", "resume", "retry")
BARE = (*POWER, "migrate", "console", "vnc", "capacity")


def run(
    ctx: typer.Context, words: Annotated[list[str] | None, typer.Argument(metavar="WORD...")] = None
) -> int:
    """Print completions of a command line.

    \b
    Example:
      vcl __complete -- get vm ''
    """
    client = Client(session(ctx).socket, timeout=TIMEOUT)
    for candidate in complete(list(words or [""]), client):
        print(candidate)
    return 0


def complete(words: Sequence[str], client: Client) -> list[str]:
    """The candidates for the last word, which may be empty."""
    *before, current = words
    positional = [word for word in before if not word.startswith("-")]
    if not positional:
        return _matching([verb.name for verb in VERBS], current)
    verb = positional[0]
    name, equals, value = current.partition("=")
    if equals and name.startswith("--") and name in FIXED:
        return [f"{name}={choice}" for choice in _matching(_fixed(name, verb), value)]
    if before[-1] in FIXED or before[-1] == "--output":
        return _matching(_fixed(before[-1], verb), current)
    if before[-1] in NAMED and verb != "simulate":
        return _matching(_names(info_for(NAMED[before[-1]]), client), current)
    if before[-1] in FILES and verb != "logs":
        return []
    if current.startswith("-"):
        return _matching(_options(verb), current)
    return _arguments(verb, positional[1:], current, client)


def _arguments(verb: str, given: Sequence[str], current: str, client: Client) -> list[str]:
    if verb == "disk":
        return _disk_words(given, current, client)
    if verb in NODES:
        return _matching(_names(info_for(Kind.NODE), client), current)
    if verb in BARE:
        return _matching(_names(info_for(Kind.VIRTUAL_MACHINE), client), current)
    if verb in ("explain", "schema"):
        return _matching(_types(), current)
    if verb == "completion":
        return _matching(("bash", "zsh", "fish"), current)
    if verb == "cluster":
        return _matching(("status", "placement"), current)
    if verb == "node":
        if not given:
            return _matching(("confirm-down", "maintenance"), current)
        if given[0] == "maintenance" and len(given) == 2:
            return _matching(("on", "off"), current)
        return _matching(_names(info_for(Kind.NODE), client), current) if len(given) == 1 else []
    if verb not in TYPED:
        return []
    if "/" in current:
        info = find_kind(current.partition("/")[0])
        prefix = current[: current.index("/") + 1]
        return _matching([prefix + name for name in _names(info, client)], current) if info else []
    if not given or any("/" in word for word in given):
        return _matching([*_types(), "all", "failures"] if verb == "get" else _types(), current)
    info = info_for(Kind.VIRTUAL_MACHINE) if given[0] == "failures" else find_kind(given[0])
    taken = set(given[1:])
    return [name for name in _matching(_names(info, client), current) if name not in taken] if info else []


def _disk_words(given: Sequence[str], current: str, client: Client) -> list[str]:
    if not given:
        return _matching(("show", "unlock"), current)
    if len(given) == 1:
        return _matching(_names(info_for(Kind.VIRTUAL_MACHINE), client), current)
    if len(given) > 2 or given[0] != "unlock":
        return []
    try:
        spec = client.object(info_for(Kind.VIRTUAL_MACHINE), given[1]).get("spec") or {}
    except VclError:
        return []
    return _matching([str(disk.get("name")) for disk in spec.get("disks") or []], current)


def _types() -> list[str]:
    return [name for info in KINDS for name in (info.plural, *info.short)]


def _names(info: KindInfo | None, client: Client) -> list[str]:
    if info is None:
        return []
    try:
        rows: Iterable[Any] = client.table(info).get("rows") or []
    except VclError:
        return []
    return [str((row.get("object") or {}).get("name", "")) for row in rows]


def _fixed(option: str, verb: str) -> Sequence[str]:
    choices = FIXED["-o" if option == "--output" else option]
    return choices.get(verb, choices[""])


def _options(verb: str) -> list[str]:
    found = next((v for v in (*VERBS, *HIDDEN) if v.name == verb), None)
    if found is None:
        return []
    options = [o for p in load(found).params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")]
    return sorted([*options, "--help", "--request-timeout", "--socket"])


def _matching(candidates: Iterable[str], start: str) -> list[str]:
    return [candidate for candidate in candidates if candidate.startswith(start)]
