"""Live migration on real Ceph, libvirt and QEMU: the guest counts on elsewhere, in the same boot, and however
it is broken off one copy runs afterwards, and one writer there was (SAFETY rules 5, 6 and 17)."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

proofs = sys.modules["vcl_lab_proofs"]
_TICK = re.compile(r"vcl-guest: tick (\d+)")


def ticks(proof: Any, node: str, vm: str) -> list[int]:
    """What the guest has counted, as it printed it there."""
    return [int(tick) for tick in _TICK.findall(proof.nodes[node].console(vm))]


def migration(proof: Any, vm: str, *, by: str = "r1") -> dict[str, Any]:
    """The newest of this VM, as that node tells it."""
    found = proof.nodes[by].ask("get", "migrations") or {}
    mine = [each for each in found.get("items", []) if each["spec"]["vm"] == vm]
    return max(mine, key=lambda each: each["metadata"]["creationTimestamp"]) if mine else {}


def counts_on(proof: Any, node: str, vm: str) -> None:
    """It prints there, more and more."""
    seen = ticks(proof, node, vm)[-1:] or [0]
    proof.until(lambda: (ticks(proof, node, vm)[-1:] or [0])[0] >= seen[0] + 3, f"{vm} counts on {node}")


def test_a_guest_counts_on_elsewhere_and_comes_back(proof: Any) -> None:
    source, target = proof.workers()
    proof.run("moved", source)
    (pid,) = proof.pids("moved")["moved"]
    began = time.monotonic()
    with proof.lab.audit.handing_over("moved.data"):
        done = proof.nodes["r1"].vcl("migrate", "moved", "--to", target, "--wait", check=False)
        print(f"migrated in {time.monotonic() - began:.1f} s: {done.stdout}{done.stderr}")
        assert done.returncode == 0, done.stderr
    assert proof.homes("moved") == [target]
    assert pid not in proof.pids("moved")["moved"]
    counts_on(proof, target, "moved")
    there, before = ticks(proof, target, "moved"), ticks(proof, source, "moved")
    assert there[0] <= before[-1] + 1, "no tick is lost"
    assert [*before, *there] == sorted({*before, *there}), "and none is told twice"
    with proof.lab.audit.handing_over("moved.data"):
        back = proof.nodes["r1"].vcl("migrate", "moved", "--to", source, "--wait", check=False)
        assert back.returncode == 0, back.stderr
    counts_on(proof, source, "moved")
    assert proof.homes("moved") == [source]
    assert proof.lab.audit.findings() == []


def has(proof: Any, node: str, vm: str, cpus: int, devices: str) -> int:
    """Wait until the guest says on this node that it has so much; its memory in MiB."""
    said = re.compile(rf"vcl-guest: has {cpus} cpus, (\d+) MiB, {devices}\r?\n")
    proof.until(lambda: said.search(proof.nodes[node].console(vm)), f"{vm} has {devices} on {node}")
    return int(said.findall(proof.nodes[node].console(vm))[-1])


def test_what_comes_to_a_running_guest_goes_along_with_it_and_leaves_it_again(proof: Any) -> None:
    """vCPUs, memory, a larger disk, a disk more and a cable that is pulled: no restart, and one writer."""
    source, target = proof.workers()
    room = "  maxMemory: 512Mi\n  interfaces: [{name: lan}]\n"
    proof.run("grown", source, memory="256Mi", cpu=", maxCores: 2", also=room)
    first, pids = proof.last("grown"), proof.pids("grown")
    small = has(proof, source, "grown", 1, "vda 8192, eth0 up")
    path = proof.nodes["r1"].manifests / "grown.yaml"
    before = path.read_text()
    after = (
        before.replace("cores: 1", "cores: 2")
        .replace("memory: 256Mi", "memory: 320Mi")
        .replace("size: 4Mi}]", "size: 8Mi}, {name: more, pool: ceph, size: 16Mi}]")
        .replace("{name: lan}", "{name: lan, state: down}")
    )
    proof.nodes["r1"].save("grown.yaml", after)
    large = has(proof, source, "grown", 2, "vda 16384, vdb 32768, eth0 down")
    assert large - small == 64
    settled = lambda: proof.nodes["r1"].ask("get", "vm", "grown")["status"]  # noqa: E731
    proof.until(lambda: "plugging" not in settled()["claim"], "its disks are settled")
    assert len(proof.clients("grown")) == 2
    assert settled().get("message", "") == ""
    assert proof.pids("grown") == pids
    with proof.lab.audit.handing_over("grown.data", "grown.more"):
        done = proof.nodes["r1"].vcl("migrate", "grown", "--to", target, "--wait", check=False)
        assert done.returncode == 0, done.stderr
    counts_on(proof, target, "grown")
    proof.nodes["r1"].save("grown.yaml", after.replace(", {name: more, pool: ceph, size: 16Mi}", ""))
    assert has(proof, target, "grown", 2, "vda 16384, eth0 down") == large
    proof.until(lambda: "plugging" not in settled()["claim"], "its disks are settled")
    assert proof.lab.storage.is_open("grown.data")
    assert not proof.lab.storage.is_open("grown.more")
    assert proof.count("grown")["grown"].number == first.number
    proof.lab.storage.remove("grown.more")
    proof.retire("grown")


SLOW = """\
apiVersion: vcl/v1
kind: Cluster
metadata: {{name: cluster}}
spec: {{migration: {{bandwidth: {rate}}}}}
"""
HOLD = """\
import asyncio, sys
from pathlib import Path
from reconciler.adapters.libvirt import create
from reconciler.ports.controller import ControllerContext
from reconciler.ports.migrator import Guest

