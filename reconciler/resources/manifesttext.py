"""From a file's bytes to text that a parser can be trusted with.

Invariant: what comes out holds no character that YAML refuses, and its lines are the lines that an editor
shows, so that every position a parser reports is a position in the file. Characters that do not belong are
reported and replaced, so that the rest of the file can still be looked at.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

MAX_BYTES = 2**20
"""The largest manifest file: 1 MiB."""

_BREAK = re.compile(r"\r\n|\n|\r")
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_MOST_REPORTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """A message about a place of the file; `line` and `column` count from 1."""

    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A file as text. `exact`: it encodes to the file's bytes again, so that byte offsets can be trusted."""

    text: str
    lines: tuple[str, ...]
    exact: bool
    found: tuple[Marked, ...] = ()


def split_lines(text: str) -> tuple[str, ...]:
    """The lines without their ends; `\\r\\n`, `\\n` and `\\r` end a line, as in YAML."""
    return tuple(_BREAK.split(text))


def read_text(data: bytes) -> Text:
    """The text of a manifest file, with what is wrong with its encoding. Never raises."""
    if len(data) > MAX_BYTES:
        size = len(data) / 2**20
        message = f"the file is {size:.1f} MiB; a manifest is 1 MiB at most, split it into several files"
        return Text(text="", lines=(), exact=False, found=(Marked(line=1, column=1, message=message),))
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = _REFUSED.sub("?", data.decode("utf-16", errors="replace"))
        return _refused(text, "the file is in UTF-16; save it as UTF-8")
    if data.startswith(b"\xef\xbb\xbf"):
        text = _REFUSED.sub("?", data[3:].decode(errors="replace"))
        return _refused(text, "the file starts with a byte order mark; save it as UTF-8 without one")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return _not_utf8(data, error)
    return _checked(text)


def _refused(text: str, message: str) -> Text:
    found = (Marked(line=1, column=1, message=message),)
    return Text(text=text, lines=split_lines(text), exact=False, found=found)


def _not_utf8(data: bytes, error: UnicodeDecodeError) -> Text:
    before = split_lines(data[: error.start].decode())
    message = f"the file is not UTF-8: it holds the byte 0x{data[error.start]:02X} here; save it as UTF-8"
    found = (Marked(line=len(before), column=len(before[-1]) + 1, message=message),)
    text = _REFUSED.sub("?", data.decode(errors="replace"))
    return Text(text=text, lines=split_lines(text), exact=False, found=found)


def _checked(text: str) -> Text:
    if _REFUSED.search(text) is None:
        return Text(text=text, lines=split_lines(text), exact=True)
    found: list[Marked] = []
    for number, line in enumerate(split_lines(text), start=1):
        for match in _REFUSED.finditer(line):
            if len(found) < _MOST_REPORTED:
                found.append(Marked(line=number, column=match.start() + 1, message=_describe(match[0])))
    clean = _REFUSED.sub("?", text)
    return Text(text=clean, lines=split_lines(clean), exact=False, found=tuple(found))


def _describe(character: str) -> str:
    name = unicodedata.name(character, "a control character").lower()
    return f"the character U+{ord(character):04X} ({name}) is not allowed; remove it"
