"""From a parsed file to what the sync plans look at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from reconciler.planning.manifest_values import FileView, Manifest, ObjectKey
from reconciler.resources.manifest import Document, ParsedFile
from reconciler.resources.problems import Finding, Problem, Severity, render

ParseFile = Callable[[str, bytes], ParsedFile]
"""Reads a file's bytes; never raises. The path is for messages, and its ending says how to read it."""


def file_view(parsed: ParsedFile, *, digest: str, data: bytes) -> FileView:
    """A file that could be read. One that defines an object twice is not valid."""
    documents = [*parsed.documents]
    twice = _repeated(documents)
    problems = tuple(render(problem) for problem in parsed.errors)
    problems += tuple(
        render(second.problem(Finding(path=("metadata", "name"), message=_again(first, second))))
        for first, second in twice
    )
    valid = not problems
    return FileView(
        path=parsed.path,
        digest=digest,
        data=data,
        manifests=tuple(_manifest(document) for document in documents) if valid else (),
        documents=tuple(documents) if valid else (),
        mentions=frozenset() if valid else frozenset(ObjectKey(d.kind, d.name) for d in documents),
        problems=problems,
        warnings=tuple(render(problem) for problem in parsed.warnings),
        age=0.0,
    )


def with_problems(view: FileView, found: Iterable[Problem]) -> FileView:
    """The file with what was found by comparing it with others: an error makes it one that is not valid."""
    found = tuple(found)
    errors = tuple(render(problem) for problem in found if problem.severity is Severity.ERROR)
    warnings = tuple(render(problem) for problem in found if problem.severity is not Severity.ERROR)
    return replace(view, problems=(*view.problems, *errors), warnings=(*view.warnings, *warnings))


def unreadable(path: str, why: str) -> FileView:
    """A file that could not be read: what it defines is unknown."""
    return FileView(path=path, digest="", data=None, problems=(why,), age=0.0)


def _manifest(document: Document) -> Manifest:
    return Manifest(
        key=ObjectKey(document.kind, document.name),
        labels=document.labels,
        annotations=document.annotations,
        spec=document.spec,
        line=document.line,
        start=document.start,
        end=document.end,
    )


def _repeated(documents: list[Document]) -> list[tuple[Document, Document]]:
    first: dict[ObjectKey, Document] = {}
    repeated = []
    for document in documents:
        before = first.setdefault(ObjectKey(document.kind, document.name), document)
        if before is not document:
            repeated.append((before, document))
    return repeated


def _again(first: Document, second: Document) -> str:
    return f"{second.kind} '{second.name}' is defined on line {first.line} of this file already; keep one"
