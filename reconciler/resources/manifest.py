"""One manifest file: its documents, and everything that is wrong with them.

Invariants: parse_manifest never raises, whatever the bytes; and a file that is broken still names every
object that can be made out in it, because the object of a broken file keeps its last valid spec ("invalid is
not absent"), and one that is deemed absent is deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from reconciler.resources.headers import examine_header, guess_identity
from reconciler.resources.jsonreader import read_json
from reconciler.resources.kinds import Kind
from reconciler.resources.manifesttext import Text, read_text
from reconciler.resources.problems import Finding, Path, Problem, Severity, in_order, show_path
from reconciler.resources.speccheck import check_spec
from reconciler.resources.validation import SchemaSet, validate_document
from reconciler.resources.yamlreader import read_yaml
from reconciler.resources.yamltree import Mark, Node, RawDocument, strings

MAX_PROBLEMS = 1000
"""After this many problems the rest of a file is not checked: it is no manifest, and takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object that a file defines. `spec` is what the user wrote, as plain data, without empty fields.

    `valid`: it has no error, nor has its file one that concerns the whole of it. `line` is its first line
    with content; `start` and `end` are the bytes of the file that it takes up, with its separator and its
    comments: without `data[start:end]` the file defines everything else as before.
    """

    kind: Kind
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    file: str
    line: int
    end_line: int
    start: int
    end: int
    valid: bool
    source: bytes = field(default=b"", repr=False, compare=False)
    first_line: int = 1

    def locate(self, path: Path, *, key: bool = False) -> Mark:
        """Line and column of the value at `path` (or, with `key`, of its name), or of the nearest thing above
        it that exists. The tree is read again for it: keeping it would cost more than the manifests."""
        root = _tree(self.source, self.file.endswith(".json"))
        if root is None:
            return self.line, 1
        line, column = root.locate(path, key=key)
        return line + self.first_line - 1, column

    def problem(self, finding: Finding) -> Problem:
        """A finding about this document, with its position."""
        line, column = self.locate(finding.path, key=finding.at_key)
        lines = read_text(self.source).lines
        index = line - self.first_line
        return Problem(
            file=self.file,
            line=line,
            column=column,
            path=show_path(finding.path),
            message=finding.message,
            severity=finding.severity,
            source_line=lines[index] if 0 <= index < len(lines) else "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """What a manifest file holds. `problems` are sorted by position."""

    path: str
    documents: tuple[Document, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Problem, ...]:
        return tuple(p for p in self.problems if p.severity is Severity.WARNING)

    @property
    def valid(self) -> bool:
        """Whether it has no error; warnings do not count."""
        return not self.errors


@lru_cache(maxsize=4)
def _tree(source: bytes, is_json: bool) -> Node | None:
    text = read_text(source).text
    documents = read_json(text) if is_json else read_yaml(text)
    return documents[0].root if documents else None


def parse_manifest(path: str, data: bytes, schemas: SchemaSet) -> ParsedFile:
    """Read and check one file. `path` is for messages; one that ends in '.json' is read as JSON.

    Never raises: what is wrong is in `problems`.
    """
    text = read_text(data)
    raws = read_json(text.text) if path.endswith(".json") else read_yaml(text.text)
    file = _File(path, data, text)
    for at in text.found:
        file.add(at.line, at.column, (), at.message)
    documents = [document for raw in raws for document in file.examine(raw, schemas)]
    if all(raw.root is None or raw.root.value is None for raw in raws) and not file.problems:
        file.add(1, 1, (), "defines no objects", Severity.WARNING)
    return ParsedFile(path=path, documents=tuple(documents), problems=in_order(file.problems))


class _File:
    """Collects a file's problems while its documents are looked at."""

    def __init__(self, path: str, data: bytes, text: Text) -> None:
        self.problems: list[Problem] = []
        self._given_up = False
        self._path = path
        self._data = data
        self._text = text
        self._offsets = _line_offsets(data) if text.exact else ()

    def add(
        self, line: int, column: int, path: Path, message: str, severity: Severity = Severity.ERROR
    ) -> None:
        """Note a problem. The one after MAX_PROBLEMS says that there are more, and further ones are lost."""
        if self._given_up:
            return
        if len(self.problems) >= MAX_PROBLEMS:
            self._given_up = True
            path, severity = (), Severity.ERROR
            message = "there are more problems from here on; correct those above first"
        lines = self._text.lines
        self.problems.append(
            Problem(
                file=self._path,
                line=line,
                column=column,
                path=show_path(path),
                message=message,
                severity=severity,
                source_line=lines[line - 1] if 0 < line <= len(lines) else "",
            )
        )

    def examine(self, raw: RawDocument, schemas: SchemaSet) -> Iterator[Document]:
        """Check one document; yields it when kind and name can be made out."""
        before = len(self.problems)
        for met in raw.problems:
            self.add(met.at.line, met.at.column, met.path, met.at.message)
        root = raw.root or Node(raw.first, 1, None)
        if not raw.broken and root.value is not None:
            self._check(root, {met.path for met in raw.problems}, schemas)
        wrong = self._given_up or any(p.severity is Severity.ERROR for p in self.problems[before:])
        if root.value is None and not raw.broken:
            return
        lines = self._text.lines[raw.first - 1 : raw.last] if raw.broken else ()
        kind, name = guess_identity(root.value, lines)
        if kind is not None and name is not None:
            yield self._document(kind, name, root, raw, valid=self._text.exact and not wrong)

    def _check(self, root: Node, known: set[Path], schemas: SchemaSet) -> None:
        if self._given_up:
            return
        kind, findings = examine_header(root.value)
        found = list(findings)
        if kind is not None:
            found += validate_document(kind, root.value, schemas, written=root.text_at)
            spec, metadata = root.value.get("spec"), root.value.get("metadata")
            name = metadata.get("name") if isinstance(metadata, dict) else None
            found += check_spec(kind, str(name), spec if isinstance(spec, dict) else {})
        for finding in found:
            if finding.path not in known:
                line, column = root.locate(finding.path, key=finding.at_key)
                self.add(line, column, finding.path, finding.message, finding.severity)

    def _document(self, kind: Kind, name: str, root: Node, raw: RawDocument, *, valid: bool) -> Document:
        value: Mapping[str, Any] = root.value if isinstance(root.value, dict) else {}
        metadata = value.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        spec = value.get("spec")
        start, end = self._span(raw)
        return Document(
            kind=kind,
            name=name,
            labels=strings(metadata.get("labels")),
            annotations=strings(metadata.get("annotations")),
            spec=spec if isinstance(spec, dict) else {},
            file=self._path,
            line=root.line,
            end_line=raw.last,
            start=start,
            end=end,
            valid=valid,
            source=self._data[start:end],
            first_line=raw.first,
        )

    def _span(self, raw: RawDocument) -> tuple[int, int]:
        if not self._offsets:
            return 0, len(self._data)
        end = self._offsets[raw.last] if raw.last < len(self._offsets) else len(self._data)
        return self._offsets[raw.first - 1], end


def _line_offsets(data: bytes) -> tuple[int, ...]:
    """The byte at which each line starts."""
    offsets, total = [0], 0
    for line in data.splitlines(keepends=True):
        total += len(line)
        offsets.append(total)
    return tuple(offsets)
