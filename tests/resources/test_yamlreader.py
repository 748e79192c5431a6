"""Trees from YAML text, with libyaml and without it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from reconciler.resources.yamlreader import PARSER, read_yaml
from reconciler.resources.yamltree import MAX_DEPTH, MAX_NODES, Node, RawDocument

PARSERS = [pytest.param(PARSER, id="default"), pytest.param(yaml.SafeLoader, id="pure python")]


def only(text: str, parser: Any = PARSER) -> RawDocument:
    (document,) = read_yaml(text, parser)
    return document


def root(text: str, parser: Any = PARSER) -> Node:
    node = only(text, parser).root
    assert node is not None
    return node


def test_the_default_parser_is_libyaml() -> None:
    assert PARSER is yaml.CSafeLoader


@pytest.mark.parametrize("parser", PARSERS)
def test_every_value_and_key_knows_its_line_and_column(parser: Any) -> None:
    tree = root("a:\n  - b: 1\n    ключ: [x, y]\n", parser)
    assert tree.value == {"a": [{"b": 1, "ключ": ["x", "y"]}]}
    assert tree.locate(("a", 0, "b")) == (2, 8)
    assert tree.locate(("a", 0, "b"), key=True) == (2, 5)
    assert tree.locate(("a", 0, "ключ", 1)) == (3, 15)
    assert tree.locate(("a",)) == (2, 3)
    assert tree.locate(("a",), key=True) == (1, 1)


def test_what_does_not_exist_is_located_at_the_nearest_thing_above() -> None:
    tree = root("spec:\n  cpu:\n    cores: 1\n")
    assert tree.locate(("spec", "cpu", "model"), key=True) == (2, 3)
    assert tree.locate(("spec", "disks", 3, "name")) == (1, 1)
    assert tree.locate(("metadata",), key=True) == (1, 1)


def test_a_scalar_remembers_how_it_was_written() -> None:
    tree = root("a: 012\nb: '012'\nc: [true]\n")
    assert (tree.value["a"], tree.text_at(("a",))) == (12, "012")
    assert tree.value["b"] == "012"
    assert tree.text_at(("c", 0)) == "true"
    assert tree.text_at(("x", "y")) == ""


def test_a_field_without_a_value_is_absent_and_still_has_a_place() -> None:
    tree = root("a:\nb: 1\nc: [~]\n")
    assert tree.value == {"b": 1, "c": [None]}
    assert tree.locate(("a",), key=True) == (1, 1)


@pytest.mark.parametrize("parser", PARSERS)
def test_documents_share_out_the_lines_of_a_file(parser: Any) -> None:
    documents = read_yaml("# head\n---\na: 1\n# tail of a\n---\n# head of b\nb: 2\n...\n---\nc: 3\n", parser)
    assert [d.root.value for d in documents if d.root] == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert [(d.first, d.last) for d in documents] == [(1, 4), (5, 8), (9, 10)]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "   "])
def test_a_file_without_content_has_no_documents(text: str) -> None:
    assert read_yaml(text) == ()


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate key 'a'; it is on line 1 already"),
        ("a: &x 1\n", 1, 4, "anchors (&x) are not supported"),
        ("a: &x\n  b: 1\n", 1, 4, "anchors (&x) are not supported"),
        ("a: 1\nb: *a\n", 2, 4, "aliases (*a) are not supported"),
        ("<<: {a: 1}\n", 1, 1, "merge keys (<<) are not supported"),
        ("a: !!str 1\n", 1, 4, "tags (!!str) are not supported"),
        ("a: !mine {b: 1}\n", 1, 4, "tags (!mine) are not supported"),
        ("a: !!python/object:os.system x\n", 1, 4, "tags (!!python/object:os.system) are not supported"),
        ("1: a\n", 1, 1, 'a key must be text; put it in quotes: "1"'),
        ("true: a\n", 1, 1, 'a key must be text; put it in quotes: "true"'),
        ("? [a, b]\n: c\n", 1, 3, "a list or a map cannot be a key"),
        ("a: .nan\n", 1, 4, "NaN is not allowed here"),
        ('a: "\\0"\n', 1, 4, "control character U+0000"),
    ],
)
@pytest.mark.parametrize("parser", PARSERS)
def test_what_hides_the_meaning_of_a_manifest_is_refused(
    parser: Any, text: str, line: int, column: int, message: str
) -> None:
    (met,) = only(text, parser).problems
    assert (met.at.line, met.at.column) == (line, column)
    assert met.at.message.startswith(message) or message in met.at.message


def test_problems_know_their_path() -> None:
    text = "a:\n  - 1\n  - b: [x, {c: *d}]\n    b: 2\n"
    assert [met.path for met in only(text).problems] == [("a", 1, "b", 1, "c"), ("a", 1, "b")]


def test_the_values_of_refused_keys_are_left_out() -> None:
    assert root("a: 1\na: {b: [2]}\n<<: {c: 3}\n[x]: {d: 4}\n1: [5]\ne: 6\n").value == {"a": 1, "e": 6}


@pytest.mark.parametrize("parser", PARSERS)
def test_a_syntax_error_leaves_what_came_before_and_the_next_document(parser: Any) -> None:
    first, second = read_yaml("kind: A\nmetadata: {name: x\nspec: 1\n---\nkind: B\n", parser)
    assert first.broken
    assert first.root is not None
    assert first.root.value["kind"] == "A"
    assert (first.problems[0].at.line, first.problems[0].at.column) == (2, 11)
    assert second == RawDocument(root=second.root, first=4, last=5)
    assert second.root is not None
    assert second.root.locate(("kind",)) == (5, 7)


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c\n", "unexpected ':'"),
        ("a:\n\t- b\n", "tabs cannot indent YAML; use spaces"),
        ("a: @x\n", "cannot start a value; put the value in quotes"),
        ("a: 'x\n", "the quote that starts here is never closed"),
        ("a: [1, 2\nb: 3\n", "the list that starts here with '[' is not closed"),
        ("a: {b: 1\nc: 2\n", "the map that starts here with '{' is not closed"),
        ("a: 1\nb\nc: 2\n", "this line lacks a ':' after its key"),
        ("a: |\n  x\n y\n", "a 'key: value' line was expected"),
        ('a: "\\q"\n', "unknown escape in double quotes"),
        ("%YAML 3.0\n---\na: 1\n", "only YAML 1.1 and 1.2 can be read"),
        ('a: "\\UFFFFFFFF"\n', "not valid YAML"),
    ],
)
def test_syntax_errors_say_what_to_do(parser: Any, text: str, message: str) -> None:
    met = read_yaml(text, parser)[0].problems[-1]
    assert message in met.at.message
    assert met.at.message.startswith("not valid YAML: ")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "? " * 100_000])
def test_100_000_nested_brackets_neither_crash_nor_hang(text: str) -> None:
    met = only(text).problems[-1]
    assert met.at.message == f"lists and maps are nested more than {MAX_DEPTH} deep here"
    assert met.at.line == 1


def test_nesting_up_to_the_limit_is_read() -> None:
    assert only("[" * MAX_DEPTH + "]" * MAX_DEPTH).problems == ()
    assert only("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1)).broken


def test_a_file_of_too_many_values_is_cut_off_once() -> None:
    documents = read_yaml("- a\n" * (MAX_NODES + 1) + "---\n- b\n" * 5)
    assert [met.at.message for d in documents for met in d.problems] == [
        f"the file holds more than {MAX_NODES} values; split it into several files"
    ]


def test_a_file_of_many_broken_documents_is_given_up() -> None:
    documents = read_yaml("---\n'\n" * 5_000)
    assert 10 < len(documents) < 100
    assert all(document.broken for document in documents)
