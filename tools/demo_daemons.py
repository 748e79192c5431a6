"""The demo's two daemons, a private libvirtd and vcld: started in the background, found again, ended.

A process is recognised by its command line, which names the demo's own directory, never by a number in a file
alone: an old number may be anybody's by now. Standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from demo_place import ROOT, DemoFailed, Place, last_lines

STOP_SECONDS = 15.0


def _lab() -> Any:
    spec = importlib.util.spec_from_file_location("vcl_lab_libvirtd", ROOT / "tests/lab/libvirtd.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["vcl_lab_libvirtd"] = module
    spec.loader.exec_module(module)
    return module


lab = _lab()


def libvirtd(where: Place) -> Any:
    """The private libvirtd of this place; libvirt's session mode when an ordinary user made it."""
    return lab.PrivateLibvirtd(where.libvirt, session=where.owner not in (0, None))


def start_libvirtd(where: Place) -> tuple[Any, bool]:
    """(libvirtd, whether it was started just now). Raises DemoFailed with its last words."""
    daemon = libvirtd(where)
    running = daemon.process() is not None
    where.libvirt.mkdir(exist_ok=True)
    try:
        daemon.start()
    except lab.LibvirtdFailed as error:
        raise DemoFailed(f"{error}; its log: {where.libvirt}/libvirtd.log") from error
    return daemon, not running


def vclds(where: Place) -> list[Any]:
    """Every running vcld of this place, also one that was started by hand with its configuration."""
    return [process for process in lab._processes() if _is_vcld(_arguments(process.pid), where)]


def from_here(process: Any) -> bool:
    """Whether this checkout's environment runs it."""
    return _arguments(process.pid)[:1] == [sys.executable]


def start_vcld(where: Place) -> Any:
    """Start vcld; returns its process at once."""
    with where.log.open("ab") as log:
        child = subprocess.Popen(
            _command(where),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    return child


def wait_for_socket(where: Place, child: Any, seconds: float) -> None:
    """Return when the API's socket is there. Raises DemoFailed with the log's end when vcld ended."""
    deadline = time.monotonic() + seconds
    while not where.socket.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            lines = "\n  ".join(last_lines(where.log, 8)) or "it left no message"
            how = "ended" if child.poll() is not None else f"has no socket after {seconds:.0f} s"
            raise DemoFailed(f"vcld {how}; the end of {where.log}:\n  {lines}")
        time.sleep(0.05)


def stop_vcld(where: Place) -> int:
    """End every vcld of this place, gently, then not; how many there were. Guests go on."""
    found = vclds(where)
    for process in found:
        process.signal(signal.SIGCONT)
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while any(process.alive() for process in found):
        if time.monotonic() > deadline:
            for process in found:
                process.signal(signal.SIGKILL)
            deadline = time.monotonic() + STOP_SECONDS
        time.sleep(0.05)
    where.socket.unlink(missing_ok=True)
    return len(found)


def _is_vcld(arguments: list[str], where: Place) -> bool:
    return str(where.config) in arguments and any(
        word == "vcld.main" or word.endswith("/vcld") for word in arguments
    )


def _command(where: Place) -> list[str]:
    return [sys.executable, "-m", "vcld.main", "--config", str(where.config)]


def _arguments(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return []
    return [os.fsdecode(word) for word in text.split(b"\0")[:-1]]
