"""The tree of a manifest: plain values, and the line and column of each of them.

Both readers (yamlreader, jsonreader) feed a TreeBuilder. Invariants: it is never deeper than MAX_DEPTH nor
larger than MAX_NODES, whatever the input; what had been read when a reader had to stop is still there; a
field without a value (`disks:`) is absent from the plain value, as in Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reconciler.resources.manifesttext import Marked
from reconciler.resources.problems import Path, short
from reconciler.resources.yamlscalars import Scalar

MAX_DEPTH = 64
"""How deep lists and maps may be nested. vcl's own kinds need 8."""

MAX_NODES = 200_000
"""How many values one file may hold; a virtual machine has about 50."""

Mark = tuple[int, int]
"""Line and column, both counted from 1."""


@dataclass(frozen=True, slots=True)
class Node:
    """One value. `value` is plain data (dict, list, scalar); `text` a scalar as it was written.

    `children` are the nodes within, by key or index; `keys` the positions of a map's keys.
    """

    line: int
    column: int
    value: Any
    text: str = ""
    children: dict[str | int, Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)

    def locate(self, path: Path, *, key: bool = False) -> Mark:
        """Where the value at `path` is (or, with `key`, its name). A path that does not exist gives the
        nearest thing above it that does."""
        node, mark = self, (self.line, self.column)
        for depth, part in enumerate(path):
            child = node.children.get(part)
            if child is None:
                return mark
            wants_key = key or depth + 1 < len(path)
            mark = (child.line, child.column)
            if wants_key and isinstance(part, str):
                mark = node.keys.get(part, mark)
            node = child
        return mark

    def text_at(self, path: Path) -> str:
        """The scalar at `path` as it was written; empty when there is none."""
        node = self
        for part in path:
            if part not in node.children:
                return ""
            node = node.children[part]
        return node.text


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMarked:
    """A problem that a reader met. `path` is where in the document."""

    at: Marked
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDocument:
    """One document. `first` and `last` are its lines (from 1, inclusive), separator and comments included.

    `broken`: reading it had to stop, so `root` is only what came before.
    """

    root: Node | None
    first: int
    last: int
    problems: tuple[PathMarked, ...] = ()
    broken: bool = False


class TooMuch(Exception):
    """The input is too deep or too large to go on; says where."""

    def __init__(self, at: Marked) -> None:
        super().__init__(at.message)
        self.at = at


class _Frame:
    """A list or map that is still open. `key`: the map's last key; `skip`: its value is thrown away;
    `is_key`: it stands where a key belongs."""

    __slots__ = ("expects_key", "is_key", "is_map", "key", "node", "skip")

    def __init__(self, node: Node, is_map: bool, is_key: bool) -> None:
        self.node = node
        self.is_map = is_map
        self.is_key = is_key
        self.expects_key = is_map
        self.key: str = ""
        self.skip = False


class TreeBuilder:
    """Builds the tree of one document from what a reader meets, in order."""

    def __init__(self, budget: int = MAX_NODES) -> None:
        self.root: Node | None = None
        self.problems: list[PathMarked] = []
        self.budget = budget
        self._stack: list[_Frame] = []

    def scalar(self, value: Scalar, text: str, line: int, column: int, *, merge: bool = False) -> None:
        """A string, number, boolean or null. `merge`: it is an unquoted `<<`."""
        self._count(line, column)
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.expects_key:
            self._key(frame, value, text, line, column, merge)
            return
        self._place(Node(line, column, value, text))

    def open(self, *, is_map: bool, line: int, column: int) -> None:
        """The start of a map or list. Raises TooMuch."""
        self._count(line, column)
        if len(self._stack) >= MAX_DEPTH:
            message = f"lists and maps are nested more than {MAX_DEPTH} deep here"
            raise TooMuch(Marked(line=line, column=column, message=message))
        frame = self._stack[-1] if self._stack else None
        node = Node(line, column, {} if is_map else [])
        is_key = frame is not None and frame.expects_key
        if is_key:
            self.report(line, column, "a list or a map cannot be a key; keys are text")
        else:
            self._place(node)
        self._stack.append(_Frame(node, is_map, is_key))

    def close(self) -> None:
        """The end of the innermost map or list."""
        if self._stack.pop().is_key:
            self._stack[-1].expects_key = False
            self._stack[-1].skip = True

    def report(self, line: int, column: int, message: str) -> None:
        """Note a problem with the value that comes next."""
        self.problems.append(
            PathMarked(at=Marked(line=line, column=column, message=message), path=self._path())
        )

    def _count(self, line: int, column: int) -> None:
        self.budget -= 1
        if self.budget < 0:
            message = f"the file holds more than {MAX_NODES} values; split it into several files"
            raise TooMuch(Marked(line=line, column=column, message=message))

    def _key(self, frame: _Frame, value: Scalar, text: str, line: int, column: int, merge: bool) -> None:
        frame.expects_key = False
        first = frame.node.keys.get(text)
        frame.skip = merge or first is not None or not isinstance(value, str)
        frame.key = text
        if merge:
            self.report(line, column, "merge keys (<<) are not supported; write the fields out")
        elif not isinstance(value, str):
            self.report(line, column, f'a key must be text; put it in quotes: "{text or "null"}"')
        elif first is not None:
            message = f"duplicate key {short(text)}; it is on line {first[0]} already, remove one of the two"
            self.report(line, column, message)
        else:
            frame.node.keys[text] = (line, column)

    def _place(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        if not frame.is_map:
            frame.node.children[len(frame.node.value)] = node
            frame.node.value.append(node.value)
            return
        frame.expects_key = True
        if frame.skip:
            frame.skip = False
            return
        frame.node.children[frame.key] = node
        if node.value is not None:
            frame.node.value[frame.key] = node.value

    def _path(self) -> Path:
        path: list[str | int] = []
        for frame, inner in zip(self._stack, [*self._stack[1:], None], strict=False):
            if inner is not None and inner.is_key:
                continue
            if not frame.is_map:
                path.append(len(frame.node.value) - (inner is not None))
            elif inner is not None or not frame.expects_key:
                path.append(frame.key)
        return tuple(path)


def strings(value: Any) -> Mapping[str, str]:
    """The entries of a map of strings; what is neither is left out."""
    if not isinstance(value, dict):
        return {}
    return {key: item for key, item in value.items() if isinstance(item, str)}
