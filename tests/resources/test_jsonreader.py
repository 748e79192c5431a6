"""Trees from JSON text."""

from __future__ import annotations

import pytest

from reconciler.resources.jsonreader import read_json
from reconciler.resources.yamltree import MAX_DEPTH, RawDocument


def only(text: str) -> RawDocument:
    (document,) = read_json(text)
    return document


def test_values_are_json_and_know_their_positions() -> None:
    text = '{\r\n\t"a": [1, -2.5e3, true, null],\n"\\u00e9\\ud83d\\ude00": {"b": "x"}}\n'
    document = only(text)
    assert document.root is not None
    assert document.root.value == {"a": [1, -2500.0, True, None], "é😀": {"b": "x"}}
    assert document.root.locate(("a", 1)) == (2, 11)
    assert document.root.locate(("a",), key=True) == (2, 2)
    assert (document.first, document.last) == (1, 3)


def test_words_are_strings_when_they_are_quoted() -> None:
    document = only('{"a": "no", "b": "012", "c": "<<"}')
    assert document.problems == ()
    assert document.root is not None
    assert document.root.value == {"a": "no", "b": "012", "c": "<<"}


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ('{"a": 1,\n "a": 2}', 2, 2, "duplicate key 'a'; it is on line 1 already"),
        ('{"a": NaN}', 1, 7, "NaN is not allowed here"),
        ('{"a": -Infinity}', 1, 7, "Infinity is not allowed here"),
        ('{"a": 1e999}', 1, 7, "the number 1e999 is too large"),
        ('{"a": ' + "9" * 5000 + "}", 1, 7, "the number has 5000 digits"),
        ('{"a": "\\ud800"}', 1, 7, "U+D800"),
        ('{"a": "\\u0000"}', 1, 7, "U+0000"),
        ('{"a": 1,}', 1, 9, "not valid JSON"),
        ("{'a': 1}", 1, 2, "not valid JSON"),
        ('{"a": "x', 1, 7, "not valid JSON"),
        ('{"a": 1} {"b": 2}', 1, 10, "not valid JSON: Extra data"),
        ("// no\n{}", 1, 1, "not valid JSON"),
    ],
)
def test_what_is_wrong_has_a_position(text: str, line: int, column: int, message: str) -> None:
    (met,) = only(text).problems
    assert message in met.at.message
    assert met.at.line == line
    assert met.at.column in (column, column - 1)  # Python 3.13 names the comma, not what follows it


def test_100_000_nested_brackets_neither_crash_nor_hang() -> None:
    assert (
        only("[" * 100_000)
        .problems[0]
        .at.message.startswith(f"lists and maps are nested more than {MAX_DEPTH}")
    )
    assert only('{"a":' * 100_000).broken


def test_an_empty_file_has_no_documents() -> None:
    assert read_json(" \n") == ()
