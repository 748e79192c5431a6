"""The whole cluster is shut down and started again, on real Ceph, libvirt and QEMU: each of twenty guests
ends cleanly, in half a minute, also when the master is killed at the beginning (SAFETY rule 20)."""

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
  boot: {{kernel: {kernel}, initrd: {initrd}, cmdline: console=ttyS0 quiet vcl.name={name}}}
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
VMS = tuple(f"site{number}" for number in range(20))
LONG = 300.0
"""A hang limit: so many guests boot, emulated, on whatever the machine has."""
WITHIN = 30.0
"""Seconds that are promised for so many guests."""


@pytest.fixture(scope="module")
def site(formed: Any, guest_image: Any) -> Iterator[Any]:
    """Twenty VMs on three nodes, of three priorities; each of the first five is needed by one of the next."""
    formed.settle()
    first = formed.nodes["r1"]
    first.save("nodes.yaml", "".join(NODE.format(name=name) for name in formed.nodes))
    for number, name in enumerate(VMS):
        more = {
            "priority": 10 * (number % 3),
            "after": VMS[number - 5] if 5 <= number < 10 else "",
            "kernel": guest_image.kernel,
            "initrd": guest_image.initrd,
        }
        first.save(f"{name}.yaml", MANIFEST.format(name=name, **more))
    formed.until(lambda: len(running(formed)) == len(VMS), "all run", LONG)
    formed.until(lambda: all(formed.boots(vm) for vm in VMS), "all have booted", LONG)
    yield formed
    formed.end_all()


def running(site: Any) -> list[str]:
    return [vm for vm in VMS if len(site.homes(vm)) == 1]


def said_bye(site: Any) -> list[str]:
    """Whose last boot has ended cleanly: file systems quiet, and then off."""
    ended = []
    for vm in VMS:
        node = site.nodes[site.last(vm).node]
        if node.console(vm).rstrip().endswith("vcl-guest: bye"):
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
    ends = time.monotonic() + LONG
    while len(begun) < len(VMS) and time.monotonic() < ends:
        for vm in VMS:
            if vm not in begun and site.homes(vm):
                begun[vm] = time.monotonic()
        time.sleep(0.05)
    assert sorted(begun) == sorted(VMS)
    site.until(lambda: all(site.last(vm).last > site.last(vm).found for vm in VMS), "all count", LONG)
    for number in range(5, 10):
        assert begun[VMS[number - 5]] <= begun[VMS[number]]
    for vm in VMS[:3]:
        site.sound(vm)


def test_twenty_guests_are_cleanly_off_in_half_a_minute_and_come_back(site: Any) -> None:
    asked, *_ = site.workers()
    began = time.monotonic()
    done = site.nodes[asked].vcl(
        "cluster", "shutdown", "--yes", "--reason", "UPS on battery", "--deadline=60"
    )
    took = time.monotonic() - began
    print(f"{len(VMS)} guests: {took:.1f} s\n{done.stdout}{done.stderr}")
    assert left(site) == []
    assert said_bye(site) == list(VMS)
    assert took < WITHIN
    site.until(lambda: recorded(site), "the store says so")
    starts(site)


def test_the_same_with_the_master_killed_at_its_start_and_a_power_loss_after_it(site: Any) -> None:
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
    assert took < WITHIN
    site.until(lambda: recorded(site), "the store says so")
    site.fault.power_cut(*site.nodes)
    site.fault.power_on(*site.nodes)
    site.until(site.settled, "all are back")
    for _ in itertools.repeat(None, 10):
        assert left(site) == []
        time.sleep(0.5)
    starts(site)
