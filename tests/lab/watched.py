"""A lab as a test looks at it: who is master, who is well, and waiting for what is to come."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

cluster = sys.modules["vcl_lab_cluster"]
PATIENCE = 120.0
"""A hang limit: other things use the machine as well."""
LOOK = 0.1
"""Seconds between looks: each costs as much as a daemon needs in that time."""
TIMERS = {"masterSettle": 3}
"""So that a return of the best rank is not waited for longer than needed; else the defaults."""


class Watched:
    """Three nodes or more, with vcld."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.fault = lab.fault
        self.nodes = lab.nodes

    def until(self, holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
        """Seconds that it took. The nodes' logs are shown when it does not come."""
        began = time.monotonic()
        try:
            cluster.until(holds, seconds, what, every=LOOK)
        except cluster.LabFailed:
            for node in self.nodes.values():
                print(f"--- {node.name}\n{node.host.log('vcld').read_text(errors='replace')[-4000:]}")
            print(f"--- blocklist\n{self.blocklist()}")
            raise
        return time.monotonic() - began

    def settle(self) -> str:
        """Everything undone; everybody is well, nobody is cut off. The master."""
        self.fault.heal()
        self.until(self.settled, "all agree on a master, are ready and not cut off")
        return self.master()

    def settled(self) -> bool:
        ready = all(node.standings() == dict.fromkeys(self.nodes, "Ready") for node in self.nodes.values())
        return ready and bool(self.master()) and not self.fenced()

    def master(self, *names: str) -> str:
        """Whom these nodes (none named: all) take for master; empty unless they are of one mind."""
        said = {self.nodes[name].master() for name in names or self.nodes}
        return said.pop() if len(said) == 1 else ""

    def replaced(self, old: str) -> float:
        """Seconds until the other nodes have agreed on one of them as master."""
        rest = self.others(old)
        return self.until(lambda: self.master(*rest) in rest, f"{old} is replaced as master")

    def others(self, *names: str) -> list[str]:
        return [name for name in self.nodes if name not in names]

    def workers(self) -> list[str]:
        return self.others(self.settle())

    def everywhere(self, file: str, text: str) -> bool:
        """Whether every node has the manifest file, byte for byte."""
        paths = [node.manifests / file for node in self.nodes.values()]
        return all(path.exists() and path.read_text() == text for path in paths)

    def homes(self, vm: str) -> list[str]:
        """A node for each copy of it that runs, or stands still."""
        return [node.name for node in self.nodes.values() for _ in node.qemus(vm)]

    def blocklist(self) -> list[str]:
        """The entries that are on it."""
        found = self.lab.storage.command("osd", "blocklist", "ls")
        return [line.split()[0] for line in found.splitlines() if "/" in line]

    def fenced(self) -> list[str]:
        """The nodes whose whole host is cut off from Ceph."""
        entries = self.blocklist()
        return [name for name, node in self.nodes.items() if f"{node.host.address.ip}:0/0" in entries]

    def retime(self, timers: Mapping[str, float]) -> None:
        """Have every vcld that has others restarted with these timers."""

        def restart(node: Any) -> None:
            path = node.host.files / "etc/vcl/vcld.yaml"
            config = json.loads(path.read_text())
            if config["timers"] != timers:
                path.write_text(json.dumps({**config, "timers": dict(timers)}))
                node.stop_vcld()
                node.start_vcld()

        with ThreadPoolExecutor(len(self.nodes)) as workers:
            list(workers.map(restart, self.nodes.values()))
