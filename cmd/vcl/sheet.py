"""The layout of `vcl describe`: labelled values in aligned blocks, sections, and small tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vcl.table import clean, render

INDENT = "  "
LABELS = ("matchLabels", "nodeSelector")
"""Maps whose keys are the user's words, not fields."""


class Sheet:
    """Collects lines; values of one block are aligned when the block ends."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._block: list[tuple[str, str]] = []
        self._level = 0

    def field(self, label: str, value: object) -> None:
        """One labelled value; None and '' are `<none>`. Lines after the first of a text are aligned below."""
        if value is True or value is False:
            value = "True" if value else "False"
        text = "<none>" if value is None or value == "" else str(value)
        first, *rest = text.splitlines() or [""]
        self._block.append((f"{label}:", clean(first)))
        self._block.extend(("", clean(line)) for line in rest)

    def optional(self, label: str, value: object) -> None:
        """The value, if there is one."""
        if value not in (None, "", [], {}, ()):
            self.field(label, value)

    def mapping(self, label: str, value: Mapping[str, Any] | None) -> None:
        """`key=value` lines, as labels are shown."""
        self.field(label, "\n".join(f"{key}={item}" for key, item in sorted((value or {}).items())))

    def section(self, title: str) -> None:
        """Begin an indented block below `Title:`; ended by `end`."""
        self._flush()
        self._lines.append(f"{INDENT * self._level}{title}:")
        self._level += 1

    def end(self) -> None:
        self._flush()
        self._level -= 1

    def table(self, title: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table below `Title:`, or `Title:  <none>`."""
        if not rows:
            self.field(title, None)
            return
        self.section(title)
        cells = [["<none>" if c is None or c == "" else clean(str(c)) for c in row] for row in rows]
        lines = render([list(headers), ["-" * len(h) for h in headers], *cells], gap=INDENT).splitlines()
        self._lines.extend(f"{INDENT * self._level}{line}" for line in lines)
        self.end()

    def tree(self, value: Mapping[str, Any]) -> None:
        """Any JSON-shaped map, one line a leaf; labels to match as `key=value`."""
        for key, item in value.items():
            label = spaced(key)
            if key in LABELS and isinstance(item, Mapping):
                self.mapping(label, item)
            elif isinstance(item, Mapping) and item:
                self.section(label)
                self.tree(item)
                self.end()
            elif isinstance(item, (list, Mapping)):
                self.field(label, "\n".join(str(entry) for entry in item))
            else:
                self.field(label, item)

    def text(self) -> str:
        """Everything, as text."""
        self._flush()
        return "".join(f"{line}\n" for line in self._lines)

    def _flush(self) -> None:
        pad = INDENT * self._level
        self._lines.extend(f"{pad}{line}" for line in render(self._block, gap=INDENT).splitlines())
        self._block = []


def spaced(key: str) -> str:
    """`storeRevision` -> `Store revision`."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in key).strip()
    return words[:1].upper() + words[1:]
