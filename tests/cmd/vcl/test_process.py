"""The real program in a process of its own: what it imports, how it ends, what it says without a daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from vcl.client import Client, Unreachable
from vcl.main import as_flags, as_verb, split_globals

from reconciler.resources.errors import VclError

HEAVY = ("aiohttp", "jsonschema", "libvirt", "rich", "asyncio", "yaml", "http.client")

PROBE = """
import sys
from vcl.main import main
code = main(sys.argv[1:])
print("imported:", *(name for name in {heavy} if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "argv", [("get", "vms"), ("get", "vm", "web", "-o", "wide"), ("--help",), ("get", "--help")]
)
def test_get_and_help_import_nothing_heavy(api: Any, argv: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *argv],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "VCL_SOCKET": api.socket},
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == "imported:\n"


def test_help_does_not_even_import_what_talks_to_the_daemon() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=("vcl.client", "vcl.http1", "json", "socket")), "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "imported:\n")


def test_the_program_reads_manifests_from_stdin(command: Any, api: Any) -> None:
    done = command("apply", "-f", "-", stdin=b"# from a pipe\n")
    assert done.returncode == 0
    assert api.requests("POST")[0][2]["files"] == [
        {"name": "stdin", "content": "# from a pipe\n", "path": None}
    ]
    done = command("validate", "-", stdin=b"kind: [")
    assert done.returncode == 1
    assert done.stdout.startswith(b"stdin:1:")


def test_a_reader_that_leaves_ends_it_quietly(api: Any) -> None:
    code = f"'{sys.executable}' -m vcl.main get vms -o json | true; echo ${{PIPESTATUS[0]}} >&2"
    for number in range(300):
        item = dict(api.objects["virtualmachines", "web"])
        api.objects["virtualmachines", f"x{number}"] = item
    done = subprocess.run(
        ["bash", "-c", code],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "VCL_SOCKET": api.socket},
        check=False,
    )
    assert (done.stdout, done.stderr) == ("", "141\n")


def test_a_full_disk_is_an_error(command: Any, api: Any) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "vcl.main", "get", "vms"],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            env={**os.environ, "VCL_SOCKET": api.socket},
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: No space left on device")


def test_ctrl_c_ends_it_quietly_with_130(api: Any) -> None:
    api.objects["virtualmachines", "web"]["status"]["phase"] = "Stopped"
    looked = threading.Event()
    api.on_get = lambda kind, name: looked.set()
    with subprocess.Popen(
        [sys.executable, "-m", "vcl.main", "start", "web", "--wait"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "VCL_SOCKET": api.socket},
    ) as process:
        assert looked.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"virtualmachine/web starting\n", b"")


def test_without_a_daemon_the_error_says_how_to_start_one(command: Any) -> None:
    done = command("get", "vms", "--socket", "/nonexistent/vcld.sock")
    assert done.returncode == 1
    assert done.stderr == (
        b"error: cannot reach vcld at /nonexistent/vcld.sock: no such file; is the daemon running? "
        b"start it with 'vcld', or name its socket with --socket or VCL_SOCKET\n"
    )


@contextmanager
def listener(path: Path, answer: bytes | None) -> Iterator[str]:
    """A socket that answers every request with these bytes, or not at all."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(10)
        done = threading.Event()

        def serve() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                if answer is None:
                    done.wait(10)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "did not answer in time; look at the daemon's log, or allow more with --request-timeout"),
        (b"SSH-2.0\r\n", "broke off: the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", "broke off: the answer ends too early"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "is not JSON: b'hello'; is this vcld's socket?",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is not an object"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", "oops"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\n[]", "vcld answered 503"),
    ],
)
def test_a_daemon_that_answers_badly_gives_a_clear_error(
    tmp_path: Path, answer: bytes | None, message: str
) -> None:
    with listener(tmp_path / "s", answer) as path, pytest.raises(VclError) as caught:
        Client(path, timeout=0.3).object(_vms(), "web")
    assert message in str(caught.value)


def _vms() -> Any:
    from reconciler.resources.kinds import KINDS

    return KINDS[0]


def test_other_sockets_and_files_are_told_apart(tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(stale))
    plain = tmp_path / "plain"
    plain.touch()
    for path, words in (
        (str(stale), "nobody listens on it"),
        (str(plain), "nobody listens on it"),
        (str(tmp_path / ("x" * 200)), "too long"),
    ):
        with pytest.raises(Unreachable, match=words):
            Client(path).get("/version")


def test_global_options_may_stand_anywhere() -> None:
    session, rest = split_globals(
        ["get", "--socket", "/a", "vms", "--request-timeout=5s", "--", "--socket", "b"]
    )
    assert (session.socket, session.timeout, rest) == ("/a", 5.0, ["get", "vms", "--", "--socket", "b"])


def test_what_users_of_kubectl_type_is_understood() -> None:
    assert as_verb(["help"]) == ["--help"]
    assert as_verb(["help", "get"]) == ["get", "--help"]
    assert as_verb(["--version"]) == ["version"]
    assert as_verb(["get", "help"]) == ["get", "help"]
    words = ["get", "--watch=true", "--no-headers=false", "--for=create", "--", "--all=true"]
    assert as_flags(words) == ["get", "--watch", "--for=create", "--", "--all=true"]


@pytest.mark.parametrize("argv", [["--socket"], ["--request-timeout=0"], ["--request-timeout=soon"]])
def test_bad_global_options_are_refused(argv: list[str]) -> None:
    with pytest.raises(VclError) as caught:
        split_globals(argv)
    assert caught.value.cure


def test_completion_scripts_are_valid_shell(command: Any, tmp_path: Path) -> None:
    script = tmp_path / "vcl.bash"
    script.write_bytes(command("completion", "bash").stdout)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
    program = tmp_path / "vcl"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m vcl.main \"$@\"\n")
    program.chmod(0o755)
    socket_path = command.__closure__[0].cell_contents.socket
    probe = f"source {script}; COMP_LINE='vcl get vm w'; COMP_POINT=12; _vcl_complete; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(
        ["bash", "-c", probe],
        capture_output=True,
        text=True,
        env={**os.environ, "VCL_SOCKET": socket_path, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        timeout=30,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("web\n", "")


def test_it_starts_in_a_moment(command: Any) -> None:
    begun = time.monotonic()
    assert command("--help").returncode == 0
    assert time.monotonic() - begun < 5
