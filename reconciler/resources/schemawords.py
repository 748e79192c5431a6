"""JSON Schema's keywords as vcl reads them: the draft 2020-12 validator with three changes.

`pattern` takes its closing `$` for the very end (Python's also matches before a line break); an integer is an
int (JSON Schema takes 2.0 for one, codec.decode does not); and `x-vcl-quantity` {unit, minimum} checks
quantities, which say more than a pattern could. jsonschema is imported when the first manifest is checked:
commands that check nothing do not pay for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from reconciler.resources.quantity import format_bytes, parse_bytes, parse_cpu

QUANTITY = "x-vcl-quantity"

_HUGE = re.compile(r"[0-9]{20,}[A-Za-z]{0,2}")


@cache
def compiled_pattern(pattern: str) -> re.Pattern[str]:
    """The pattern with `$` for the end of the text and nothing else."""
    return re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)


def quantity_fault(keyword: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with a quantity, or None. `keyword` is the value of x-vcl-quantity."""
    if isinstance(value, (dict, list)) or value is None:
        value = "a list" if isinstance(value, list) else "a map" if value is not None else "nothing"
        return f"must be a quantity such as {_example(keyword)}, got {value}"
    if str(value).startswith("-") and str(value)[1:2].isdigit():
        return f"must not be negative, got {str(value)[:40]!r}"
    if keyword["unit"] == "bytes" and _HUGE.fullmatch(str(value)):
        return f"must be at most 1Ei (1024Pi), got {str(value)[:40]!r}"
    try:
        if keyword["unit"] == "cpu":
            parse_cpu(value)
            return None
        amount = parse_bytes(value)
    except ValueError as error:
        return str(error)
    least = parse_bytes(keyword["minimum"])
    if amount >= least:
        return None
    suffix = f"; did you mean {value}Mi?" if 0 < amount == value else ""
    return f"must be at least {format_bytes(least)}, got {str(value)!r}{suffix}"


def _example(keyword: Mapping[str, Any]) -> str:
    return "2 or 500m" if keyword["unit"] == "cpu" else "512Mi or 4Gi"


def compile_schema(schema: Mapping[str, Any]) -> Any:
    """A jsonschema validator of `schema`, with the changes above."""
    from jsonschema import Draft202012Validator, ValidationError, validators

    def pattern(_: Any, wanted: str, instance: Any, __: Any) -> Iterator[Any]:
        if isinstance(instance, str) and compiled_pattern(wanted).search(instance) is None:
            yield ValidationError("pattern")

    def quantity(_: Any, keyword: Mapping[str, Any], instance: Any, __: Any) -> Iterator[Any]:
        fault = quantity_fault(keyword, instance)
        if fault is not None:
            yield ValidationError(fault)

    def integer(_: Any, instance: Any) -> bool:
        return isinstance(instance, int) and not isinstance(instance, bool)

    checker = Draft202012Validator.TYPE_CHECKER.redefine("integer", integer)
    extended = validators.extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {"pattern": pattern, QUANTITY: quantity}, type_checker=checker
    )
    return extended(schema)
