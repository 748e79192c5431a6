"""kubectl's JSONPath templates: `{.items[*].metadata.name}`, `{range ...}{end}`, filters, unions, slices.

Source of the language: kubernetes.io/docs/reference/kubectl/jsonpath. As there, a quoted name in brackets is
a dotted path of its own, `\\.` is a dot inside a name, and a field that does not exist gives nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.resources.errors import InvalidInput

CURE = "see 'vcl get --help' for examples"


@dataclass(frozen=True, slots=True)
class Field:
    name: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    pass


@dataclass(frozen=True, slots=True)
class Descend:
    """The value itself and everything below it."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A Python slice with kubectl's bounds; `index` alone picks one element."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Union:
    parts: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Keeps the elements for which `left OPERATOR right` holds; no operator: those that have `left`."""

    left: Path
    operator: str = ""
    right: Path | Literal | None = None


@dataclass(frozen=True, slots=True)
class Literal:
    value: Any


Step = Field | Wildcard | Descend | Slice | Union | Filter


@dataclass(frozen=True, slots=True)
class Path:
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Range:
    path: Path
    body: tuple[Node, ...]


Node = Text | Path | Range

_OPERATORS = re.compile(r"==|!=|<=|>=|<|>")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def parse(template: str) -> tuple[Node, ...]:
    """The nodes of a template. Raises InvalidInput."""
    parts = list(_split(template))
    nodes, used = _body(parts, 0, inside=False)
    assert used == len(parts)
    return nodes


def parse_path(text: str) -> Path:
    """One path in relaxed spelling, as --sort-by and custom-columns take it: `.a.b`, `a.b` or `{.a.b}`."""
    inner = text.strip()
    if inner.startswith("{") and inner.endswith("}"):
        inner = inner[1:-1].strip()
    if inner[:1] not in (".", "[", "$", "@"):
        inner = f".{inner}"
    return _path(inner)


def evaluate(nodes: Sequence[Node], data: Any) -> str:
    """The template's text for this data."""
    out: list[str] = []
    for node in nodes:
        match node:
            case Text(text):
                out.append(text)
            case Path():
                out.append(" ".join(text_of(value) for value in find(node, data)))
            case Range(path, body):
                out.extend(evaluate(body, value) for value in find(path, data))
    return "".join(out)


def find(path: Path, data: Any) -> list[Any]:
    """Every value that the path names, in order."""
    values = [data]
    for step in path.steps:
        values = [found for value in values for found in _step(step, value)]
    return values


