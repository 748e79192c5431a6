"""Asking for what targets name: what exists is returned, what does not becomes an error of its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reconciler.resources.errors import NotFound, VclError
from reconciler.resources.kinds import KindInfo
from vcl.client import Client, is_not_found
from vcl.session import UsageError
from vcl.targets import Target

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """`objects` in the order asked for, and one error for each that was not there."""

    objects: list[Object] = field(default_factory=list)
    errors: list[VclError] = field(default_factory=list)


def missing(info: KindInfo, name: str) -> NotFound:
    """The error for a name that does not exist."""
    return NotFound(
        f"{info.singular} '{name}' not found", cure=f"see those that exist with 'vcl get {info.plural}'"
    )


def check_selector(targets: Iterable[Target], selector: str) -> None:
    """Names and a selector together make no sense: kubectl refuses them, and so does vcl."""
    if selector and any(target.names for target in targets):
        raise UsageError("a selector and names cannot be used together", cure="leave out the names, or -l")


def fetch(client: Client, targets: Sequence[Target], selector: str = "") -> Fetched:
    """The merged objects. A name that does not exist is an error in the result; others raise."""
    check_selector(targets, selector)
    result = Fetched()
    for target in targets:
        if not target.names:
            result.objects.extend(client.objects(target.info, selector).get("items") or [])
        for name in target.names:
            try:
                result.objects.append(client.object(target.info, name))
            except VclError as error:
                if not is_not_found(error):
                    raise
                result.errors.append(missing(target.info, name))
    return result
