"""The whole cluster is shut down and started again, on real Ceph, libvirt and QEMU: each guest ends cleanly,
also when the master is killed at the beginning, and none starts by itself after a power loss (rule 20).

By a UPS: test_ups.py. How long it takes with twenty guests: benchmarks/shutdown.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

MANIFEST = """\
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {{name: {name}}}
spec:
  cpu: {{cores: 1, model: qemu64}}
  memory: 128Mi
  priority: {priority}
  startAfter: [{after}]
  boot: {{kernel: {kernel}, initrd: {initrd}, cmdline: console=ttyS0 quiet no_timer_check vcl.name={name}}}
  disks: [{{name: data, pool: ceph, size: 4Mi}}]
---
"""
NODE = """\
apiVersion: vcl/v1
kind: Node
metadata: {{name: {name}}}
spec: {{unschedulable: false, overcommit: {{cpu: 16}}}}
---
"""
VMS = tuple(f"site{number}" for number in range(6))
"""Of three priorities; each of the last three is needed by nobody, and needs one of the first three."""


@pytest.fixture(scope="module")
def site(formed: Any, guest_image: Any) -> Iterator[Any]:
    """All of them run."""
    formed.settle()
    first = formed.nodes["r1"]
    first.save("nodes.yaml", "".join(NODE.format(name=name) for name in formed.nodes))
    for number, name in enumerate(VMS):
        more = {
            "priority": 10 * (number % 3),
            "after": VMS[number - 3] if number >= 3 else "",
            "kernel": guest_image.kernel,
            "initrd": guest_image.initrd,
        }
        first.save(f"{name}.yaml", MANIFEST.format(name=name, **more))
    formed.count(*VMS)
    yield formed
    formed.end_all()


def said_bye(site: Any) -> list[str]:
    """Whose last boot has ended cleanly: file systems quiet, and then off."""
    ended = []
    for vm in VMS:
        console = site.nodes[site.last(vm).node].console(vm)
        if "vcl-guest: bye" in console.rpartition("vcl-guest: booted")[2]:
            ended.append(vm)
    return ended


def left(site: Any) -> list[str]:
    return [vm for vm in VMS if site.homes(vm)]


def recorded(site: Any) -> bool:
    """Whether the store says that all is off, and that nobody owns a VM."""
    power = site.nodes["r1"].api("/apis/vcl/v1/power") or {}
    vms = (site.nodes["r1"].ask("get", "vms") or {}).get("items", [])
    free = not any(vm["status"].get("claim", {}).get("node") for vm in vms)
    return bool(power.get("stored")) and len(vms) == len(VMS) and free


def starts(site: Any) -> None:
    """All of them run again, each after the one that it needs."""
    begun: dict[str, float] = {}
    site.nodes["r1"].vcl("cluster", "start", "--no-wait")

    def all_run() -> bool:
        for vm in VMS:
            if vm not in begun and site.homes(vm):
                begun[vm] = time.monotonic()
        return len(begun) == len(VMS)

    site.until(all_run, "all run")
    for number in range(3, len(VMS)):
        assert begun[VMS[number - 3]] <= begun[VMS[number]]
    site.count(*VMS, more=1)
    for vm in VMS:
        site.sound(vm)


def test_all_guests_end_cleanly_with_the_master_killed_and_none_starts_after_a_power_loss(site: Any) -> None:
    """vcld is started again two seconds later, as the host's init does it."""
    master = site.settle()
    asked = site.others(master)[0]
    began = time.monotonic()
    site.nodes[asked].vcl("cluster", "shutdown", "--yes", "--deadline=60", "--no-wait")
    site.nodes[master].kill_vcld()
    time.sleep(2)
    site.nodes[master].start_vcld()
    site.until(lambda: not left(site), "no guest is left")
    took = time.monotonic() - began
    print(f"{len(VMS)} guests, the master killed: {took:.1f} s")
    assert said_bye(site) == list(VMS)
    site.until(lambda: recorded(site), "the store says so")
    site.fault.power_cut(*site.nodes)
    site.fault.power_on(*site.nodes)
    site.until(site.settled, "all are back")
    for _ in itertools.repeat(None, 10):
        assert left(site) == []
        time.sleep(0.5)
    starts(site)
