"""The master's plan: bind, unbind, finish deletions."""

from __future__ import annotations

from dataclasses import replace

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.master import VmRecords, plan_master
from reconciler.planning.placement import NodeView
from reconciler.resources.codec import decode
from reconciler.resources.records import Binding, Claim, ObjectMeta
from reconciler.resources.virtualmachine import VirtualMachineSpec

NODE = NodeView(name="r1", cpu=4, memory=4 * 2**30)
SPEC = decode(VirtualMachineSpec, {"cpu": {"cores": 2}, "memory": "3Gi"})
RUN = Desired(wish=Wish.RUN, reason="")
STOP = Desired(wish=Wish.STOP, reason="stopped")
DELETED = Desired(wish=Wish.DELETED, reason="deleted")
BOUND = Binding(node="r1", uid="u-web", epoch=1, bound="")
HELD = Claim(node="r1", uid="u-web")


def records(name: str = "web", **changes: object) -> VmRecords:
    base = VmRecords(
        metadata=ObjectMeta(name=name, uid=f"u-{name}"),
        spec=SPEC,
        desired=RUN,
        claim=None,
        binding=None,
        purge=False,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def test_a_wanted_vm_is_bound() -> None:
    assert [b.vm for b in plan_master([records()], [NODE], []).binds] == ["web"]


def test_a_bound_vm_stays_and_takes_its_room() -> None:
    plan = plan_master([records(binding=BOUND), records("b")], [NODE], [])
    assert plan.binds == ()
    assert [n.vm for n in plan.not_placed] == ["b"]


def test_a_stopping_vm_keeps_its_room_until_its_claim_is_empty() -> None:
    stopping = records(binding=BOUND, claim=HELD, desired=STOP)
    assert [n.vm for n in plan_master([stopping, records("b")], [NODE], []).not_placed] == ["b"]
    assert plan_master([stopping], [NODE], []).unbinds == ()
    stopped = replace(stopping, claim=Claim(uid="u-web"))
    plan = plan_master([stopped, records("b")], [NODE], [])
    assert [u.vm for u in plan.unbinds] == ["web"]
    assert [b.vm for b in plan.binds] == ["b"]


def test_a_deletion_is_finished_only_when_nobody_owns_the_vm() -> None:
    assert plan_master([records(desired=DELETED, claim=HELD, binding=BOUND)], [NODE], []).finals == ()
    assert len(plan_master([records(desired=DELETED)], [NODE], []).finals) == 1


def test_a_purge_is_bound_to_a_node_first_even_a_full_one() -> None:
    purging = records(desired=DELETED, purge=True)
    full = replace(NODE, memory=0, cpu=0)
    plan = plan_master([purging], [full], [])
    assert [b.vm for b in plan.binds] == ["web"]
    assert plan.finals == ()
    done = replace(purging, claim=Claim(uid="u-web", purged=True))
    assert len(plan_master([done], [NODE], []).finals) == 1


def test_the_binding_of_an_earlier_vm_of_the_name_does_not_count() -> None:
    stale = replace(BOUND, uid="u-old")
    assert [b.vm for b in plan_master([records(binding=stale)], [NODE], []).binds] == ["web"]


def test_a_vm_with_preemption_has_a_lower_one_stopped_and_is_bound_when_that_is_gone() -> None:
    high = records("high", spec=replace(SPEC, priority=5, preemption=True))
    runs = records(binding=BOUND, claim=HELD)
    plan = plan_master([runs, high], [NODE], [])
    assert [(u.vm, u.reason) for u in plan.unbinds] == [
        ("web", "stopped for high, which has a higher priority and preemption")
    ]
    assert plan.binds == ()
    assert [(n.vm, n.reason) for n in plan.not_placed] == [
        ("high", "waits until web is stopped for it on r1")
    ]
    going = plan_master([replace(runs, binding=None), high], [NODE], [])
    assert (going.binds, going.unbinds) == ((), ())
    gone = plan_master([replace(runs, binding=None, claim=None), high], [NODE], [])
    assert [(b.vm, b.node) for b in gone.binds] == [("high", "r1")]
    assert [n.vm for n in gone.not_placed] == ["web"]


def test_without_preemption_a_higher_priority_stops_nobody() -> None:
    high = records("high", spec=replace(SPEC, priority=5))
    plan = plan_master([records(binding=BOUND, claim=HELD), high], [NODE], [])
    assert plan.unbinds == ()
    assert [n.vm for n in plan.not_placed] == ["high"]
