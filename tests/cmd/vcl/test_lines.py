"""Small pure parts: durations, tables, targets, JSONPath, sorting, the HTTP reader."""

from __future__ import annotations

import io
import socket
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcl import http1
from vcl.durations import age, human_duration, now, parse_duration
from vcl.jsonpath import evaluate, find, parse, parse_path
from vcl.output import to_yaml
from vcl.sorting import sort_objects
from vcl.table import clean, render
from vcl.targets import parse_targets, vm_names

from reconciler.resources.errors import VclError

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"),
        (-1.5, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 30, "2m30s"),
        (9 * MINUTE + 59, "9m59s"),
        (10 * MINUTE + 30, "10m"),
        (61 * MINUTE, "61m"),
        (179 * MINUTE + 59, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + 5 * MINUTE, "3h5m"),
        (8 * HOUR + 59 * MINUTE, "8h"),
        (47 * HOUR, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + 3 * HOUR, "2d3h"),
        (8 * DAY + 3 * HOUR, "8d"),
        (400 * DAY, "400d"),
        (2 * YEAR, "2y"),
        (2 * YEAR + 5 * DAY, "2y5d"),
        (9 * YEAR + 5 * DAY, "9y"),
    ],
)
def test_ages_are_kubectls(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("1h2m3s", 3723), ("500ms", 0.5), ("0", 0), ("1.5", 1.5), ("-1s", -1), ("-1", -1)],
)
def test_durations_are_read_as_go_and_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "m5", "5y", "inf", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(VclError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("value", [None, "", "yesterday", 5])
def test_an_unreadable_time_has_an_unknown_age(value: Any) -> None:
    assert age(value, now()) == "<unknown>"


def test_columns_are_three_spaces_apart_and_nothing_follows_the_last() -> None:
    assert render([("A", "LONG"), ("bcd", "e")]) == "A     LONG\nbcd   e\n"


@given(st.text())
def test_cleaned_text_is_one_printable_line(text: str) -> None:
    assert clean(text).isprintable()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["vms"], [("virtualmachines", ())]),
        (["VM", "web", "web", "db"], [("virtualmachines", ("web", "db"))]),
        (
            ["vm/web", "vm/db", "node/r1", "vm/x"],
            [("virtualmachines", ("web", "db")), ("nodes", ("r1",)), ("virtualmachines", ("x",))],
        ),
        (["vms,no", "a"], [("virtualmachines", ("a",)), ("nodes", ("a",))]),
    ],
)
def test_targets_are_read_as_kubectl_does(words: list[str], found: list[Any]) -> None:
    assert [(t.info.plural, t.names) for t in parse_targets(words)] == found


@pytest.mark.parametrize("words", [["web", "db"], ["vm", "web", "db"], ["vm/web", "vms/db"]])
def test_power_verbs_take_names_with_or_without_their_type(words: list[str]) -> None:
    assert vm_names(words, "start") == ("web", "db")


def test_a_node_cannot_be_started() -> None:
    with pytest.raises(VclError, match="only virtual machines"):
        vm_names(["node/r1"], "start")


OLD = "LegacyHostIP"

