"""The text of `vcl explain`, laid out as kubectl does it. What it says comes from resources/explain.py."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from reconciler.adapters.schema_files import load_schema
from reconciler.resources.explain import Explanation
from reconciler.resources.explain import explain as look_up
from vcl.targets import written_kind

WIDTH = 76


def explain(path: str, *, recursive: bool) -> str:
    """The text for `KIND.field.field`. NotFound names the field that was probably meant."""
    word, *fields = path.replace("[]", "").strip(".").split(".")
    info = written_kind(word)
    found = look_up(load_schema(info.kind), tuple(fields))
    lines = [f"KIND:       {info.kind}", "VERSION:    vcl/v1", ""]
    if fields:
        lines += [f"FIELD: {_title(found)}", ""]
    lines += ["DESCRIPTION:", *_text(found.description or "<no description>")]
    constraints = list(_constraints(found))
    lines += ["", *constraints] if constraints else []
    if found.children:
        lines += ["", "FIELDS:", *_fields(found, recursive=recursive)]
    return "\n".join(lines).rstrip() + "\n"


def _title(field: Explanation, gap: str = " ") -> str:
    return f"{field.field}{gap}<{field.type}>{' -required-' if field.required else ''}"


def _fields(parent: Explanation, *, recursive: bool, level: int = 1) -> Iterator[str]:
    for field in sorted(parent.children, key=lambda child: child.field):
        yield f"{'  ' * level}{_title(field, chr(9))}"
        if recursive:
            yield from _fields(field, recursive=True, level=level + 1)
        else:
            yield from _text(field.description or "<no description>")
            yield from _constraints(field)
            yield ""


def _constraints(field: Explanation) -> Iterator[str]:
    if field.allowed:
        yield from _text(f"One of: {', '.join(field.allowed)}")
    if field.default not in (None, {}, [], ""):
        yield from _text(f"Default: {_plain(field.default)}")
    if field.range:
        yield from _text(f"Range: {field.range}")
    if field.examples:
        yield from _text(f"Example: {', '.join(_plain(value) for value in field.examples)}")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _text(text: str) -> list[str]:
    pad = " " * 4
    return [
        line
        for part in text.splitlines()
        for line in textwrap.wrap(
            part, WIDTH, initial_indent=pad, subsequent_indent=pad, break_long_words=False
        )
    ]
