"""vcl logs: lines for people and programs, and a stream that outlives the daemon."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from typing import Any

import pytest
from vcl.client import ApiError, Client, Unreachable, WatchEvent
from vcl.log_stream import LogStream
from vcl.verbs.complete import complete
from vcl.verbs.logs import human

from reconciler.resources.errors import VclError


def record(sequence: int, message: str, *, node: str = "r1", session: int = 1, **more: Any) -> dict[str, Any]:
    found = {
        "time": f"2026-01-31T12:00:{sequence:02}.123456Z", "node": node, "level": "info", "logger": "t",
        "message": message, "session": session, "sequence": sequence, **more,
    }  # fmt: skip
    return {"type": "RECORD", "object": found}


def notice(type: str, message: str) -> dict[str, Any]:
    return {"type": type, "object": {"kind": type, "node": "r3", "message": message, "count": 0}}


BOOKMARK = {"type": "BOOKMARK", "object": {}}


def test_a_line_says_when_where_how_bad_and_what(api: Any, vcl: Any) -> None:
    api.log_streams = [[BOOKMARK, record(1, "vm web1: Running -> Stopping", vm="web1")]]
    result = vcl("logs")
    assert (result.code, result.err) == (0, "")
    assert result.out == "2026-01-31T12:00:01.123Z r1 INFO vm web1: Running -> Stopping\n"


def test_json_is_one_object_a_line(api: Any, vcl: Any) -> None:
    api.log_streams = [[record(1, "ü"), record(2, "b")]]
    lines = vcl("logs", "-o", "json").out.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["ü", "b"]


def test_every_option_reaches_the_daemon(api: Any, vcl: Any) -> None:
    api.log_streams = [[], []]
    vcl("logs", "--node", "r2", "--vm", "vm/web", "--level", "WARN", "--since", "2026-01-31", "--tail", "5")
    vcl("logs", "--tail", "-1", "--since=10m")
    first, second = [query for path, query, _ in api.requests("GET") if path == "logs"]
    assert first == {
        "node": "r2",
        "vm": "web",
        "level": "warning",
        "since": "2026-01-31T00:00:00.000000Z",
        "tail": "5",
    }
    assert sorted(second) == ["level", "since"]


def test_what_is_missing_is_named_on_stderr(api: Any, vcl: Any) -> None:
    api.log_streams = [[notice("MISSING", "r3 is not connected: its log is missing"), record(1, "a")]]
    result = vcl("logs")
    assert (result.code, result.out.count("\n")) == (0, 1)
    assert result.err == "warning: r3 is not connected: its log is missing\n"


def test_the_log_of_one_node_that_cannot_be_had_is_an_error(api: Any, vcl: Any) -> None:
    api.log_streams = [[notice("MISSING", "r3 is not connected: its log is missing")]]
    result = vcl("logs", "--node", "r3")
    assert result.code == 1
    assert result.err.startswith("error: r3 is not connected: its log is missing; see 'vcl cluster status'")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--level", "loud"], "not a level"),
        (["--since", "noon"], "neither a duration nor a time"),
        (["--since", "9999999d"], "before all time"),
        (["--tail", "-2"], "--tail"),
        (["-o", "yaml"], "output format"),
    ],
)
def test_options_that_make_no_sense_are_refused(vcl: Any, options: list[str], word: str) -> None:
    result = vcl("logs", *options)
    assert (result.code, word in result.err) == (1, True)


def test_messages_cannot_drive_the_terminal_and_keep_their_lines() -> None:
    line = human(record(1, "failed\nTraceback\x1b[2J\n  x\n")["object"])
    assert line.splitlines()[1:] == ["    Traceback\\x1b[2J", "      x"]


def test_the_vm_is_named_once() -> None:
    assert human(record(1, "moved", vm="web")["object"]).endswith("INFO vm web: moved\n")


def test_colours_are_only_for_a_terminal(api: Any) -> None:
    bad = record(1, "bad", level="error")
    for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        api.log_streams = [[bad]]
        ours, theirs = pty.openpty()
        env = {**os.environ, "TERM": "xterm", "VCL_SOCKET": api.socket, **environment}
        command = [sys.executable, "-m", "vcl.main", "logs"]
        subprocess.run(command, stdout=theirs, env=env, timeout=30, check=True)
        os.close(theirs)
        assert ("\x1b[31mERROR\x1b[0m" in os.read(ours, 4096).decode()) is coloured
        os.close(ours)


class Daemon(Client):
    """A client whose daemon's connections are scripted: lines, or an error at their end."""

    def __init__(self, *connections: list[Any]) -> None:
        super().__init__("/nowhere")
        self.connections = list(connections)
        self.queries: list[dict[str, str]] = []

    def stream(self, path: str, query: Any, *, silence: float = 30.0) -> Any:
        self.queries.append(dict(query))
        for item in self.connections.pop(0):
            if isinstance(item, VclError):
                raise item
            yield WatchEvent(type=item["type"], object=item["object"])