DATA = {
    "kind": "List",
    "items": [
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
            "status": {
                "capacity": {"cpu": "4"},
                "addresses": [{"type": OLD, "address": "127.0.0.1"}],
            },
        },
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.2"},
            "status": {
                "capacity": {"cpu": "8"},
                "addresses": [
                    {"type": OLD, "address": "127.0.0.2"},
                    {"type": "another", "address": "127.0.0.3"},
                ],
            },
        },
    ],
    "users": [
        {"name": "myself", "user": {}, "age": 3, "on": True},
        {"name": "e2e", "user": {"username": "admin", "password": "secret"}, "age": 10},
    ],
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("kind is {.kind}", "kind is List"),
        ("{['kind']}", "List"),
        ("{$.kind}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        ("{.users[-1].name}", "e2e"),
        ("{.users[7].name}", ""),
        ("{.users[0:1].name}{.users[1:].name}", "myselfe2e"),
        ("{.items[*]['metadata.name', 'status.capacity']}", '127.0.0.1 {"cpu":"4"} 127.0.0.2 {"cpu":"8"}'),
        ('{.users[?(@.name=="e2e")].user.password}', "secret"),
        ("{.users[?(@.name!='e2e')].name}", "myself"),
        ("{.users[?(@.age>3)].name}", "e2e"),
        ("{.users[?(@.age<=3)].name}", "myself"),
        ("{.users[?(@.on)].name}", "myself"),
        ("{.users[?(@.on==true)].name}", "myself"),
        ("{.users[?(@.name>5)].name}", ""),
        (
            "{range .items[*]}[{.metadata.name}, {.status.capacity}] {end}",
            '[127.0.0.1, {"cpu":"4"}] [127.0.0.2, {"cpu":"8"}] ',
        ),
        (r'{range .items[*]}{.metadata.name}{"\t"}{end}', "127.0.0.1\t127.0.0.2\t"),
        (r"{.items[0].metadata.labels.kubernetes\.io/hostname}", "127.0.0.1"),
        (r"{.items[0].metadata.labels['kubernetes\.io/hostname']}", "127.0.0.1"),
        (
            "{range .items[*]}{range .status.addresses[*]}{.address};{end}|{end}",
            "127.0.0.1;|127.0.0.2;127.0.0.3;|",
        ),
        ("{.users[*].age}", "3 10"),
        ("{.nothing.at.all}", ""),
        ("{.*[0].name}", "myself"),
    ],
)
def test_jsonpath_is_kubectls(template: str, text: str) -> None:
    assert evaluate(parse(template), DATA) == text


@pytest.mark.parametrize(
    "template",
    [
        "{.a",
        "{range .a}",
        "{end}",
        "{kind}",
        '{"x}',
        "{.a[}",
        "{.a[x]}",
        "{.a[?(@.b==c)]}",
        "{.a}{[}",
        "{}",
        "{.a b}",
    ],
)
def test_a_bad_template_is_refused_with_a_cure(template: str) -> None:
    with pytest.raises(VclError, match="JSONPath") as caught:
        parse(template)
    assert caught.value.cure


@given(st.text(alphabet="{}[].*?()@$'\"\\,:=<>abrange d01-", max_size=30))
def test_no_template_breaks_the_parser(template: str) -> None:
    with suppress(VclError):
        assert isinstance(evaluate(parse(template), DATA), str)


@pytest.mark.parametrize("path", [".metadata.name", "metadata.name", "{.metadata.name}"])
def test_paths_may_be_spelled_in_a_relaxed_way(path: str) -> None:
    assert find(parse_path(path), {"metadata": {"name": "web"}}) == ["web"]


def test_sorting_counts_as_people_do() -> None:
    items: list[dict[str, Any]] = [{"v": v} for v in ("web10", "web2", "2Gi", "512Mi", 7)] + [{}]
    assert [item.get("v") for item in sort_objects(items, ".v")] == [None, 7, "512Mi", "2Gi", "web2", "web10"]


def test_yaml_keeps_texts_readable_and_strings_strings() -> None:
    text = to_yaml({"a": "one\ntwo\n", "mac": "52:54:00:12:34:56", "no": "no", "n": 5})
    assert text == "a: |\n  one\n  two\nmac: '52:54:00:12:34:56'\n'no': 'no'\nn: 5\n"


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def response(data: bytes) -> http1.Response:
    return http1.Response(io.BytesIO(data))


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef", b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (
            CHUNKED + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nT: 1\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_http_bodies_are_read_in_every_form(answer: bytes, body: bytes) -> None:
    assert response(answer).read() == body


def test_lines_are_put_together_over_chunks() -> None:
    chunks = b"2\r\na\n\r\n3\r\nb\nc\r\n2\r\n\n\n\r\n0\r\n\r\n"
    answer = response(CHUNKED + chunks)
    assert list(answer.lines()) == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: -9\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"3\r\nab",
        CHUNKED + b"1\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nHeader",
    ],
)
def test_an_answer_that_is_not_whole_is_an_error(answer: bytes) -> None:
    with pytest.raises(http1.ProtocolError):
        response(answer).read()


def test_a_request_is_one_http_message() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        assert http1.send(here, "POST", "/x?y=1", b"{}").read() == b"{}"
        assert there.recv(4096).startswith(b"POST /x?y=1 HTTP/1.1\r\nHost: vcld\r\n")
