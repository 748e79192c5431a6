"""The one-node figures of docs/performance.md, on the dummy controller: run by hand, never by the tests.

    .venv/bin/python benchmarks/one_node.py [--vms 1000] [--runs 15]

Starts a real vcld in a temporary directory, as a process of its own, and measures it from outside: wall time
with a monotonic clock, CPU and memory from /proc. Each figure is printed with its limit and distribution.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
SETTLE = 15.0
"""Seconds after a thousand starts in which the daemon still writes events and the status tree."""
VM = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata:
  name: {name}
  labels: {{app: bench}}
spec:
  cpu: {{cores: 1}}
  memory: 64Mi
  controller: dummy
"""
CONFIG = """\
node: r1
stateDir: {root}/state
runDir: {root}/run
controllers: {{dummy: {{cpus: 4096, memory: 1Ti}}}}
log: {{level: info}}
"""


class Node:
    """One running vcld."""

    def __init__(self, root: Path) -> None:
        self.root = root
        config = root / "vcld.yaml"
        config.write_text(CONFIG.format(root=root))
        self.log = (root / "log").open("ab")
        self.process = subprocess.Popen([BIN / "vcld", "--config", config], stderr=self.log)
        self.socket = root / "run" / "vcld.sock"
        self.manifests = root / "state" / "manifests"
        wait(lambda: self._ready(), 30)

    def _ready(self) -> bool:
        try:
            return self.get("/readyz") == b"ok"
        except OSError:
            return False

    def get(self, path: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.socket))
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: vcl\r\n\r\n".encode())
            data = b""
            while chunk := connection.recv(1 << 20):
                data += chunk
        return data.partition(b"\r\n\r\n")[2]

    def phases(self) -> dict[str, str]:
        table = json.loads(self.get("/apis/vcl/v1/virtualmachines?as=Table"))
        return {row["cells"][0]: row["cells"][1] for row in table["rows"]}

    def running(self) -> int:
        return sum(phase == "Running" for phase in self.phases().values())

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise RuntimeError("no VmRSS")

    def write(self, name: str) -> None:
        fresh = self.manifests / f".{name}.new"
        fresh.write_text(VM.format(name=name))
        fresh.rename(self.manifests / f"{name}.yaml")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.log.close()


@contextmanager
def node() -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="vcl-bench-") as root:
        made = Node(Path(root))
        try:
            yield made
        finally:
            made.stop()


def wait(condition: object, seconds: float, pause: float = 0.1) -> float:
    """Seconds until the condition held."""
    assert callable(condition)
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(pause)
    return time.monotonic() - began


def show(what: str, values: list[float], unit: str, limit: str) -> None:
    low, mid, high = min(values), statistics.median(values), max(values)
    spread = f"(min {low:.1f}, max {high:.1f}, n={len(values)})"
    print(f"{what:46} median {mid:8.1f} {unit:4} {spread:36} limit {limit}", flush=True)


def timed(command: list[str | Path], env: dict[str, str], runs: int) -> list[float]:
    found = []
    for _ in range(runs + 1):
        began = time.monotonic()
        subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
        found.append((time.monotonic() - began) * 1000)
    return found[1:]


def save_to_create(made: Node, runs: int) -> list[float]:
    """Milliseconds from a file's rename into the directory to the controller's create (the dummy's file)."""
    shelf = made.root / "state" / "dummy"
    found = []
    for number in range(runs):
        name = f"latency{number}"
        began = time.monotonic()
        made.write(name)
        wait(lambda name=name: any(name in p.name for p in shelf.rglob("*")), 10, pause=0.002)
        found.append((time.monotonic() - began) * 1000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to watch the idle daemon")
    options = parser.parse_args()
    with node() as made:
        env = {**os.environ, "VCL_SOCKET": str(made.socket)}
        show("vcl --help", timed([BIN / "vcl", "--help"], env, options.runs), "ms", "100 ms")
        show(
            "python3 -c pass (for comparison)",
            timed([sys.executable, "-c", "pass"], env, options.runs),
            "ms",
            "-",
        )
        show("file saved -> create called", save_to_create(made, options.runs), "ms", "500 ms")
        for number in range(50 - options.runs):
            made.write(f"idle{number}")
        wait(lambda: made.running() >= 50, 60)
        time.sleep(5)
        before = made.cpu()
        time.sleep(options.idle)
        show("idle CPU of one core, 50 VMs", [(made.cpu() - before) / options.idle * 100], "%", "1 %")
        show("resident memory, 50 VMs", [made.rss()], "MiB", "80 MiB")
    with node() as made:
        env = {**os.environ, "VCL_SOCKET": str(made.socket)}
        for number in range(options.vms):
            made.write(f"vm{number:05d}")
        seconds = wait(lambda: made.running() >= options.vms, 300)
        show(f"{options.vms} files -> all Running", [seconds], "s", "20 s")
        time.sleep(SETTLE)
        show(
            f"vcl get vms, {options.vms} VMs",
            timed([BIN / "vcl", "get", "vms"], env, options.runs),
            "ms",
            "120 ms",
        )
        show(f"resident memory, {options.vms} VMs", [made.rss()], "MiB", "-")
        time.sleep(10)
        before = made.cpu()
        time.sleep(options.idle)
        spent = (made.cpu() - before) / (options.idle / 30)
        show(f"CPU of a resync period (30 s) of {options.vms} VMs", [spent], "s", "1 s")


if __name__ == "__main__":
    main()
