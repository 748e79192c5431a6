"""vcl confirm: let deletions pass that the mass-delete guard holds, after showing what they are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reconciler.resources.errors import NotFound
from vcl import output
from vcl.prompting import confirm
from vcl.session import connect


def run(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="[ID]", help="The id that 'vcl cluster status' shows")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> int:
    """Let held deletions pass.

    When many manifests vanish at once, vcl holds the deletions: it may be a mistake, such as an unmounted
    directory. If they are meant, this lets them pass; if not, put the files back.

    \b
    Example:
      vcl confirm
      vcl confirm 3f9c --yes
    """
    client = connect(ctx)
    held = held_deletions(client.get("status"))
    if not held or (id and held.get("id") != id):
        raise NotFound(
            f"no deletions are held with the id '{id}'" if id else "no deletions are held",
            cure="see 'vcl cluster status'",
        )
    for item in held.get("objects") or []:
        print(output.named(*object_name(item)))
    count = len(held.get("objects") or [])
    if not confirm(f"Delete these {count} objects?", yes=yes, what="deleting them"):
        print("Cancelled, nothing was deleted")
        return 1
    client.post("confirm", {"id": held["id"]})
    print(f"confirmed: {count} deletion{'s' if count != 1 else ''} will go on")
    return 0


def held_deletions(status: dict[str, Any]) -> dict[str, Any] | None:
    """The held deletions of a daemon's status, or None."""
    return status.get("heldDeletions") or (status.get("manifests") or {}).get("held") or None


def object_name(item: Any) -> tuple[str, str]:
    """(kind, name) of an entry: a map or a pair."""
    if isinstance(item, dict):
        return str(item.get("kind", "")), str(item.get("name", ""))
    return str(item[0]), str(item[1])
