"""Tables as kubectl prints them: upper-case headers, columns three spaces apart, nothing after the last.

Cells come from users and guests: control characters are escaped, so that a message cannot break a table or
drive a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vcl.durations import age

GAP = "   "


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object's cells, all columns."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableView:
    """A Table of the API, made printable: ages counted, the narrow or the wide columns chosen."""

    headers: tuple[str, ...]
    rows: tuple[Row, ...]


def view(document: dict[str, Any], *, wide: bool, at: datetime) -> TableView:
    """The printable form of a Table; with `wide` also the columns of priority 1."""
    columns = document.get("columnDefinitions") or []
    shown = [i for i, column in enumerate(columns) if wide or not column.get("priority")]
    dates = {i for i, column in enumerate(columns) if "date" in (column.get("format"), column.get("type"))}
    rows = []
    for row in document.get("rows") or []:
        cells = row.get("cells") or []
        texts = tuple(
            (age(cells[i], at) if i in dates else cell_text(cells[i])) if i < len(cells) else ""
            for i in shown
        )
        rows.append(Row(name=row_name(row), cells=texts))
    return TableView(headers=tuple(str(columns[i].get("name", "")).upper() for i in shown), rows=tuple(rows))


def row_name(row: dict[str, Any]) -> str:
    """The object's name: a row carries its metadata, or just {"name"}."""
    described = row.get("object") or {}
    return str((described.get("metadata") or described).get("name", ""))


def cell_text(value: Any) -> str:
    """A cell as text, on one line."""
    if value is None:
        return "<none>"
    if value is True or value is False:
        return "true" if value else "false"
    return clean(str(value))


def clean(text: str) -> str:
    """The text with line ends and other control characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def widths(rows: Sequence[Sequence[str]]) -> list[int]:
    """The widest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []


def render(rows: Sequence[Sequence[str]], least: Sequence[int] = (), gap: str = GAP) -> str:
    """Lines of aligned cells, each ended by a newline; `least` widths keep a watch's rows in line."""
    size = [max(a, b) for a, b in zip(widths(rows), least, strict=True)] if least and rows else widths(rows)
    return "".join(
        gap.join([cell.ljust(width) for cell, width in zip(row, size, strict=True)]).rstrip() + "\n"
        for row in rows
    )
