"""The master is killed (SIGKILL, by the daemon's own hook) before each step of a fencing, and before each of
the return: the next one goes on from the records alone, with nothing done twice and nothing left out. And
it is frozen there: when it goes on, another one has done it all, and what it does late harms nobody.

Two of three nodes are left, so that nobody is master until the killed daemon is started again: what was
recorded before it died is looked at in between. Real Ceph, libvirt and QEMU; docs/concepts/fencing.md has
the steps.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

BEFORE_THE_ENTRY = ("Intend", "Fence")
BEFORE_THE_RELEASE = (*BEFORE_THE_ENTRY, "Settle", "BreakLocks", "Release")
LATE = 5.0
"""Seconds in which a master that goes on would send what it was about to send."""


def stop_at(proof: Any, step: str) -> None:
    """Whoever is master when that step comes is killed before it (`:STOP`: frozen); empty: nobody."""
    for node in proof.nodes.values():
        (node.host.files / "etc/vcl/stop-at").write_text(f"fencing:{step}\n" if step else "")


def killed(proof: Any, step: str, *names: str) -> str:
    """Which of these daemons was killed, when one is."""

    def dead() -> list[str]:
        return [name for name in names if proof.nodes[name].host.daemon("vcld") is None]

    took = proof.until(dead, f"the master is killed before {step}")
    (name,) = dead()
    print(f"{name} killed before {step} after {took:.1f} s")
    return name


def test_the_master_is_killed_before_every_step_of_a_fencing_and_the_next_one_goes_on(proof: Any) -> None:
    victim = proof.workers()[-1]
    rest = proof.others(victim)
    proof.run("web", victim)
    epoch = proof.nodes[rest[0]].epoch()
    stop_at(proof, "Intend")
    proof.fault.power_cut(victim)
    before = proof.last("web")
    steps = (*BEFORE_THE_RELEASE, "Finish")
    for step, following in zip(steps, (*steps[1:], ""), strict=True):
        dead = killed(proof, step, *rest)
        assert proof.fenced() == ([] if step in BEFORE_THE_ENTRY else [victim])
        assert proof.homes("web") == [] or step not in BEFORE_THE_RELEASE
        stop_at(proof, following)
        proof.nodes[dead].start_vcld(wait=False)  # it may be killed again before it answers
    proof.restarts("web", before)
    proof.sound("web")

    stop_at(proof, "Lift")
    proof.fault.power_on(victim)
    for step, following in (("Lift", "Clear"), ("Clear", "")):
        dead = killed(proof, step, *rest)
        stop_at(proof, following)
        proof.nodes[dead].start_vcld(wait=False)
    proof.settle()
    assert proof.nodes[victim].epoch() >= epoch + len(steps) + 2
    proof.run("more", victim)
    for vm in ("web", "more"):
        proof.sound(vm)
    proof.end("web", "more")


@pytest.mark.parametrize("step", ["Fence", "Release"])
def test_a_master_that_was_frozen_before_a_step_does_not_take_it_once_another_has(
    proof: Any, step: str
) -> None:
    """Two of three are gone with it, so the fenced host comes back before there is a master: to blocklist it
    late would cut off a node that runs guests again."""
    master = proof.master()
    vm, victim = f"frozen-{step.lower()}", proof.others(master)[-1]
    rest = proof.others(master)
    proof.run(vm, victim)
    before, epoch = proof.last(vm), proof.nodes[rest[0]].epoch()
    frozen = proof.nodes[master].host.daemon("vcld")
    stop_at(proof, f"{step}:STOP")
    proof.fault.power_cut(victim)
    proof.until(frozen.stands_still, f"the master is frozen before {step}")
    stop_at(proof, "")
    assert proof.fenced() == ([] if step in BEFORE_THE_ENTRY else [victim])
    proof.fault.power_on(victim)
    proof.until(lambda: proof.master(*rest) in rest, "another one is master")
    proof.until(lambda: proof.last(vm).number > before.number, f"{vm} runs again")
    proof.until(lambda: proof.fenced() == [], f"{victim} is let in")
    proof.fault.thaw(master, "vcld")
    ends = time.monotonic() + LATE
    while time.monotonic() < ends:
        assert proof.fenced() == []
        time.sleep(0.2)
    assert proof.nodes[rest[0]].epoch() > epoch
    proof.retire(vm)
