"""YAML 1.2 core scalars: what an unquoted word means.

PyYAML's own resolver follows YAML 1.1, where `no` is false, `012` is ten and an unquoted MAC address is a
number in base 60. Here a plain scalar is null, a boolean, a decimal, octal (`0o`) or hexadecimal (`0x`)
number, a float, or else the text itself. Source: YAML 1.2.2, chapter 10.3.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(
    r"""(?P<int>[-+]?[0-9]+)
      | 0o(?P<octal>[0-7]+)
      | 0x(?P<hex>[0-9a-fA-F]+)
      | (?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)
      | (?P<odd>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))""",
    re.VERBOSE,
)
_FIRST = frozenset("+-.0123456789")
_MOST_DIGITS = 40
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def resolve(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar. Raises ValueError for what no field can hold: NaN, infinity,
    numbers beyond any range."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _FIRST:
        return text
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if match["odd"]:
        what = "NaN" if "nan" in text.lower() else "infinity"
        raise ValueError(f'{what} is not allowed here; to mean the text, put it in quotes: "{text}"')
    if len(text) > _MOST_DIGITS:
        raise ValueError(
            f"the number has {len(text)} digits, which no field can hold; quote it if it is text"
        )
    return _number(match)


def _number(match: re.Match[str]) -> int | float:
    if match["int"]:
        return int(match["int"])
    if match["octal"]:
        return int(match["octal"], 8)
    if match["hex"]:
        return int(match["hex"], 16)
    return finite(match["float"])


def finite(text: str) -> float:
    """A float. Raises ValueError when it is too large to be one."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text} is too large")
    return value


def refused_character(text: str) -> str | None:
    """What is wrong with a string value that holds control characters or half a surrogate pair, or None."""
    match = _CONTROL.search(text)
    if match is None:
        return None
    return f"the text contains the control character U+{ord(match[0]):04X}, which is not allowed"
