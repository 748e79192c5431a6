"""`vcl console` on a real pseudo-terminal and in pipes: the terminal is always put back."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Terminal:
    """A program on a pseudo-terminal, and what it printed."""

    def __init__(self, master: int, slave: int, process: subprocess.Popen[bytes]) -> None:
        self.master = master
        self.slave = slave
        self.process = process
        self.printed = b""

    def expect(self, wanted: bytes, seconds: float = 20) -> None:
        limit = time.monotonic() + seconds
        while wanted not in self.printed:
            left = limit - time.monotonic()
            assert left > 0, f"{wanted!r} did not come; got {self.printed!r}"
            if select.select([self.master], [], [], left)[0]:
                self.printed += os.read(self.master, 4096)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.slave)


@contextmanager
def on_terminal(api: Any, *argv: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "vcl.main", *argv],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "VCL_SOCKET": api.socket},
        start_new_session=True,
    )
    try:
        yield Terminal(master, slave, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        os.close(master)
        os.close(slave)


def test_the_console_is_raw_until_the_escape_and_the_terminal_is_put_back(api: Any) -> None:
    api.console_output = b"login: "
    with on_terminal(api, "console", "web") as terminal:
        before = terminal.mode()
        terminal.expect(b"Connected to web. Press Ctrl-] to leave.")
        terminal.expect(b"login: ")
        assert not terminal.mode()[3] & termios.ICANON
        terminal.type(b"ro\x03ot\r")
        terminal.expect(b"\r>")
        terminal.type(b"x\x1dnever sent")
        terminal.expect(b"Left web; it goes on.")
        assert terminal.process.wait(20) == 0
        after = terminal.mode()
        assert after[3] & termios.ICANON
        assert after[:4] == before[:4]
    assert api.typed == b"ro\x03ot\rx"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back(api: Any, number: signal.Signals) -> None:
    api.console_output = b"login: "
    with on_terminal(api, "console", "web") as terminal:
        terminal.expect(b"login: ")
        terminal.process.send_signal(number)
        assert terminal.process.wait(20) == 128 + number
        assert terminal.mode()[3] & termios.ICANON


def test_the_guests_end_is_told_and_the_terminal_put_back(api: Any) -> None:
    api.console_output = b"# "
    with on_terminal(api, "console", "web") as terminal:
        terminal.expect(b"# ")
        terminal.type(b"poweroff\r")
        terminal.expect(b"error: the console was closed: the VM has stopped;")
        assert terminal.process.wait(20) == 1
        assert terminal.mode()[3] & termios.ICANON


def test_the_console_works_in_a_pipe(command: Any, api: Any) -> None:
    api.console_output = b"hello\r\n"
    done = command("console", "web", "--linger", "0.3s", stdin=b"uptime\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\r\n<uptime\n>", b"")


def test_the_last_lines_are_printed_without_attaching(vcl: Any, api: Any) -> None:
    api.console_output = b"one\r\ntwo\r\nthree"
    result = vcl("console", "web", "--tail", "2")
    assert (result.code, result.out) == (0, "two\nthree\n")


def test_a_vm_without_a_console_says_why(vcl: Any, api: Any) -> None:
    api.console_refuses = "virtualmachine 'web' is Stopped"
    assert vcl("console", "web").err == "error: virtualmachine 'web' is Stopped; start it\n"
    assert "a node has no console" in vcl("console", "node/r1").err


def test_edit_hands_the_terminal_to_the_editor(api: Any, tmp_path: Any) -> None:
    api.files["web.yaml"] = b"old\n"
    program = tmp_path / "editor"
    program.write_text(
        '#!/bin/sh\ntest -t 0 && test -t 1 && printf "type: " && read line && echo "$line" > "$1"\n'
    )
    program.chmod(0o755)
    os.environ["VISUAL"] = str(program)
    try:
        with on_terminal(api, "edit", "vm", "web") as terminal:
            terminal.expect(b"type: ")
            terminal.type(b"new\n")
            terminal.expect(b"virtualmachine/web configured")
            assert terminal.process.wait(20) == 0
    finally:
        del os.environ["VISUAL"]
    assert api.files["web.yaml"] == b"new\n"


def test_purge_asks_on_a_terminal(api: Any) -> None:
    with on_terminal(api, "delete", "vm", "web", "--purge") as terminal:
        terminal.expect(b"Type 'yes' to go on: ")
        terminal.type(b"no\n")
        terminal.expect(b"Cancelled, nothing was deleted")
        assert terminal.process.wait(20) == 1
    assert ("virtualmachines", "web") in api.objects
