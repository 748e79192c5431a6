"""vcl join: make this host a node of a cluster, with the bundle that `vcl init` made for it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcl.node_config import DIRECTORY


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The file NODE.vcl that `vcl init` made")],
    node: Annotated[
        str | None, typer.Option("--node", metavar="NAME", help="This host is that node, whatever its name")
    ] = None,
    directory: Annotated[Path, typer.Option(help="Where vcl's own files are")] = DIRECTORY,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that say otherwise; they are kept beside")
    ] = False,
) -> int:
    """Make this host a node of a cluster.

    \b
    Example:
      vcl join r2.vcl
      vcl join r2.vcl --node r2            # when the host is called otherwise
    """
    from vcl import here
    from vcl.join_bundle import read_bundle
    from vcl.joining import join
    from vcl.node_files import Hand, NodeFiles
    from vcl.session import warn

    read = read_bundle(bundle)
    if bundle.stat().st_mode & 0o077:
        warn(f"{bundle} can be read by others, and has keys in it; chmod 600 it, and remove it afterwards")
    files = NodeFiles(directory=directory.absolute())
    join(read, files, Hand(force=force), called=node or here.name())
    return 0
