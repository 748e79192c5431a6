"""vcl schema: the JSON Schema of a kind, for editors and CI."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from reconciler.resources.kinds import KINDS, WRITTEN
from vcl.session import UsageError
from vcl.targets import written_kind


def run(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Without it, the kinds are listed")] = "",
) -> int:
    """Print a kind's JSON Schema.

    Editors with a YAML language server complete and check manifests with it.

    \b
    Example:
      vcl schema vm > virtualmachine.json
      vcl schema
    """
    if not kind:
        print("\n".join(info.singular for info in KINDS if info.kind in WRITTEN))
        return 0
    if "/" in kind or "," in kind:
        raise UsageError(f"'{kind}' is not a kind", cure="see the kinds with 'vcl schema'")
    from reconciler.adapters.schema_files import schema_text

    sys.stdout.write(schema_text(written_kind(kind).kind))
    return 0
