"""A real vcld, as a process of its own, on the dummy controller."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

cluster = sys.modules["vcl_lab_cluster"]
BIN = Path(sys.executable).parent
VM = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata:
  name: {name}
spec:
  cpu: {{cores: 1}}
  memory: 64Mi
  controller: dummy
  terminationGracePeriodSeconds: 2
"""


class Node:
    """One state directory and the vcld that runs on it, if any. `settings`: more of its configuration."""

    def __init__(self, root: Path, name: str = "r1") -> None:
        self.root = root
        self.name = name
        self.settings: dict[str, Any] = {}
        self.config = root / "vcld.yaml"
        self.manifests = root / "state" / "manifests"
        self.socket = root / "run" / "vcld.sock"
        self.options: dict[str, Any] = {"dummy": {}}
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        self.config.write_text(
            json.dumps(
                {
                    "node": self.name,
                    "stateDir": str(self.root / "state"),
                    "runDir": str(self.root / "run"),
                    "controllers": self.options,
                    "log": {"level": "debug"},
                    **self.settings,
                }
            )
        )

    def start(self, *arguments: str, wait: bool = True) -> None:
        self.configure()
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "vcld", "--config", self.config, *arguments], stderr=log, stdout=log
            )
        if wait:
            self.until(lambda: cluster.ask(self.socket, cluster.STATUS))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, and the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(20)
        self.process = None
        return code

    def log(self) -> str:
        return (self.root / "log").read_text()

    def vcl(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "vcl", *arguments],
            env={**os.environ, "VCL_SOCKET": str(self.socket)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def metrics(self) -> str:
        """The answer of GET /metrics."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.socket))
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def told(self, *arguments: str) -> Any:
        """What vcl prints with -o json; None when it fails."""
        answer = self.vcl(*arguments, "-o", "json")
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def vm(self, name: str) -> dict[str, Any]:
        """The merged object, empty when there is none."""
        found: dict[str, Any] = cluster.ask_for(self.socket, "vm", name)
        return found

    def phase(self, name: str) -> str:
        return str(self.vm(name).get("status", {}).get("phase", ""))

    def guests(self) -> list[str]:
        """The names of the dummy's living guests, whatever vcl thinks."""
        found = []
        for file in sorted((self.root / "state" / "dummy").rglob("*.json")):
            record = json.loads(file.read_text())
            ended = record.get("ends") is not None and record["ends"] <= time.monotonic()
            if record["life"] == "Alive" and not ended:
                found.append(record["name"])
        return found

    def save(self, name: str, text: str | None = None) -> Path:
        path = self.manifests / f"{name}.yaml"
        fresh = self.manifests / f".{name}.tmp"
        fresh.write_text(VM.format(name=name) if text is None else text)
        fresh.rename(path)
        return path

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s; the log ends:\n{self.log()[-3000:]}"
            time.sleep(0.05)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    _end(made)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[tuple[Node, ...]]:
    """Three nodes of one cluster, by rank: one store on this machine, and a mesh of plain TCP."""
    secret = tmp_path / "secret"
    secret.write_text(secrets.token_hex(32) + "\n")
    secret.chmod(0o600)
    ports = _free_ports(3)
    made = tuple(Node(tmp_path / name, name) for name in ("r1", "r2", "r3"))
    for rank, (each, port) in enumerate(zip(made, ports, strict=True)):
        each.root.mkdir()
        each.settings = {
            "rank": rank,
            "address": "127.0.0.1",
            "store": {"type": "sqlite", "path": str(tmp_path / "store.db")},
            "mesh": {"tls": "off", "port": port, "bind": "127.0.0.1", "secretFile": str(secret)},
        }
    yield made
    for each in made:
        _end(each)


def _end(node: Node) -> None:
    if node.process is not None:
        node.process.kill()
        node.process.wait(20)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
