"""vcl validate: every problem of every file at once, without a daemon."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from vcl import output
from vcl.inputs import read_inputs
from vcl.session import complain


def run(
    paths: Annotated[list[str] | None, typer.Argument(metavar="FILE|DIR|-...")] = None,
    filenames: Annotated[
        list[str] | None, typer.Option("-f", "--filename", help="The same as an argument")
    ] = None,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="Go into subdirectories")] = False,
    nodes: Annotated[
        list[str] | None,
        typer.Option("--nodes", metavar="FILE|DIR", help="All nodes there are: Node manifests, or .csv"),
    ] = None,
    output_format: Annotated[str, typer.Option("-o", "--output", help="json: problems for programs")] = "",
) -> int:
    """Check manifest files, without a daemon.

    Prints every problem as FILE:LINE:COLUMN, with the line. Warnings alone do not fail. With --nodes also
    what these nodes cannot keep: more VMs apart than there are, a required one that there is not.

    \b
    Example:
      vcl validate web.yaml
      vcl validate manifests/ -R
      vcl validate manifests/ --nodes nodes.csv
      git show HEAD:web.yaml | vcl validate -
    """
    from reconciler.resources.problems import summary
    from vcl.manifests import check, print_problems

    chosen = output.parse_format(output_format, ("json",))
    inputs = read_inputs([*(paths or ()), *(filenames or ())], recursive=recursive)
    for error in inputs.errors:
        complain(error)
    hosts = None
    if nodes:
        from vcl.simulating import hosts_of

        hosts = hosts_of(nodes, recursive=recursive)
    checked = check(inputs.files, hosts)
    if chosen.name:
        fields = ("file", "line", "column", "path", "message", "severity")
        print(json.dumps([{name: getattr(p, name) for name in fields} for p in checked.problems], indent=4))
    elif checked.problems:
        print_problems(checked, sys.stdout)
        tail = "" if checked.valid else "; the running VM keeps its last valid spec"
        print(f"{summary(checked.problems)}{tail}")
    elif inputs.files:
        objects, files = len(checked.documents), len(checked.files)
        print(f"{_count(objects, 'object')} in {_count(files, 'file')}: no problems")
    return 0 if checked.valid and not inputs.errors else 1


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