def text_of(value: Any) -> str:
    """A value as kubectl prints it: strings as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _step(step: Step, value: Any) -> Iterator[Any]:
    match step:
        case Field(name):
            if isinstance(value, dict) and name in value:
                yield value[name]
        case Wildcard():
            yield from _children(value)
        case Descend():
            yield value
            for child in _children(value):
                yield from _step(step, child)
        case Slice():
            yield from _slice(step, value)
        case Union(parts):
            for part in parts:
                yield from find(part, value)
        case Filter():
            yield from (item for item in _children(value) if _holds(step, item))


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _slice(step: Slice, value: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        return
    if step.index is not None:
        if -len(value) <= step.index < len(value):
            yield value[step.index]
        return
    yield from value[step.start : step.stop : step.step]


def _holds(test: Filter, item: Any) -> bool:
    left = find(test.left, item)
    if test.right is None:
        return bool(left)
    right = [test.right.value] if isinstance(test.right, Literal) else find(test.right, item)
    if not left or not right:
        return False
    return _compare(left[0], test.operator, right[0])


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator in ("==", "!="):
        return bool(left == right) is (operator == "==")
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (left, right))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    outcome: dict[str, bool] = {
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }
    return outcome[operator]


def _split(template: str) -> Iterator[tuple[bool, str]]:
    """(is an action, its text) for each piece of a template."""
    position = 0
    while position < len(template):
        opening = template.find("{", position)
        if opening < 0:
            yield False, template[position:]
            return
        if opening > position:
            yield False, template[position:opening]
        closing = _closing(template, opening + 1, "}")
        yield True, template[opening + 1 : closing].strip()
        position = closing + 1


def _closing(text: str, start: int, wanted: str) -> int:
    """The index of the bracket that ends what began before `start`; quotes and nesting are skipped."""
    depth, quote, index = 0, "", start
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif depth == 0 and char == wanted:
            return index
        elif char in ")]}":
            depth -= 1
        index += 1
    raise InvalidInput(f"the JSONPath '{text}' lacks a closing '{wanted}'", cure=CURE)


def _body(parts: list[tuple[bool, str]], index: int, *, inside: bool) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    while index < len(parts):
        action, text = parts[index]
        index += 1
        if not action:
            nodes.append(Text(text))
        elif text == "end":
            if not inside:
                raise InvalidInput("the JSONPath has an {end} without a {range}", cure=CURE)
            return tuple(nodes), index
        elif text.startswith("range ") or text.startswith("range."):
            body, index = _body(parts, index, inside=True)
            nodes.append(Range(parse_path(text.removeprefix("range")), body))
        elif text[:1] in "\"'" and text:
            nodes.append(Text(unquote(text)))
        else:
            nodes.append(_path(text))
    if inside:
        raise InvalidInput("the JSONPath has a {range} without an {end}", cure=CURE)
    return tuple(nodes), index


def unquote(text: str) -> str:
    """The text between quotes, with \\n, \\t and other escapes done."""
    if len(text) < 2 or text[-1] != text[0]:
        raise InvalidInput(f"the JSONPath text {text} lacks its closing quote", cure=CURE)
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda m: escapes.get(m[1], m[1]), text[1:-1], flags=re.DOTALL)


def _path(text: str) -> Path:
    rest = text.strip()
    if not rest or rest[0] not in ".[$@":
        raise InvalidInput(
            f"the JSONPath '{{{text}}}' must start with a dot", cure=f"write {{.{text}}}; {CURE}"
        )
    if rest[0] in "$@":
        rest = rest[1:]
    return Path(tuple(_steps(rest, text)))


def _steps(rest: str, whole: str) -> Iterator[Step]:
    index = 0
    while index < len(rest):
        if rest[index] == "[":
            closing = _closing(rest, index + 1, "]")
            yield _bracket(rest[index + 1 : closing].strip(), whole)
            index = closing + 1
        elif rest.startswith("..", index):
            yield Descend()
            index += 1 if rest[index + 2 : index + 3] not in ("", "[") else 2
        elif rest[index] == ".":
            name, index = _name(rest, index + 1)
            if name == "*":
                yield Wildcard()
            elif name:
                yield Field(name)
            elif index < len(rest) and rest[index] != "[":
                raise InvalidInput(f"the JSONPath '{whole}' has a dot too many", cure=CURE)
        else:
            raise InvalidInput(f"the JSONPath '{whole}' cannot be read at '{rest[index:]}'", cure=CURE)


def _name(text: str, index: int) -> tuple[str, int]:
    name = ""
    while index < len(text) and text[index] not in ".[]{}() ":
        if text[index] == "\\" and index + 1 < len(text):
            index += 1
        name += text[index]
        index += 1
    return name, index


def _bracket(text: str, whole: str) -> Step:
    if text == "*":
        return Wildcard()
    if text.startswith("?("):
        return _filter(text[2 : _closing(text, 2, ")")], whole)
    parts = _commas(text)
    if len(parts) > 1:
        return Union(tuple(Path((_bracket(part, whole),)) for part in parts))
    if text[:1] in "\"'" and text:
        return Union((_path(f".{text[1:-1]}"),))
    if re.fullmatch(r"-?[0-9]+", text):
        return Slice(index=int(text))
    bounds = re.fullmatch(r"(-?[0-9]*):(-?[0-9]*)(?::([1-9][0-9]*))?", text)
    if bounds:
        start, stop, step = (int(b) if b else None for b in bounds.groups())
        return Slice(start=start, stop=stop, step=step)
    raise InvalidInput(f"the JSONPath '{whole}' has '[{text}]', which means nothing", cure=CURE)


def _commas(text: str) -> list[str]:
    parts, start = [], 0
    for match in re.finditer(r"'[^']*'|\"[^\"]*\"|,", text):
        if match[0] == ",":
            parts.append(text[start : match.start()].strip())
            start = match.end()
    return [*parts, text[start:].strip()]


def _filter(text: str, whole: str) -> Filter:
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", lambda m: "_" * len(m[0]), text)
    match = _OPERATORS.search(bare)
    if match is None:
        return Filter(_path(text))
    right = text[match.end() :].strip()
    return Filter(_path(text[: match.start()]), match[0], _operand(right, whole))


def _operand(text: str, whole: str) -> Path | Literal:
    if text[:1] in ("'", '"'):
        return Literal(unquote(text))
    if text in ("true", "false"):
        return Literal(text == "true")
    if _NUMBER.fullmatch(text):
        return Literal(float(text) if "." in text else int(text))
    if text[:1] in ("@", "$", "."):
        return _path(text)
    raise InvalidInput(f"the JSONPath '{whole}' compares with {text!r}; quote texts", cure=CURE)
