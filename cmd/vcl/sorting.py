"""--sort-by: numbers and quantities by value, texts as people count them, missing fields first."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from reconciler.resources.quantity import parse_bytes
from vcl.jsonpath import find, parse_path
from vcl.session import UsageError

Object = dict[str, Any]


def sort_objects(objects: Sequence[Object], path: str) -> list[Object]:
    """The objects in the order of the field. UsageError when none of them has it."""
    field = parse_path(path)
    values = [find(field, item) for item in objects]
    if objects and not any(values):
        raise UsageError(
            f"no object has the field '{path}'", cure="look at 'vcl get ... -o yaml' for the fields"
        )
    ranked = sorted(zip(values, range(len(objects)), strict=True), key=lambda pair: (_rank(pair[0]), pair[1]))
    return [objects[index] for _, index in ranked]


def _rank(found: list[Any]) -> tuple[int, float, list[tuple[int, int, str]]]:
    if not found or found[0] is None:
        return 0, 0.0, []
    value = found[0]
    if isinstance(value, (int, float)):
        return 1, float(value), []
    text = str(value)
    try:
        return 1, float(parse_bytes(text)), []
    except ValueError:
        return 2, 0.0, _natural(text)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """web2 before web10."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
