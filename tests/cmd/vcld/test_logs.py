"""The cluster log of a real vcld, as a person reads it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent

pytestmark = pytest.mark.slow


def said(node: Any, *options: str) -> list[dict[str, Any]]:
    answer = node.vcl("logs", "-o", "json", *options)
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_the_log_tells_of_each_vm_and_outlives_the_daemon(node: Any) -> None:
    node.start()
    node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    assert any("-> Running" in record["message"] for record in said(node, "--vm", "web"))
    first = said(node)
    assert "session 1, cluster" in " ".join(record["message"] for record in first)
    node.end()
    node.start()
    later = said(node, "--since", "1h")
    assert [record["session"] for record in later[: len(first)]] == [1] * len(first)
    assert "stopping; guests are left running" in [record["message"] for record in later]
    assert {record["session"] for record in later} == {1, 2}
    positions = [(record["session"], record["sequence"]) for record in later]
    assert positions == sorted(set(positions))
    kept = (node.root / "state" / "log" / "vcld.jsonl").read_text().splitlines()
    assert len(kept) >= len(later)


def test_lines_say_when_and_where(node: Any) -> None:
    node.start()
    line = node.vcl("logs", "--level", "info").stdout.splitlines()[0]
    time, name, level, _ = line.split(" ", 3)
    assert (time[-1], name, level) == ("Z", "r1", "INFO")


def test_a_follower_goes_on_when_the_daemon_is_killed_and_started_again(node: Any, tmp_path: Any) -> None:
    node.start()
    out, err = tmp_path / "followed", tmp_path / "complaints"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        follower = subprocess.Popen(
            [BIN / "vcl", "logs", "-f", "-o", "json", "--tail", "-1", "--socket", node.socket],
            stdout=stdout,
            stderr=stderr,
        )
        try:
            node.until(lambda: '"session": 1' in out.read_text())
            node.end(signal.SIGKILL)
            node.until(lambda: "has gone" in err.read_text())
            node.start()
            node.until(lambda: '"session": 2' in out.read_text())
            node.save("web")
            node.until(lambda: "vm web: " in out.read_text())
            follower.send_signal(signal.SIGINT)
            assert follower.wait(20) == 130
        finally:
            follower.kill()
            follower.wait()
    records = [json.loads(line) for line in out.read_text().splitlines()]
    positions = [(record["session"], record["sequence"]) for record in records]
    assert positions == sorted(set(positions))
    assert [sequence for session, sequence in positions if session == 2][:3] == [1, 2, 3]
    assert "Traceback" not in err.read_text()
