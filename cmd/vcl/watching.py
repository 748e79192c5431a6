"""vcl get -w: the list, then a line (or an object) for every change, until the user has seen enough."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from vcl import output
from vcl.client import ApiError, Client, Unreachable, WatchEvent
from vcl.durations import now
from vcl.table import render, widths
from vcl.tables import Table, label_text, load_table, shape
from vcl.targets import Target
from vcl.verbs.get import Options, single_type


def follow(client: Client, targets: tuple[Target, ...], options: Options, *, list_first: bool) -> int:
    """Print and follow one type. Ends with an error when the daemon ends the stream, or at Ctrl-C."""
    target = single_type(targets)
    if options.sort_by:
        print("warning: a watch prints changes as they come; --sort-by is for the list only", file=sys.stderr)
    if options.format.is_table:
        _follow_table(client, target, options, list_first=list_first)
    else:
        _follow_objects(client, target, options, list_first=list_first)
    raise Unreachable(
        "the daemon ended the watch",
        cure="it may be restarting; see 'vcl version', then run the command again",
    )


def events(
    client: Client, target: Target, selector: str, version: str, *, table: bool
) -> Iterator[WatchEvent]:
    """Changes after `version`, listing again when that has become too old; bookmarks are left out."""
    query = {"as": "Table"} if table else {}
    if selector:
        query["labelSelector"] = selector
    while True:
        try:
            asked = {**query, "resourceVersion": version} if version else query
            for event in client.watch(target.info.plural, asked):
                if event.type != "BOOKMARK":
                    yield event
            return
        except ApiError as error:
            if error.code != 410:
                raise
            version = str(client.objects(target.info).get("metadata", {}).get("resourceVersion", ""))


def _follow_table(client: Client, target: Target, options: Options, *, list_first: bool) -> None:
    table = load_table(client, target, options)
    line = _Lines(table, options)
    if list_first:
        line.start()
    ages = {number for number, header in enumerate(table.headers) if header == "AGE"}
    last: dict[str, tuple[str, ...]] = {}
    for event in events(client, target, options.selector, table.version, table=True):
        shown = shape(event.object, target.info, options, now())
        labels = _labels(client, target, options) if options.show_labels else {}
        for row in shown.rows:
            if not target.names or row.name in target.names:
                extra = (labels.get(row.name, "<none>"),) if options.show_labels else ()
                cells = (*row.cells, *extra)
                told = tuple(cell for number, cell in enumerate(cells) if number not in ages)
                # A change that no column shows (a claim, a condition) would only repeat the line.
                if event.type == "DELETED" or last.get(row.name) != told:
                    line.add(cells)
                last[row.name] = told


class _Lines:
    """Rows that keep to the columns of what was printed before."""

    def __init__(self, table: Table, options: Options) -> None:
        self._table = table
        self._headers = options.headers
        self._size = widths([table.headers, *(row.cells for row in table.rows)])
        self._begun = False

    def start(self) -> None:
        if self._table.rows:
            self._begun = True
            sys.stdout.write(self._table.text(headers=self._headers))
            sys.stdout.flush()

    def add(self, cells: tuple[str, ...]) -> None:
        if not self._begun and self._headers:
            sys.stdout.write(render([self._table.headers], self._size))
        self._begun = True
        sys.stdout.write(render([cells], self._size))
        sys.stdout.flush()
        self._size = [max(a, b) for a, b in zip(self._size, map(len, cells), strict=True)]


def _labels(client: Client, target: Target, options: Options) -> dict[str, str]:
    items = client.objects(target.info, options.selector).get("items") or []
    return {str(item["metadata"]["name"]): label_text(item) for item in items}


def _follow_objects(client: Client, target: Target, options: Options, *, list_first: bool) -> None:
    show = output.printer(options.format, headers=options.headers)
    listing = client.objects(target.info, options.selector)
    wanted = [item for item in listing.get("items") or [] if _wanted(item, target)]
    if list_first:
        _each(show, wanted, options)
    version = str((listing.get("metadata") or {}).get("resourceVersion", ""))
    for event in events(client, target, options.selector, version, table=False):
        if _wanted(event.object, target):
            _each(show, [event.object], options)


def _wanted(item: dict[str, Any], target: Target) -> bool:
    return not target.names or (item.get("metadata") or {}).get("name") in target.names


def _each(show: Any, items: list[dict[str, Any]], options: Options) -> None:
    for item in items:
        if options.format.name == "yaml":
            sys.stdout.write("---\n")
        show(item)
    sys.stdout.flush()
