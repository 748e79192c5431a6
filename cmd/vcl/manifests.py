"""Reading manifests on this side, with the daemon's own reader: for validate, --dry-run=client and -f.

Nothing here needs a daemon, so that a manifest can be checked in an editor or in CI.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.crosscheck import KnownObjects, cross_check
from reconciler.resources.kinds import Kind, KindInfo, info_for
from reconciler.resources.manifest import Document, ParsedFile, parse_manifest
from reconciler.resources.problems import Problem, Severity, in_order, render, summary
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
        """Whether there is no error; warnings do not count."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)

    def blames(self, document: Document) -> bool:
        """Whether one of the errors is in the document."""
        return any(
            (problem.file, problem.severity) == (document.file, Severity.ERROR)
            and document.line <= problem.line <= document.end_line
            for problem in self.problems
        )

    @property
    def documents(self) -> tuple[Document, ...]:
        return tuple(document for file in self.files for document in file.documents)


Hosts = Mapping[str, Mapping[str, str]]


def check(inputs: Iterable[Input], hosts: Hosts | None = None) -> Checked:
    """Read and check the files by themselves and against each other. What they refer to is not looked for:
    it may be in the cluster, which is not asked. `hosts`: the labels of all nodes, when they are known."""
    files = read_files(inputs)
    names = {} if hosts is None else {Kind.NODE: frozenset(hosts)}
    known = KnownObjects(names=names, hosts=hosts)
    together = cross_check([document for file in files for document in file.documents], known)
    return Checked(files=files, problems=in_order((*together, *(p for file in files for p in file.problems))))


def identities(inputs: Iterable[Input]) -> Iterator[tuple[KindInfo, str]]:
    """(kind, name) of every object that the files define, valid or not."""
    for file in read_files(inputs):
        for document in file.documents:
            yield info_for(document.kind), document.name


def read_files(inputs: Iterable[Input]) -> tuple[ParsedFile, ...]:
    """Each input as the daemon would read it, with its problems."""
    schemas = load_schemas()
    return tuple(parse_manifest(item.name, item.data, schemas) for item in inputs)


def print_problems(checked: Checked, stream: TextIO) -> None:
    """Every problem, with its line of the file."""
    sys.stdout.flush()
    for problem in checked.problems:
        print(render(problem), file=stream)


def dry_run_locally(inputs: Sequence[Input]) -> bool:
    """What `apply --dry-run=client` says: objects that are valid, and every problem."""
    checked = check(inputs)
    for document in checked.documents:
        if document.valid and not checked.blames(document):
            print(f"{info_for(document.kind).singular}/{document.name} valid (client dry run)")
    print_problems(checked, sys.stderr)
    if not checked.valid:
        complain(f"{summary(checked.problems)}; {ADVICE}")
    return checked.valid
