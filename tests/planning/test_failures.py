"""Failures of a VM on a node: bounded tries, then elsewhere, never to and fro."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.failures import ATTEMPTS, blame, counted, expired, in_force, later
from reconciler.planning.master import VmRecords, plan_master
from reconciler.planning.placement import FailedOn, NodeView
from reconciler.resources.codec import decode
from reconciler.resources.failures import Blame, FailureRecord, Failures
from reconciler.resources.records import Binding, Claim, ObjectMeta
from reconciler.resources.virtualmachine import VirtualMachineSpec

NOW = "2026-01-31T12:00:00Z"
NODES = [NodeView(name=f"r{i}", cpu=4, memory=4 * 2**30) for i in (1, 2, 3)]
WEB = VmRecords(
    metadata=ObjectMeta(name="web", uid="u-web"),
    spec=decode(VirtualMachineSpec, {"cpu": {"cores": 2}, "memory": "3Gi"}),
    desired=Desired(wish=Wish.RUN, reason=""),
    claim=None,
    binding=Binding(node="r1", uid="u-web", epoch=1, bound=""),
    purge=False,
)


def failed(times: int, reason: str = "QemuCrashed") -> Failures:
    found = Failures()
    for _ in range(times):
        found = counted(found, reason, "died", now=NOW, retry=NOW)
    return found


def on(*nodes: str, count: int = 3) -> dict[str, FailedOn]:
    return {node: FailedOn(count=count, why="it failed there") for node in nodes}


def test_a_node_gives_a_vm_up_after_so_many_failures_and_not_before() -> None:
    assert not failed(ATTEMPTS - 1).given_up
    assert failed(ATTEMPTS).given_up


def test_what_is_not_the_nodes_fault_never_moves_a_vm() -> None:
    assert [blame(r) for r in ("ImageInUse", "GuestExited", "BridgeMissing", "Odd")] == [
        Blame.STORAGE,
        Blame.VM,
        Blame.NODE,
        Blame.NODE,
    ]
    assert not failed(50, "ImageInUse").given_up
    assert not failed(50, "GuestExited").given_up


def test_failures_long_ago_do_not_count() -> None:
    again = counted(failed(2), "QemuCrashed", "died", now=later(NOW, 4000), retry=NOW)
    assert (again.count, again.given_up) == (1, False)


def test_a_failure_expires_an_hour_after_it_happened_and_one_without_a_time_at_once() -> None:
    assert not expired(NOW, later(NOW, 3600))
    assert expired(NOW, later(NOW, 3601))
    assert expired("None", NOW)


def test_a_record_ends_with_its_vm_its_spec_a_retry_and_time() -> None:
    record = FailureRecord(uid="u", generation=1, reset=None, failures=failed(3))
    assert in_force(record, uid="u", generation=1, reset=None, now=NOW)
    assert not in_force(record, uid="v", generation=1, reset=None, now=NOW)
    assert not in_force(record, uid="u", generation=2, reset=None, now=NOW)
    assert not in_force(record, uid="u", generation=1, reset="id", now=NOW)
    assert not in_force(record, uid="u", generation=1, reset=None, now=later(NOW, 4000))


def test_a_vm_that_its_node_gave_up_goes_elsewhere_and_the_reason_names_the_node() -> None:
    plan = plan_master([replace(WEB, failed=on("r1"))], NODES, [])
    assert [(b.vm, b.node) for b in plan.binds] == [("web", "r3")]
    assert "r1: it failed there" in plan.binds[0].reason


def test_a_vm_that_is_claimed_is_not_moved() -> None:
    held = replace(WEB, failed=on("r1"), claim=Claim(node="r1", uid="u-web"))
    assert plan_master([held], NODES, []) == plan_master([replace(held, failed={})], NODES, [])


def test_a_vm_that_failed_everywhere_stays_where_it_is_and_says_so() -> None:
    plan = plan_master([replace(WEB, failed=on("r1", "r2", "r3"))], NODES, [])
    assert (plan.binds, plan.not_placed) == ((), ())
    assert [(s.vm, s.node) for s in plan.stays] == [("web", "r1")]
    assert "r2: it failed there" in plan.stays[0].reason


def test_a_vm_that_is_nowhere_goes_where_it_failed_least() -> None:
    failures = on("r1", "r3", count=5) | on("r2", count=4)
    plan = plan_master([replace(WEB, binding=None, failed=failures)], NODES, [])
    assert [b.node for b in plan.binds] == ["r2"]


def test_the_room_that_a_moving_vm_leaves_is_free() -> None:
    other = replace(WEB, metadata=ObjectMeta(name="z", uid="u-z"), binding=None)
    plan = plan_master([replace(WEB, failed=on("r1")), other], NODES[:2], [])
    assert {b.vm: b.node for b in plan.binds} == {"web": "r2", "z": "r1"}


@given(bad=st.sets(st.sampled_from(["r1", "r2", "r3"])), tries=st.integers(1, 40))
def test_a_vm_moves_at_most_once_to_each_node(bad: set[str], tries: int) -> None:
    """It fails at once on bad nodes: it comes to rest on a good one, or stops moving."""
    counts: dict[str, Failures] = {}
    node, moves = "r1", 0
    for _ in range(tries):
        if node in bad:
            counts[node] = counted(counts.get(node, Failures()), "QemuCrashed", "died", now=NOW, retry=NOW)
        given_up = {n: FailedOn(count=f.count, why="") for n, f in counts.items() if f.given_up}
        binding = Binding(node=node, uid="u-web", epoch=1, bound="")
        for bind in plan_master([replace(WEB, binding=binding, failed=given_up)], NODES, []).binds:
            node, moves = bind.node, moves + 1
    assert moves <= 2
    if len(bad) < 3 and tries > 3 * ATTEMPTS:
        assert node not in bad
