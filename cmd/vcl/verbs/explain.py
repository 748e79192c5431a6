"""vcl explain: a kind's fields in words, from the very schema that manifests are checked against."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def run(
    path: Annotated[str, typer.Argument(metavar="TYPE[.FIELD...]", help="Such as vm.spec.disks")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-R", help="All fields below, without texts")
    ] = False,
) -> int:
    """Explain the fields of a kind.

    \b
    Example:
      vcl explain vm
      vcl explain vm.spec.disks
      vcl explain vm.spec --recursive
    """
    from vcl.explaining import explain

    sys.stdout.write(explain(path, recursive=recursive))
    return 0
