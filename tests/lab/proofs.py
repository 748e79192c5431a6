"""What the proofs of failover share: VMs that count on a disk in Ceph, and how it is known that each
counter goes on, that no earlier run writes any more, and that one copy runs.

A guest prints a counter after it is on the disk. So the next boot must find at least what was printed last,
and at most one more (written, and cut off before it could be printed).
"""

from __future__ import annotations

import itertools
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

cluster = sys.modules["vcl_lab_cluster"]
PATIENCE = 120.0
"""A hang limit: other things use the machine as well."""
SETTLE = 3
POOL = """\
apiVersion: vcl/v1
kind: StoragePool
metadata: {name: ceph}
spec:
  type: rbd
  rbd: {pool: vms}
"""
MANIFEST = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec:
  cpu: {{cores: 1, model: qemu64}}
  memory: 128Mi
  terminationGracePeriodSeconds: 0
  boot: {{kernel: {kernel}, initrd: {initrd}, cmdline: console=ttyS0 quiet vcl.name={name}}}
  disks: [{{name: data, pool: ceph, size: 4Mi}}]
"""
NODE = """\
apiVersion: vcl/v1
kind: Node
metadata: {{name: {name}}}
spec: {{unschedulable: {closed}}}
---
"""
_LINE = re.compile(r"vcl-guest: (?:booted|disk found (\d+)|boot (\d+) (\w+)|tick (\d+))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """One boot of a guest, as it told of itself: `number` of this disk, the counter that it found and its
    last one. `node`: whose console."""

    number: int
    id: str
    node: str
    found: int
    last: int


class Proofs:
    """A lab whose VMs count."""

    def __init__(self, lab: Any, guest: Any) -> None:
        self.lab = lab
        self.fault = lab.fault
        self.nodes = lab.nodes
        self._guest = guest
        lab.nodes["r1"].save("ceph.yaml", POOL)

    # The cluster.

    def until(self, holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
        """Seconds that it took. The nodes' logs are shown when it does not come."""
        began = time.monotonic()
        try:
            cluster.until(holds, seconds, what)
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
        every = list(self.nodes.values())
        ready = all(node.standing(name) == "Ready" for node in every for name in self.nodes)
        return bool(self.master()) and ready and not self.fenced()

    def master(self, *names: str) -> str:
        """Whom these nodes (none named: all) take for master; empty unless they are of one mind."""
        said = {self.nodes[name].master() for name in names or self.nodes}
        return said.pop() if len(said) == 1 else ""

    def workers(self) -> list[str]:
        master = self.settle()
        return [name for name in self.nodes if name != master]

    def blocklist(self) -> list[str]:
        """The entries that are on it."""
        found = self.lab.storage.command("osd", "blocklist", "ls")
        return [line.split()[0] for line in found.splitlines() if "/" in line]

    def fenced(self) -> list[str]:
        """The nodes whose whole host is cut off from Ceph."""
        entries = self.blocklist()
        return [name for name, node in self.nodes.items() if f"{node.host.address.ip}:0/0" in entries]

    # The VMs.

    def run(self, vm: str, home: str) -> None:
        """Make it, and have it on `home`, counting: the other nodes take nothing until it is there."""
        self._close(*(name for name in self.nodes if name != home))
        self._save(vm, home)
        self.until(lambda: self.homes(vm) == [home], f"{vm} runs on {home}")
        self._close()
        self.count(vm)

    def spread(self, *vms: str) -> dict[str, str]:
        """Make them, and have one on each node, counting: node -> VM."""
        for vm, home in zip(vms, self.nodes, strict=True):
            self.run(vm, home)
        return dict(zip(self.nodes, vms, strict=True))

    def _save(self, vm: str, node: str) -> None:
        text = MANIFEST.format(name=vm, kernel=self._guest.kernel, initrd=self._guest.initrd)
        self.nodes[node].save(f"{vm}.yaml", text)

    def _close(self, *names: str) -> None:
        """Nothing new is put on these nodes, and on the others it is; returns when every node knows."""
        closed = {name: str(name in names).lower() for name in self.nodes}
        text = "".join(NODE.format(name=name, closed=word) for name, word in closed.items())
        next(iter(self.nodes.values())).save("nodes.yaml", text)
        paths = [node.manifests / "nodes.yaml" for node in self.nodes.values()]
        self.until(
            lambda: all(path.exists() and path.read_text() == text for path in paths), "all nodes know"
        )

    def end(self, *vms: str) -> None:
        """Delete the manifests; returns when nothing of them runs."""
        for vm in vms:
            (self.nodes["r1"].manifests / f"{vm}.yaml").unlink()
        self.until(lambda: not any(self.homes(vm) for vm in vms), f"{vms} are stopped")

    def homes(self, vm: str) -> list[str]:
        """A node for each copy of it that runs, or stands still."""
        return [node.name for node in self.nodes.values() for _ in node.qemus(vm)]

    def boots(self, vm: str) -> list[Boot]:
        """All of it, on whichever node, as its consoles tell, in order."""
        told = []
        for node in self.nodes.values():
            told += _boots(node.name, node.console(vm))
        return sorted(told, key=lambda boot: (boot.number, boot.id))

    def last(self, vm: str) -> Boot:
        return self.boots(vm)[-1]

    def count(self, *vms: str, more: int = 3) -> dict[str, Boot]:
        """Wait until each has counted on by as much; the boots that did."""
        nothing = Boot(number=0, id="", node="", found=0, last=0)
        begun = {vm: (self.boots(vm) or [nothing])[-1] for vm in vms}

        def counted() -> bool:
            return all((self.boots(vm) or [nothing])[-1].last >= begun[vm].last + more for vm in vms)

        self.until(counted, f"all count on from {begun}")
        return {vm: self.last(vm) for vm in vms}

    def restarts(self, vm: str, after: Boot, on: str = "") -> Boot:
        """Wait until a boot after that one counts, elsewhere than `after` (or `on` that node)."""

        def counts() -> bool:
            boot = self.last(vm)
            return boot.number > after.number and boot.last >= boot.found + 2

        took = self.until(counts, f"{vm} runs again after {after}")
        boot = self.last(vm)
        print(f"{vm}: again on {boot.node} after {took:.1f} s, from {boot.found} on; before: {after}")
        assert boot.node == on or (not on and boot.node != after.node)
        return boot

    def sound(self, vm: str, copies: int = 1) -> None:
        """The counter went on at each boot, the disk has one boot's writes after the other's, and it runs
        once."""
        boots = [boot for boot in self.boots(vm) if boot.last > boot.found]
        for before, after in itertools.pairwise(boots):
            # A boot may have ended after its first write, and before it could print it.
            assert before.number < after.number, (before, after)
            assert before.last <= after.found <= before.last + after.number - before.number, (before, after)
        assert cluster.foreign(cluster.records(self.lab.storage.content(f"{vm}.data"))) == ()
        assert len(self.homes(vm)) == copies, self.homes(vm)
        assert self.lab.audit.findings() == []

    def pids(self, *vms: str) -> dict[str, list[int]]:
        """The processes of these VMs, whichever node they are on."""
        return {vm: [pid for node in self.nodes.values() for pid in node.qemus(vm)] for vm in vms}


def _boots(node: str, console: str) -> list[Boot]:
    told: list[Boot] = []
    found = 0
    for match in _LINE.finditer(console):
        counter, number, name, tick = match.groups()
        if counter is not None:
            found = int(counter)
        elif number is not None:
            told.append(Boot(number=int(number), id=name, node=node, found=found, last=found))
        elif tick is not None and told:
            last = told[-1]
            told[-1] = Boot(number=last.number, id=last.id, node=node, found=last.found, last=int(tick))
    return told
