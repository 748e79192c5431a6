"""Waits until the demo's guests have really booted: not "QEMU runs", but their own user space said so.

The proof is what the guest prints on its serial console. vcld's API is asked over the socket, as any program
can do it.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from typing import Any

from demo_place import DemoFailed, Place, last_lines
from demo_show import Steps, title

SAID = re.compile(rb"^vcl-guest: (booted|tick) .*\S", re.MULTILINE)
POLL_SECONDS = 0.3


class Api:
    """vcld's HTTP API on its UNIX socket (docs/api.md)."""

    def __init__(self, where: Place) -> None:
        self._socket = str(where.socket)

    def read(self, path: str, method: str = "GET") -> bytes:
        """The body of the answer. Raises OSError or http.client.HTTPException, also for an error answer."""
        connection = http.client.HTTPConnection("vcld", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.settimeout(10)
            connection.sock.connect(self._socket)
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status >= 400:
                raise http.client.HTTPException(f"{path}: {answer.status} {body[:200]!r}")
            return body
        finally:
            connection.close()

    def vm(self, name: str) -> dict[str, Any]:
        """The merged object."""
        found: dict[str, Any] = json.loads(self.read(f"/apis/vcl/v1/virtualmachines/{name}"))
        return found

    def verb(self, name: str, verb: str) -> None:
        """Ask for start, resume, retry, ..."""
        self.read(f"/apis/vcl/v1/virtualmachines/{name}/{verb}", "POST")

    def console(self, name: str, size: int) -> bytes:
        """The last `size` bytes that the guest printed."""
        return self.read(f"/apis/vcl/v1/virtualmachines/{name}/console/tail?bytes={size}").replace(b"\r", b"")


def wait_for_node(api: Api, steps: Steps, seconds: float) -> None:
    """Return when the node is ready for VMs; the first look of libvirt at a QEMU takes some seconds."""
    why = "vcld does not answer"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status = json.loads(api.read("/apis/vcl/v1/nodes/demo")).get("status") or {}
            if status.get("ready"):
                steps.done("node demo", f"ready: {status['hypervisor']}, {status['cpu']} CPUs")
                return
            why = status.get("message") or "it has not reported yet"
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        steps.now("node demo", "libvirt looks at what QEMU can do")
        time.sleep(POLL_SECONDS)
    raise DemoFailed(f"the node is not ready after {seconds:.0f} s: {why}")


def wake(api: Api, names: list[str], steps: Steps) -> None:
    """Undo what a verb asked for in an earlier look at the demo: `vcl stop`, `vcl pause`, failed starts."""
    for name in names:
        status = api.vm(name).get("status") or {}
        intent = status.get("intent") or {}
        for there, verb in (
            (intent.get("run") == "Stop", "start"),
            (intent.get("paused"), "resume"),
            ((status.get("failures") or {}).get("count"), "retry"),
        ):
            if there:
                api.verb(name, verb)
                steps.done(name, f"vcl {verb}")


def wait_for_boot(api: Api, names: list[str], steps: Steps, seconds: float) -> list[str]:
    """Return the names that have not booted within `seconds`: [] when all have."""
    waiting = list(names)
    phases: dict[str, str] = {}
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        for name in list(waiting):
            phase, said = _look(api, name)
            if said:
                waiting.remove(name)
                steps.done(name, f"booted; its console says '{said}'")
            elif phase != phases.get(name):
                phases[name] = phase
                steps.done(name, phase)
        if waiting:
            shown = ", ".join(f"{name} ({phases.get(name, '?')})" for name in waiting)
            steps.now("boot", f"waiting for {shown}")
            time.sleep(POLL_SECONDS)
    return waiting


def _look(api: Api, name: str) -> tuple[str, str]:
    """(the phase with its reason, what proves that its user space runs or '')."""
    try:
        status = api.vm(name).get("status") or {}
        phase, message = str(status.get("phase", "?")), str(status.get("message") or "")
        said = SAID.search(api.console(name, 16384)) if phase == "Running" else None
    except (OSError, http.client.HTTPException) as error:
        return f"vcld does not answer: {error}", ""
    return f"{phase}: {message}" if message else phase, said[0].decode() if said else ""


def wait_for_addresses(api: Api, names: list[str], steps: Steps, seconds: float) -> None:
    """Give the guest agents a moment to say where the guests are. Not hearing from them is no failure."""
    waiting = list(names)
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        for name in list(waiting):
            addresses = (api.vm(name).get("status") or {}).get("ipAddresses")
            if addresses:
                waiting.remove(name)
                steps.done(name, f"its guest agent answers, its address is {addresses[0]}")
        if waiting:
            steps.now("agent", f"waiting for {', '.join(waiting)}")
            time.sleep(POLL_SECONDS)


def explain_failure(api: Api, where: Place, names: list[str], logs: Any) -> None:
    """Print all that helps to see why `names` did not boot."""
    for name in names:
        title(f"{name}: its status")
        try:
            status = api.vm(name).get("status") or {}
            print(f"{status.get('phase')}: {status.get('message') or 'no message'}")
            for condition in status.get("conditions") or []:
                state = f"{condition['type']}={condition['status']} {condition['reason']}"
                print(f"  {state}: {condition['message']}")
            title(f"{name}: the end of its console")
            print(api.console(name, 2048).decode("utf-8", "replace").strip() or "it printed nothing")
        except (OSError, http.client.HTTPException) as error:
            print(f"vcld does not say: {error}")
        _print_end(logs / f"{name}.log", 8)
    _print_end(where.log, 15)
    _print_end(where.libvirt / "libvirtd.log", 8)


def _print_end(path: Any, count: int) -> None:
    title(f"the end of {path}")
    print("\n".join(last_lines(path, count)) or "it is empty")