async def hold(name, uid, migration, state):
    state = Path(state)
    controller = create(ControllerContext(node="", cluster_uid="", state_dir=state, run_dir=state))
    await controller.open()
    await controller.lifecycle.hold(Guest(name=name, uid=uid, migration=migration), timeout=10.0)
    await controller.close()

asyncio.run(hold(*sys.argv[1:]))
"""
"""What vcld does on the source when a migration's time is up, and the Cluster says `whenSlow: Hold`."""


@pytest.fixture
def begun(proof: Any) -> Iterator[Any]:
    """Starts a migration that takes a while, and returns in the middle of it: source and target."""

    def begin(vm: str, rate: str = "3Mi") -> tuple[str, str]:
        text = SLOW.format(rate=rate)
        proof.nodes["r1"].save("cluster.yaml", text)
        proof.until(lambda: proof.everywhere("cluster.yaml", text), "all nodes know")
        source, target = proof.workers()
        proof.run(vm, source)
        proof.nodes["r1"].vcl("migrate", vm, "--to", target)
        proof.until(lambda: copying(proof, vm) > 0, f"the memory of {vm} is on its way to {target}")
        return source, target

    yield begin
    proof.settle()
    (proof.nodes["r1"].manifests / "cluster.yaml").unlink(missing_ok=True)


def copying(proof: Any, vm: str) -> int:
    """How much has come over, in percent."""
    return int(migration(proof, vm).get("status", {}).get("progress", {}).get("percent", 0))


def over(proof: Any, vm: str, *, by: str = "r1") -> str:
    """How it ended, once it has."""

    def phase() -> str:
        return str(migration(proof, vm, by=by).get("status", {}).get("phase"))

    proof.until(lambda: phase() in ("Succeeded", "Failed", "Cancelled"), f"the migration of {vm} is over")
    return phase()


def test_a_guest_that_is_held_goes_over_at_once(proof: Any, begun: Any) -> None:
    with proof.lab.audit.handing_over("held.data"):
        source, target = begun("held", rate="1Mi")
        uid = proof.nodes["r1"].ask("get", "vm", "held")["metadata"]["uid"]
        node, id = proof.nodes[source], migration(proof, "held")["metadata"]["name"]
        assert copying(proof, "held") < 20, "by far the most would be copied while it runs"
        node.host.run(sys.executable, "-c", HOLD, "held", uid, id, "/tmp")
        proof.until(lambda: proof.homes("held") == [target], "it has gone over", 20.0)
        assert over(proof, "held") == "Succeeded"
    counts_on(proof, target, "held")
    proof.retire("held")


def test_one_that_is_cancelled_leaves_the_guest_where_it_was(proof: Any, begun: Any) -> None:
    with proof.lab.audit.handing_over("stays.data"):
        source, _ = begun("stays")
        pid = proof.nodes[source].qemus("stays")
        proof.nodes["r1"].vcl("migrate", "stays", "--cancel")
        assert over(proof, "stays") == "Cancelled"
        proof.until(lambda: proof.homes("stays") == [source], "the copy is gone")
    assert proof.nodes[source].qemus("stays") == pid
    proof.retire("stays")


def test_a_target_that_loses_power_leaves_the_guest_where_it_was(proof: Any, begun: Any) -> None:
    with proof.lab.audit.handing_over("left.data"):
        source, target = begun("left")
        pid = proof.nodes[source].qemus("left")
        proof.fault.power_cut(target)
        assert over(proof, "left") == "Failed"
    assert proof.nodes[source].qemus("left") == pid
    proof.count("left")
    proof.retire("left")


