"""vcl migrate, against a daemon with canned answers."""

from __future__ import annotations

import io
from typing import Any

import pytest
from vcl.migrating import Line, text_of

PROGRESS = {"percent": 45, "rate": 112 * 2**20, "secondsLeft": 3.2}


def migration(phase: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "vcl/v1",
        "kind": "Migration",
        "metadata": {"name": "web-1", "uid": "web-1"},
        "spec": {"vm": "web", "to": "r2"},
        "status": {
            "phase": phase,
            "vm": "web",
            "sourceNode": "r1",
            "targetNode": "r2",
            "message": message,
            **more,
        },
    }


def going(api: Any, *steps: dict[str, Any]) -> None:
    """One step further at each look after it was asked for."""
    left = list(steps)
    api.objects["migrations", "web-1"] = left[0]

    def look(kind: str, name: str) -> None:
        if kind == "migrations" and left:
            api.objects["migrations", "web-1"] = left.pop(0)

    api.on_get = look


def test_it_is_asked_for_and_goes_on_by_itself(vcl: Any, api: Any) -> None:
    going(api, migration("Pending"))
    done = vcl("migrate", "web", "--to", "node/r2")
    assert (done.code, done.out) == (0, "virtualmachine/web migrating to r2 (migration/web-1)\n")
    assert api.requests("POST")[-1] == ("virtualmachines/web/migrate", {}, {"to": "r2"})
    assert vcl("migrate", "vm/web").code == 0
    assert api.requests("POST")[-1][2] == {}


def test_waiting_tells_each_change_in_a_line(vcl: Any, api: Any) -> None:
    going(
        api,
        migration("Pending", "it waits for its turn"),
        migration("Pending", "it waits for its turn"),
        migration("Running", "its memory is being copied", progress=PROGRESS),
        migration("Succeeded", "it runs on node r2"),
    )
    done = vcl("migrate", "web", "--wait")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "virtualmachine/web migrated to r2"
    assert done.err == "it waits for its turn\nits memory is being copied\n"


@pytest.mark.parametrize(("phase", "word"), [("Failed", "failed"), ("Cancelled", "was cancelled")])
def test_one_that_came_to_nothing_says_why(vcl: Any, api: Any, phase: str, word: str) -> None:
    going(api, migration(phase, "it took longer than 60 s; it goes on where it was, on node r1"))
    done = vcl("migrate", "web", "--wait")
    assert done.code == 1
    assert f"the migration of virtualmachine/web {word}: it took longer than 60 s" in done.err


def test_a_time_out_leaves_it_going_and_says_how_to_end_it(vcl: Any, api: Any) -> None:
    going(api, migration("Running", "its memory is being copied"))
    done = vcl("migrate", "web", "--wait", "--timeout=100ms")
    assert done.code == 1
    assert "timed out waiting for the migration of virtualmachine/web: its memory is being copied" in done.err
    assert "vcl migrate web --cancel" in done.err


def test_it_can_be_cancelled(vcl: Any, api: Any) -> None:
    going(api, migration("Running"))
    done = vcl("migrate", "web", "--cancel")
    assert (done.code, done.out) == (0, "migration/web-1 cancelled\n")
    assert api.requests("POST")[-1][0] == "virtualmachines/web/migrate-cancel"


def test_the_bar_tells_share_rate_and_time_left() -> None:
    words = "its memory is being copied"
    assert text_of(words, PROGRESS) == f"[#########...........] 45 %, 112MiB/s, 3 s left  {words}"
    assert text_of(words, {}) == words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_drawn_anew_and_taken_away() -> None:
    stream = Terminal()
    line = Line(stream)
    line.say("its memory is being copied", PROGRESS)
    line.clear()
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")
