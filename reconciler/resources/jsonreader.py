"""Reads a JSON manifest into a tree: the standard json module judges the syntax, a tokenizer adds positions.

YAML's reader would not do: JSON's surrogate escapes and long keys are errors to it. Depth is counted on
the tokens first, because the json module recurses.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator

from reconciler.resources.manifesttext import Marked
from reconciler.resources.yamlscalars import Scalar, finite, refused_character
from reconciler.resources.yamltree import MAX_DEPTH, PathMarked, RawDocument, TooMuch, TreeBuilder

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s\[\]{}:,"]+|"', re.DOTALL)
_BREAK = re.compile(r"\r\n|\n|\r")
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_MOST_DIGITS = 40

Token = tuple[str, int, int]
"""The text of a token, its line and its column."""


def read_json(text: str) -> tuple[RawDocument, ...]:
    """The one document of a JSON file, or none when it is empty. Syntax errors are among its problems."""
    if not text.strip():
        return ()
    builder = TreeBuilder()
    try:
        _check_depth(text)
        json.loads(text, parse_int=len, parse_float=len, parse_constant=len)
    except json.JSONDecodeError as error:
        line, column = _Positions(text).at(error.pos)
        return (
            _broken(builder, text, Marked(line=line, column=column, message=f"not valid JSON: {error.msg}")),
        )
    except TooMuch as error:
        return (_broken(builder, text, error.at),)
    try:
        _build(builder, text)
    except TooMuch as error:
        return (_broken(builder, text, error.at),)
    return (RawDocument(root=builder.root, first=1, last=_last(text), problems=tuple(builder.problems)),)


def _broken(builder: TreeBuilder, text: str, at: Marked) -> RawDocument:
    problems = (*builder.problems, PathMarked(at=at, path=()))
    return RawDocument(root=builder.root, first=1, last=_last(text), problems=problems, broken=True)


def _last(text: str) -> int:
    return len(_BREAK.split(text)) - text.endswith(("\n", "\r"))


class _Positions:
    """Line and column (from 1) of an offset into the text."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in _BREAK.finditer(text))]

    def at(self, offset: int) -> tuple[int, int]:
        index = bisect_right(self._starts, offset) - 1
        return index + 1, offset - self._starts[index] + 1


def _tokens(text: str) -> Iterator[Token]:
    positions = _Positions(text)
    for match in _TOKEN.finditer(text):
        line, column = positions.at(match.start())
        yield match[0], line, column


def _check_depth(text: str) -> None:
    depth = 0
    for token, line, column in _tokens(text):
        if token in ("{", "["):
            depth += 1
        elif token in ("}", "]"):
            depth -= 1
        if depth > MAX_DEPTH:
            message = f"lists and maps are nested more than {MAX_DEPTH} deep here"
            raise TooMuch(Marked(line=line, column=column, message=message))


def _build(builder: TreeBuilder, text: str) -> None:
    """Feed text that is known to be valid JSON (or NaN, which json accepts) to the builder."""
    for token, line, column in _tokens(text):
        if token in ("{", "["):
            builder.open(is_map=token == "{", line=line, column=column)
        elif token in ("}", "]"):
            builder.close()
        elif token not in (",", ":"):
            _scalar(builder, token, line, column)


def _scalar(builder: TreeBuilder, token: str, line: int, column: int) -> None:
    if token.startswith('"'):
        text: str = json.loads(token)
        fault = refused_character(text)
        if fault is not None:
            builder.report(line, column, fault)
        builder.scalar(text, text, line, column)
        return
    try:
        value = _WORDS[token] if token in _WORDS else _number(token)
    except ValueError as error:
        builder.report(line, column, str(error))
        value = None
    builder.scalar(value, token, line, column)


def _number(token: str) -> int | float:
    if token in ("NaN", "Infinity", "-Infinity"):
        raise ValueError(f"{token.removeprefix('-')} is not allowed here")
    if len(token) > _MOST_DIGITS:
        raise ValueError(f"the number has {len(token)} digits, which no field can hold")
    return finite(token) if any(mark in token for mark in ".eE") else int(token)