GONE = Unreachable("cannot reach vcld")
ENOUGH = ApiError("enough", code=404, reason="NotFound", cure="", problems=())


def lines_of(daemon: Daemon, **query: str) -> tuple[list[str], list[str], list[float]]:
    """The messages, what was said on stderr, and the pauses, up to the error that ends the script."""
    said: list[str] = []
    pauses: list[float] = []
    got: list[str] = []
    stream = LogStream(daemon, {"follow": "1", **query}, say=said.append, pause=pauses.append).lines()
    with pytest.raises(ApiError, match="enough"):
        got.extend(iter(lambda: str(next(stream).object["message"]), ""))
    return got, said, pauses


def test_a_follower_goes_on_after_a_restart_without_repeating_or_missing_anything() -> None:
    daemon = Daemon(
        [BOOKMARK, record(1, "a"), record(1, "x", node="r2")],
        [GONE],
        [BOOKMARK, record(1, "a"), record(2, "b"), record(1, "x", node="r2"), record(1, "c", session=2)],
        [record(1, "c", session=2), record(2, "d", session=2), ENOUGH],
    )
    got, said, _ = lines_of(daemon, tail="2")
    assert got == ["a", "x", "b", "c", "d"]
    assert said[:2] == ["vcld at /nowhere has gone; waiting for it, Ctrl-C to leave", "vcld is back"]
    assert daemon.queries[0] == {"follow": "1", "tail": "2"}
    assert sorted(daemon.queries[2]) == ["follow", "since"]


def test_a_daemon_that_stays_away_is_asked_less_and_less_often() -> None:
    starting = ApiError("not yet", code=503, reason="Unavailable", cure="", problems=())
    daemon = Daemon([BOOKMARK], *[[GONE], [starting]] * 4, [ENOUGH])
    got, said, pauses = lines_of(daemon)
    assert (got, len(said)) == ([], 1)
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0]


def test_a_daemon_that_was_never_there_is_an_error() -> None:
    with pytest.raises(Unreachable):
        list(LogStream(Daemon([GONE]), {"follow": "1"}, say=print).lines())


def test_without_follow_a_stream_that_breaks_off_is_an_error_when_the_daemon_has_gone() -> None:
    stream = LogStream(Daemon([BOOKMARK, record(1, "a"), GONE], [GONE]), {}, say=print).lines()
    assert next(stream).object["message"] == "a"
    with pytest.raises(Unreachable):
        next(stream)


def test_a_pager_that_was_left_alone_shows_the_rest_when_somebody_reads_on() -> None:
    """The daemon drops a reader that takes nothing for long."""
    whole = [record(1, "a"), record(2, "x", node="r2"), record(3, "b"), record(4, "y", node="r3")]
    daemon = Daemon([*whole[:2], GONE], [*whole[:3], GONE], whole)
    said: list[str] = []
    stream = LogStream(daemon, {"level": "info"}, say=said.append).lines()
    assert [line.object["message"] for line in stream] == ["a", "x", "b", "y"]
    assert said == []
    assert daemon.queries[1] == {"level": "info", "since": "2026-01-31T12:00:01.123456Z"}


def test_what_a_tail_left_out_does_not_come_back_with_the_daemon() -> None:
    older = record(1, "older", node="r2")
    daemon = Daemon([record(5, "a"), GONE], [older, record(5, "a"), record(6, "b"), ENOUGH])
    assert lines_of(daemon, tail="1")[0] == ["a", "b"]


def test_a_follower_of_nothing_yet_goes_on_from_its_beginning() -> None:
    daemon = Daemon([BOOKMARK, GONE], [ENOUGH])
    lines_of(daemon, tail="0")
    assert sorted(daemon.queries[1]) == ["follow", "since"]
    daemon = Daemon([BOOKMARK, GONE], [ENOUGH])
    lines_of(daemon, since="2026-01-31T12:00:00.000000Z")
    assert daemon.queries[1] == daemon.queries[0]


def test_ctrl_c_ends_a_follower_without_a_word(api: Any) -> None:
    api.log_streams = [[record(1, "a")]]
    process = subprocess.Popen(
        [sys.executable, "-m", "vcl.main", "logs", "-f"],
        env={**os.environ, "VCL_SOCKET": api.socket},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"INFO a" in process.stdout.readline()
    assert b"has gone" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (130, b"")


@pytest.mark.parametrize(
    ("words", "candidates"),
    [
        (["logs", "--level", "w"], ["warning"]),
        (["logs", "--level=e"], ["--level=error"]),
        (["logs", "--node", ""], ["r1"]),
        (["logs", "-f", "--vm", "w"], ["web"]),
        (["logs", "-f", "--s"], ["--since", "--socket"]),
    ],
)
def test_completion_knows_levels_nodes_and_vms(api: Any, words: list[str], candidates: list[str]) -> None:
    assert complete(words, Client(api.socket)) == candidates
