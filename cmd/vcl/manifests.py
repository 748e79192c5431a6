"""Reading manifests on this side, with the daemon's own reader: for validate, --dry-run=client and -f.

Nothing here needs a daemon, so that a manifest can be checked in an editor or in CI.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.kinds import KindInfo, info_for
from reconciler.resources.manifest import Document, ParsedFile, parse_manifest
from reconciler.resources.problems import Finding, Problem, in_order, render, summary
from vcl.inputs import Input
from vcl.session import complain

ADVICE = "correct the lines above and try again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Every file as it was read, and every problem in all of them, sorted."""

    files: tuple[ParsedFile, ...]
    problems: tuple[Problem, ...]

    @property
    def valid(self) -> bool:
        return all(file.valid for file in self.files)

    @property
    def documents(self) -> tuple[Document, ...]:
        return tuple(document for file in self.files for document in file.documents)


def check(inputs: Iterable[Input]) -> Checked:
    """Read and check the files by themselves and against each other."""
    schemas = load_schemas()
    parsed = tuple(parse_manifest(item.name, item.data, schemas) for item in inputs)
    files = tuple(_with(file, tuple(_duplicates(file, parsed))) for file in parsed)
    return Checked(files=files, problems=in_order(p for file in files for p in file.problems))


def identities(inputs: Iterable[Input]) -> Iterator[tuple[KindInfo, str]]:
    """(kind, name) of every object that the files define, valid or not."""
    for document in check(inputs).documents:
        yield info_for(document.kind), document.name


def print_problems(checked: Checked, stream: TextIO) -> None:
    """Every problem, with its line of the file."""
    sys.stdout.flush()
    for problem in checked.problems:
        print(render(problem), file=stream)


def dry_run_locally(inputs: Sequence[Input]) -> bool:
    """What `apply --dry-run=client` says: objects that are valid, and every problem."""
    checked = check(inputs)
    for document in checked.documents:
        if document.valid:
            print(f"{info_for(document.kind).singular}/{document.name} valid (client dry run)")
    print_problems(checked, sys.stderr)
    if not checked.valid:
        complain(f"{summary(checked.problems)}; {ADVICE}")
    return checked.valid


def _with(file: ParsedFile, more: tuple[Problem, ...]) -> ParsedFile:
    return replace(file, problems=in_order((*file.problems, *more))) if more else file


def _duplicates(file: ParsedFile, files: Sequence[ParsedFile]) -> Iterator[Problem]:
    """An object that another of the files (or this one, before) defines as well."""
    for number, document in enumerate(file.documents):
        key = (document.kind, document.name)
        earlier = [d for d in file.documents[:number] if (d.kind, d.name) == key]
        others = [d for f in files if f is not file for d in f.documents if (d.kind, d.name) == key]
        for other in (*earlier[:1], *others[:1]):
            message = (
                f"{document.kind} '{document.name}' is defined in {other.file}:{other.line} too; keep one"
            )
            yield document.problem(Finding(path=("metadata", "name"), message=message))
