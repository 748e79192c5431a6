"""What the proofs of failover share: VMs that count on a disk in Ceph, and how it is known that each
counter goes on, that no earlier run writes any more, and that one copy runs.

A guest prints a counter after it is on the disk. So the next boot must find at least what was printed last,
and at most one more (written, and cut off before it could be printed).
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

cluster = sys.modules["vcl_lab_cluster"]
Watched = sys.modules["vcl_lab_watched"].Watched
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
  cpu: {{cores: 1, model: qemu64{cpu}}}
  memory: {memory}
  terminationGracePeriodSeconds: {grace}
  boot: {{kernel: {kernel}, initrd: {initrd}, cmdline: console=ttyS0 quiet no_timer_check vcl.name={name}}}
  disks: [{{name: data, pool: ceph, size: 4Mi}}{more}]
  evictionStrategy: {eviction}
{also}"""
NODE = """\
apiVersion: vcl/v1
kind: Node
metadata: {{name: {name}}}
spec: {{unschedulable: {closed}}}
---
"""
FEW = 5
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


class Proofs(Watched):
    """A lab whose VMs count."""

    def __init__(self, lab: Any, guest: Any) -> None:
        super().__init__(lab)
        self._guest = guest
        lab.nodes["r1"].save("ceph.yaml", POOL)

    # The VMs.

    def run(self, vm: str, home: str, **fields: Any) -> None:
        """Make it, and have it on `home`, counting; `fields` as of `spread`."""
        self.spread({vm: home}, **fields)

    def spread(
        self,
        homes: Mapping[str, str],
        *,
        more: str = "",
        grace: int = 0,
        eviction: str = "Stop",
        memory: str = "128Mi",
        cpu: str = "",
        also: str = "",
    ) -> None:
        """Make these VMs, and have each on its node, counting: until a VM is bound, the other nodes take
        nothing new. `more`: disks after the one that it counts on; `grace`: seconds to shut down in;
        `eviction`: its strategy; `cpu`, `also`: more of the CPU, and more lines of the spec."""
        for vm, home in homes.items():
            self._close(*self.others(home))
            boot = {"kernel": self._guest.kernel, "initrd": self._guest.initrd}
            fields = {"more": more, "grace": grace, "eviction": eviction, "memory": memory}
            text = MANIFEST.format(name=vm, cpu=cpu, also=also, **fields, **boot)
            self.nodes[home].save(f"{vm}.yaml", text)
            self.until(lambda vm=vm, home=home: self._bound(vm, home), f"{vm} is bound to {home}")
        self._close()
        self.count(*homes)
        assert {vm: self.homes(vm) for vm in homes} == {vm: [home] for vm, home in homes.items()}

    def _bound(self, vm: str, node: str) -> bool:
        found = self._object(vm)
        return bool(found and found["status"].get("binding", {}).get("node") == node)

    def _object(self, vm: str) -> dict[str, Any] | None:
        """It as r1 shows it; None when there is none, or r1 does not answer."""
        found: dict[str, Any] = self.nodes["r1"].api(f"/apis/vcl/v1/vm/{vm}") or {}
        return found if found.get("kind") == "VirtualMachine" else None

    def _close(self, *names: str) -> None:
        """Nothing new is put on these nodes, and on the others it is; returns when every node knows."""
        closed = {name: str(name in names).lower() for name in self.nodes}
        text = "".join(NODE.format(name=name, closed=word) for name, word in closed.items())
        next(iter(self.nodes.values())).save("nodes.yaml", text)
        self.until(lambda: self.everywhere("nodes.yaml", text), "all nodes know")

    def end(self, *vms: str) -> None:
        """Delete the manifests; returns when nothing of them is left, and a VM of the name begins anew."""
        first = self.nodes["r1"]
        if len(vms) > FEW:
            first.vcl("delete", "vm", *vms, "--no-wait")  # files that vanish would be held back
        for vm in vms:
            (first.manifests / f"{vm}.yaml").unlink(missing_ok=len(vms) > FEW)
        for vm in vms:
            self.until(lambda vm=vm: self._object(vm) is None and not self.homes(vm), f"{vm} is gone")
            for node in self.nodes.values():
                node.console_log(vm).unlink(missing_ok=True)
        self.lab.storage.remove(*(f"{vm}.data" for vm in vms))

    def end_all(self) -> None:
        """All VMs that a test, also one that failed, has left."""
        self.end(*self.vms())

    def vms(self) -> list[str]:
        """All that there are."""
        paths = sorted(self.nodes["r1"].manifests.glob("*.yaml"))
        return [path.stem for path in paths if "kind: VirtualMachine" in path.read_text()]

    def boots(self, vm: str) -> list[Boot]:
        """All of it, on whichever node, as its consoles tell, in order."""
        told, arrived = list[Boot](), dict[str, int]()
        for node in self.nodes.values():
            some, arrived[node.name] = _boots(node.name, node.console(vm))
            told += some
        told.sort(key=lambda boot: (boot.number, boot.id))
        for name, last in sorted(arrived.items(), key=lambda each: each[1]):
            told = _migrated(told, name, last)
        return told

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

    def retire(self, *vms: str) -> None:
        """Everybody is back: one copy of each, sound; then they are deleted."""
        self.settle()
        self.count(*vms)
        for vm in vms:
            self.sound(vm)
        self.end(*vms)

    def clients(self, vm: str) -> list[str]:
        """The Ceph clients of its claim."""
        status = self.nodes[self.master()].ask("get", "vm", vm)["status"]
        return [each for each in status["claim"]["clients"] if not each.startswith("pid:")]

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


def _migrated(told: list[Boot], node: str, last: int) -> list[Boot]:
    """With what the newest boot that may have done so has counted there, where it did not begin."""
    able = [at for at, boot in enumerate(told) if boot.found < last and boot.last < last]
    if able:
        told = [*told]
        told[able[-1]] = replace(told[able[-1]], node=node, last=last)
    return told


def _boots(node: str, console: str) -> tuple[list[Boot], int]:
    """Those that began on this console, and how far one had counted that came from another host."""
    told: list[Boot] = []
    found = arrived = 0
    for match in _LINE.finditer(console):
        counter, number, name, tick = match.groups()
        if counter is not None:
            found = int(counter)
        elif number is not None:
            told.append(Boot(number=int(number), id=name, node=node, found=found, last=found))
        elif tick is not None and told:
            last = told[-1]
            told[-1] = Boot(number=last.number, id=last.id, node=node, found=last.found, last=int(tick))
        elif tick is not None:
            arrived = int(tick)
    return told, arrived
