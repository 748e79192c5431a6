"""A kind's table as `vcl get` prints it: the daemon's columns, and what options add to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from reconciler.resources.kinds import KindInfo
from vcl.client import Client
from vcl.durations import now
from vcl.output import Format
from vcl.table import Row, TableView, clean, render, view
from vcl.targets import Target

Object = dict[str, Any]


class TableOptions(Protocol):
    """The part of `vcl get`'s options that tables need."""

    @property
    def format(self) -> Format: ...
    @property
    def selector(self) -> str: ...
    @property
    def sort_by(self) -> str: ...
    @property
    def show_labels(self) -> bool: ...
    @property
    def show_kind(self) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What is printed, and the version to watch from."""

    headers: tuple[str, ...]
    rows: tuple[Row, ...]
    version: str

    @property
    def names(self) -> set[str]:
        return {row.name for row in self.rows}

    def text(self, *, headers: bool) -> str:
        """The table as lines."""
        cells = [row.cells for row in self.rows]
        return render([self.headers, *cells] if headers else cells)


def load_table(client: Client, target: Target, options: TableOptions) -> Table:
    """Ask the daemon for the table and shape it as the options say."""
    document = client.table(target.info, options.selector)
    shown = view(document, wide=options.format.name == "wide", at=now())
    rows = [row for row in shown.rows if not target.names or row.name in target.names]
    if target.names:
        rows.sort(key=lambda row: target.names.index(row.name))
    headers = shown.headers
    if options.sort_by or options.show_labels:
        objects = client.objects(target.info, options.selector).get("items") or []
        rows = sorted_rows(rows, objects, options.sort_by)
        if options.show_labels:
            headers, rows = (*headers, "LABELS"), with_labels(rows, objects)
    if options.show_kind:
        rows = with_kind(rows, target.info, headers)
    version = str((document.get("metadata") or {}).get("resourceVersion", ""))
    return Table(headers=headers, rows=tuple(rows), version=version)


def shape(document: Object, info: KindInfo, options: TableOptions, at: datetime) -> TableView:
    """The rows of a watch's one-row Table."""
    shown = view(document, wide=options.format.name == "wide", at=at)
    if not options.show_kind:
        return shown
    return TableView(headers=shown.headers, rows=tuple(with_kind(shown.rows, info, shown.headers)))


def sorted_rows(rows: Sequence[Row], objects: Sequence[Object], path: str) -> list[Row]:
    """The rows in the order of a field of their objects."""
    if not path:
        return list(rows)
    from vcl.sorting import sort_objects

    wanted = {row.name for row in rows}
    own = [item for item in objects if _name(item) in wanted]
    order = {_name(item): index for index, item in enumerate(sort_objects(own, path))}
    return sorted(rows, key=lambda row: order.get(row.name, len(order)))


def with_labels(rows: Sequence[Row], objects: Sequence[Object]) -> list[Row]:
    """The rows with a column of labels."""
    labels = {_name(item): label_text(item) for item in objects}
    return [Row(name=row.name, cells=(*row.cells, labels.get(row.name, "<none>"))) for row in rows]


def with_kind(rows: Sequence[Row], info: KindInfo, headers: Sequence[str]) -> list[Row]:
    """The rows with TYPE/NAME in place of NAME."""
    column = headers.index("NAME") if "NAME" in headers else 0
    return [
        Row(
            name=row.name,
            cells=tuple(f"{info.singular}/{c}" if i == column else c for i, c in enumerate(row.cells)),
        )
        for row in rows
    ]


def label_text(item: Object) -> str:
    """An object's labels as `a=b,c=d`, or `<none>`."""
    labels = (item.get("metadata") or {}).get("labels") or {}
    return clean(",".join(f"{key}={value}" for key, value in sorted(labels.items()))) or "<none>"


def _name(item: Object) -> str:
    return str((item.get("metadata") or {}).get("name", ""))
