"""vcl version: what runs here and there, for bug reports."""

from __future__ import annotations

import platform
from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import API_VERSION
from vcl import output
from vcl.session import complain, connect
from vcl.sheet import spaced
from vcl.table import clean, render


def run(
    ctx: typer.Context,
    client_only: Annotated[bool, typer.Option("--client", help="Only this program's version")] = False,
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")] = "",
) -> int:
    """Print the versions of vcl and vcld.

    \b
    Example:
      vcl version
      vcl version --client -o json
    """
    chosen = output.parse_format(output_format, ("yaml", "json"))
    document: dict[str, Any] = {"client": client_version()}
    failure: VclError | None = None
    if not client_only:
        try:
            document["daemon"] = connect(ctx).get("/version")
        except VclError as error:
            failure = error
    if chosen.name:
        output.printer(chosen)(document)
    else:
        rows = [
            (f"{spaced(side)} {spaced(key)[0].lower()}{spaced(key)[1:]}:", clean(str(value)))
            for side, facts in document.items()
            for key, value in facts.items()
            if value is not None
        ]
        print(render(rows, gap="  "), end="")
    if failure:
        complain(failure)
    return 1 if failure else 0


def client_version() -> dict[str, str]:
    """This program's version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        own = version("vcl")
    except PackageNotFoundError:
        own = "unknown (not installed)"
    return {"version": own, "apiVersion": API_VERSION, "python": platform.python_version()}
