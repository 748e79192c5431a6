"""Finds the controllers that are installed: our own and other people's, through one entry-point group.

Invariant: a controller that cannot be loaded is an error that names its package; no other one stands in for
it, since "a VM of an unknown controller" must never look like "a VM that is gone".
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, distributions, entry_points

from reconciler.ports.controller import ControllerFactory
from reconciler.resources.errors import InvalidInput

GROUP = "vcl.controllers"


def discover(path: Iterable[str] | None = None) -> Mapping[str, EntryPoint]:
    """The installed controllers by name, sorted; `path` (default: sys.path) is where to look.

    Raises InvalidInput when two packages claim one name for different things: neither is preferred.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(_entries(path), key=lambda e: (e.name, e.value)):
        other = found.get(entry.name)
        if other is not None and other.value != entry.value:
            raise InvalidInput(
                f"two packages provide a controller '{entry.name}': "
                f"{_describe(other)} and {_describe(entry)}",
                cure="uninstall one of them",
            )
        found[entry.name] = entry
    return found


def load(name: str, path: Iterable[str] | None = None) -> ControllerFactory:
    """The factory of the controller called `name`. Raises InvalidInput: unknown, or its package is broken."""
    known = discover(path)
    entry = known.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"installed are: {', '.join(known) or 'none'}"
        raise InvalidInput(
            f"there is no controller '{name}'; {hint}",
            cure=f"or install the package that provides it (entry-point group {GROUP})",
        )
    try:
        factory = entry.load()
    except Exception as error:  # another package's module may raise anything while it is imported
        raise InvalidInput(
            f"the controller '{name}' ({_describe(entry)}) cannot be loaded: {type(error).__name__}: {error}",
            cure="install what it needs, or remove the package",
        ) from error
    if not callable(factory):
        raise InvalidInput(
            f"the controller '{name}' ({_describe(entry)}) is a {type(factory).__name__}, not a function "
            "that takes a ControllerContext",
            cure="see docs/writing-a-controller.md",
        )
    return factory  # type: ignore[no-any-return]


def _entries(path: Iterable[str] | None) -> list[EntryPoint]:
    if path is None:
        return list(entry_points(group=GROUP))
    found = distributions(path=list(path))
    return [entry for dist in found for entry in dist.entry_points if entry.group == GROUP]


def _describe(entry: EntryPoint) -> str:
    package = f"package {entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown package"
    return f"{entry.value} of {package}"