def test_a_source_that_loses_power_has_the_guest_started_again(proof: Any, begun: Any) -> None:
    with proof.lab.audit.handing_over("lost.data"):
        source, _ = begun("lost")
        before = proof.last("lost")
        proof.fault.power_cut(source)
        proof.restarts("lost", before)
        assert over(proof, "lost") == "Failed"
    proof.retire("lost")


def test_killed_daemons_on_both_sides_and_of_the_master_leave_one_copy(proof: Any, begun: Any) -> None:
    with proof.lab.audit.handing_over("kept.data"):
        _, target = begun("kept")
        before = proof.last("kept")
        for node in proof.nodes.values():
            node.kill_vcld()
        for node in proof.nodes.values():
            node.start_vcld()
        phase = over(proof, "kept")
        proof.until(lambda: len(proof.homes("kept")) == 1, "one copy is left")
    print(f"its migration to {target}: {phase}; it runs on {proof.homes('kept')}")
    proof.count("kept")
    # When nobody heard how the call ended it is started again, at worst (decision 86).
    assert proof.last("kept").number - before.number in (0, 1)
    proof.retire("kept")


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_killed_libvirtd_leaves_one_copy(proof: Any, begun: Any, side: str) -> None:
    with proof.lab.audit.handing_over("one.data"):
        source, target = begun("one")
        before = proof.last("one")
        name = source if side == "source" else target
        proof.fault.kill(name, "libvirtd")
        proof.fault.start(name, "libvirtd")
        phase = over(proof, "one")
        proof.until(lambda: len(proof.homes("one")) == 1, "one copy is left")
    print(
        f"with the {side}'s libvirtd killed: {phase}, it runs on {proof.homes('one')} ({source} -> {target})"
    )
    assert proof.count("one")["one"].number == before.number
    proof.retire("one")


def best(proof: Any) -> str:
    """The node of the best rank, once it is master again and remains so."""
    proof.until(lambda: proof.master() == "r1" and proof.settled(), "r1 is master")
    return "r1"


def stop_at(proof: Any, node: str, step: str) -> None:
    """As master that node is killed before the next such step (`:STOP`: frozen); empty: it goes on."""
    (proof.nodes[node].host.files / "etc/vcl/stop-at").write_text(f"migration:{step}\n" if step else "")


@pytest.mark.parametrize("step", ["Open", "Go", "Settle"])
def test_the_master_is_killed_before_a_step_and_the_next_one_takes_it(
    proof: Any, begun: Any, step: str
) -> None:
    """Before both nodes are in the claim; before both hosts are looked at; and before the claim is settled,
    when the source has ended and the target's copy stands still."""
    master = best(proof)
    rest = proof.others(master)
    with proof.lab.audit.handing_over("handed.data"):
        if step == "Open":
            source, target = rest
            proof.run("handed", source)
            stop_at(proof, master, step)
            proof.nodes[source].vcl("migrate", "handed", "--to", target, check=False)
        else:
            source, target = begun("handed")
            stop_at(proof, master, step)
        before = proof.last("handed")
        proof.until(lambda: proof.nodes[master].host.daemon("vcld") is None, f"{master} is killed")
        proof.replaced(master)
        assert over(proof, "handed", by=target) == "Succeeded"
        assert proof.homes("handed") == [target]
    counts_on(proof, target, "handed")
    assert proof.last("handed").number == before.number
    stop_at(proof, master, "")
    proof.nodes[master].start_vcld()
    proof.retire("handed")


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_host_that_dies_before_the_last_step_costs_a_restart_at_most(
    proof: Any, begun: Any, side: str
) -> None:
    """The master stands still while it does: it settles what it saw before."""
    master = best(proof)
    daemon = proof.nodes[master].host.daemon("vcld")
    with proof.lab.audit.handing_over("late.data"):
        source, target = begun("late")
        before = proof.last("late")
        stop_at(proof, master, "Settle:STOP")
        proof.until(daemon.stands_still, f"{master} is frozen before it settles")
        proof.fault.power_cut(source if side == "source" else target)
        stop_at(proof, master, "")
        proof.fault.thaw(master, "vcld")
        proof.until(lambda: len(proof.homes("late")) == 1, "one copy runs")
        after = proof.count("late")["late"]
    print(f"with the {side} cut: on {after.node}, boot {after.number} after {before.number}")
    assert after.number - before.number == (0 if side == "source" else 1)
    proof.retire("late")
