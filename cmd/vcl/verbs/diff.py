"""vcl diff: what apply would change, as a unified diff or in the user's own tool.

Exit codes are diff's: 0 nothing would change, 1 something would, 2 trouble.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

import typer

from reconciler.resources.errors import VclError
from vcl.applying import problems, results, submit
from vcl.client import Client, is_not_found
from vcl.inputs import Input, read_inputs
from vcl.session import complain, connect

TROUBLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A file as it is in the manifest directory (empty: not there yet) and as it would be."""

    path: str
    live: bytes
    merged: bytes


def run(
    ctx: typer.Context,
    filenames: Annotated[
        list[str] | None, typer.Option("-f", "--filename", help="FILE, DIR or - (stdin); repeat it")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="Go into subdirectories of -f")
    ] = False,
) -> int:
    """Show what apply would change.

    The exit code is 0 when nothing would change, 1 when something would, and 2 when that cannot be told.
    VCL_EXTERNAL_DIFF (or KUBECTL_EXTERNAL_DIFF) names a program to show it, such as 'colordiff -u -N'.

    \b
    Example:
      vcl diff -f web.yaml
      vcl diff -f manifests/ && echo nothing to do
    """
    inputs = read_inputs(filenames or (), recursive=recursive)
    trouble: list[VclError] = list(inputs.errors)
    client = connect(ctx)
    pairs: list[Pair] = []
    for item in inputs.files:
        try:
            pairs += _pairs(client, item)
        except VclError as error:
            trouble.append(error)
    changed = _show([pair for pair in pairs if pair.live != pair.merged])
    for problem in trouble:
        complain(problem)
    return TROUBLE if trouble else changed


def _pairs(client: Client, item: Input) -> list[Pair]:
    sent = submit(client, [item], dry_run=True)
    for error in sent.errors:
        raise error
    failures = [r for r in results(sent.report) if r.get("result") == "failed"]
    if failures:
        for problem in problems(sent.report):
            print(problem, file=sys.stderr)
        raise VclError(f"{item.name}: {failures[0].get('error') or 'it was refused'}")
    paths = dict.fromkeys(str(r["path"]) for r in results(sent.report) if r.get("path"))
    return [Pair(path=path, live=live_bytes(client, path), merged=item.data) for path in paths]


def live_bytes(client: Client, path: str) -> bytes:
    """A manifest file's bytes; empty when there is none."""
    try:
        return client.read(f"manifests/{quote(path)}")
    except VclError as error:
        if is_not_found(error):
            return b""
        raise


def _show(pairs: Sequence[Pair]) -> int:
    program = os.environ.get("VCL_EXTERNAL_DIFF") or os.environ.get("KUBECTL_EXTERNAL_DIFF")
    if program and pairs:
        return _external(program, pairs)
    for pair in pairs:
        sys.stdout.write(unified(pair))
    return 1 if pairs else 0


def unified(pair: Pair) -> str:
    """A unified diff; a last line without its newline is marked as diff does."""
    import difflib

    before, after = (
        text.decode("utf-8", "replace").splitlines(keepends=True) for text in (pair.live, pair.merged)
    )
    old = f"live/{pair.path}" if pair.live else "/dev/null"
    lines = difflib.unified_diff(before, after, fromfile=old, tofile=f"merged/{pair.path}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines
    )


def _external(program: str, pairs: Sequence[Pair]) -> int:
    import shlex
    import subprocess
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory(prefix="vcl-diff-") as top:
        for pair in pairs:
            for side, data in (("LIVE", pair.live), ("MERGED", pair.merged)):
                target = Path(top) / side / pair.path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        sys.stdout.flush()
        command = [*shlex.split(program), f"{top}/LIVE", f"{top}/MERGED"]
        try:
            return subprocess.run(command, check=False).returncode
        except OSError as error:
            raise VclError(
                f"cannot run '{program}': {error.strerror}", cure="correct or unset VCL_EXTERNAL_DIFF"
            ) from error
