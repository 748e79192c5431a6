"""Reads YAML text into trees, through libyaml's event parser (PyYAML's own where libyaml is missing).

Only events are used: libyaml's composer recurses, and crashes the process on 100,000 nested brackets, while
its event parser keeps a stack of its own - and is left as soon as the tree is too deep. Anchors, aliases,
merge keys and tags are refused: they hide what an object is made of, and a few lines of them can expand
to gigabytes. After a syntax error reading goes on at the next document of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml

from reconciler.resources.manifesttext import Marked, split_lines
from reconciler.resources.yamlerrors import explain_syntax
from reconciler.resources.yamlscalars import refused_character, resolve
from reconciler.resources.yamltree import PathMarked, RawDocument, TooMuch, TreeBuilder

_SEPARATOR = re.compile(r"---(\s|$)")
_MOST_RESTARTS = 20

PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The class whose `get_event` is used."""


def read_yaml(text: str, parser: Any = PARSER) -> tuple[RawDocument, ...]:
    """The documents of a file; an empty file has none. Syntax errors are among their problems. Never raises
    for any text that manifesttext let through."""
    lines = split_lines(text)
    documents: list[RawDocument] = []
    start, restarts, reader = 0, 0, _Reader(parser, lines)
    while start < len(lines):
        reader.base = start
        documents += reader.read(text if start == 0 else "\n".join(lines[start:]))
        if reader.stopped is None:
            break
        start = _next_separator(lines, max(reader.stopped, start + 1))
        restarts += 1
        if restarts > _MOST_RESTARTS:
            break
    return _with_ends(documents, len(lines) - (lines[-1] == ""))


def _next_separator(lines: tuple[str, ...], start: int) -> int:
    for index in range(start, len(lines)):
        if _SEPARATOR.match(lines[index]):
            return index
    return len(lines)


def _with_ends(documents: list[RawDocument], lines: int) -> tuple[RawDocument, ...]:
    """Each document lasts until the next begins; the first begins with the file."""
    firsts = [1, *(document.first for document in documents[1:]), lines + 1]
    return tuple(
        replace(document, first=first, last=max(first, after - 1))
        for document, first, after in zip(documents, firsts, firsts[1:], strict=False)
    )


class _Reader:
    """Reads one stretch of text. `base` is its first line (from 0) in the file; `stopped` the line (from 0)
    of the error after which the next document may be tried, or None."""

    def __init__(self, parser: Any, lines: tuple[str, ...]) -> None:
        self._parser = parser
        self._lines = lines
        self._budget = TreeBuilder().budget
        self.base = 0
        self.stopped: int | None = None

    def read(self, text: str) -> Iterator[RawDocument]:
        self.stopped = None
        builder: TreeBuilder | None = None
        first = 1
        loader: Any = self._parser(text)
        try:
            for event in _events(loader):
                if isinstance(event, yaml.DocumentStartEvent):
                    builder = TreeBuilder(self._budget)
                    first = self._line(event)
                elif isinstance(event, yaml.DocumentEndEvent) and builder is not None:
                    self._budget = builder.budget
                    yield _document(builder, first)
                    builder = None
                elif builder is not None:
                    self._feed(builder, event)
        except TooMuch as error:
            yield self._broken(builder, first, error.at)
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last two: impossible \U escapes
            at = explain_syntax(error, self.base, self._lines)
            yield self._broken(builder, first if builder else at.line, at)
        finally:
            loader.dispose()

    def _broken(self, builder: TreeBuilder | None, first: int, at: Marked) -> RawDocument:
        """What had been read of the document at the point of a syntax error."""
        builder = builder or TreeBuilder()
        self.stopped = at.line - 1 if builder.budget >= 0 else None
        self._budget = max(builder.budget, 0)
        document = _document(builder, first)
        problems = (*document.problems, PathMarked(at=at, path=()))
        return replace(document, problems=problems, broken=True)

    def _line(self, event: Any) -> int:
        return int(self.base + event.start_mark.line + 1)

    def _feed(self, builder: TreeBuilder, event: Any) -> None:
        line, column = self._line(event), event.start_mark.column + 1
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(builder, event, line, column)
        elif isinstance(event, yaml.CollectionEndEvent):
            builder.close()
        elif isinstance(event, yaml.AliasEvent):
            builder.report(line, column, f"aliases (*{event.anchor}) are not supported; write the value out")
            builder.scalar(None, "", line, column)
        else:
            _refuse_extras(builder, event, line, column)
            builder.open(is_map=isinstance(event, yaml.MappingStartEvent), line=line, column=column)

    def _scalar(self, builder: TreeBuilder, event: Any, line: int, column: int) -> None:
        text: str = event.value
        if event.anchor is not None or event.tag is not None:
            _refuse_extras(builder, event, line, column)
        if event.style or event.tag is not None:
            fault = refused_character(text)
            if fault is not None:
                builder.report(line, column, fault)
            builder.scalar(text, text, line, column)
            return
        try:
            value = resolve(text)
        except ValueError as error:
            builder.report(line, column, str(error))
            value = None
        builder.scalar(value, text, line, column, merge=text == "<<")


def _events(loader: Any) -> Iterator[Any]:
    while True:
        event = loader.get_event()
        yield event
        if event is None or isinstance(event, yaml.StreamEndEvent):
            return


def _document(builder: TreeBuilder, first: int) -> RawDocument:
    return RawDocument(root=builder.root, first=first, last=first, problems=tuple(builder.problems))


def _refuse_extras(builder: TreeBuilder, event: Any, line: int, column: int) -> None:
    if event.anchor is not None:
        builder.report(line, column, f"anchors (&{event.anchor}) are not supported; remove it")
    if event.tag is not None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        builder.report(line, column, f"tags ({tag}) are not supported; remove it")
