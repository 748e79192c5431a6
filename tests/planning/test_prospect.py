"""What would happen is what the master would do, and nothing more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.master import VmRecords, plan_master
from reconciler.planning.placement import NamedConstraint, NodeView
from reconciler.planning.prospect import Action, Prospect, Situation, Supposed, index_of, prospect
from reconciler.resources.codec import decode
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.records import Binding, Claim, ClaimPhase, ObjectMeta
from reconciler.resources.virtualmachine import VirtualMachineSpec

GIB = 2**30
NODES = (
    NodeView(name="r1", cpu=8, memory=8 * GIB),
    NodeView(name="r2", cpu=8, memory=8 * GIB),
    NodeView(name="r3", cpu=8, memory=8 * GIB - 2**20),
)


def vm(name: str, node: str | None = None, memory: int = 2, wish: Wish = Wish.RUN, **spec: Any) -> VmRecords:
    described = {"cpu": {"cores": 1}, "memory": f"{memory}Gi", **spec}
    claim = Claim(node=node, uid=name, phase=ClaimPhase.RUNNING) if node else None
    return VmRecords(
        metadata=ObjectMeta(name=name, uid=name),
        spec=decode(VirtualMachineSpec, described),
        desired=Desired(wish=wish, reason="as asked"),
        claim=claim,
        binding=Binding(node=node, uid=name, epoch=1, bound="") if node else None,
        purge=False,
    )


def situation(*vms: VmRecords, nodes: tuple[NodeView, ...] = NODES) -> Situation:
    return Situation(vms=vms, nodes=nodes, constraints=())


def suppose(
    now: Situation, *, down: str = "", drained: str = "", then: Situation | None = None, **moves: bool
) -> Prospect:
    supposed = Supposed(down=frozenset(down.split()), drained=frozenset(drained.split()), **moves)
    return prospect(now, then or now, supposed, "index")


def told(found: Prospect) -> list[tuple[str, Action, str | None, str | None]]:
    return [(c.vm, c.action, c.source, c.target) for c in found.changes]


def test_nothing_to_do_is_no_change() -> None:
    found = suppose(situation(vm("a", "r1"), vm("b", "r2")))
    assert (found.changes, found.waiting, found.differs) == ((), (), False)


def test_a_vm_without_a_place_starts() -> None:
    found = suppose(situation(vm("a", "r1"), vm("b")))
    assert told(found) == [("b", Action.START, None, "r2")]
    assert found.changes[0].reason
    assert [(n.name, n.before.vms, n.after.vms) for n in found.nodes] == [
        ("r1", 1, 1), ("r2", 0, 1), ("r3", 0, 0),
    ]  # fmt: skip


def test_when_a_node_is_down_its_vms_start_elsewhere_and_it_takes_none() -> None:
    found = suppose(situation(vm("a", "r1"), vm("b", "r2")), down="r1")
    assert told(found) == [("a", Action.RESTART, "r1", "r3")]
    assert (found.nodes[0].after.vms, found.nodes[0].note) == (0, "is supposed to be down")


def test_what_finds_no_place_says_why_for_each_node() -> None:
    now = situation(vm("a", "r1", 5), vm("b", "r2", 5), vm("c", "r3", 4))
    found = suppose(now, down="r1")
    assert found.changes == ()
    (waiting,) = found.waiting
    assert (waiting.vm, waiting.node, waiting.lost, found.differs) == ("a", "r1", True, True)
    assert [(r.node, r.reason) for r in waiting.nodes] == [
        ("r1", "is supposed to be down"),
        ("r2", "memory 2Gi short (3Gi free)"),
        ("r3", "memory 1Gi short (4Gi free)"),
    ]


def test_a_drain_moves_each_vm_as_its_eviction_strategy_says() -> None:
    now = situation(
        vm("live", "r1"), vm("off", "r1", evictionStrategy="Stop"), vm("stays", "r1", evictionStrategy="None")
    )
    found = suppose(now, drained="r1")
    assert [(c.vm, c.action) for c in found.changes] == [("live", Action.MIGRATE), ("off", Action.MOVE)]
    assert [(w.vm, w.node, w.lost) for w in found.waiting] == [("stays", "r1", False)]
    assert "evictionStrategy is None" in found.waiting[0].nodes[0].reason
    assert [n.after.vms for n in found.nodes] == [1, 1, 1]


def test_a_vm_that_a_drain_finds_no_place_for_stays_where_it_is() -> None:
    found = suppose(situation(vm("a", "r1", 5), vm("b", "r2", 5), vm("c", "r3", 4)), drained="r1")
    assert [(w.vm, w.node, w.lost) for w in found.waiting] == [("a", "r1", False)]
    assert [n.after.vms for n in found.nodes] == [1, 1, 1]
    assert not found.differs


def test_a_drain_makes_room_turn_by_turn_when_it_has_to() -> None:
    now = situation(vm("big", "r1", 6), vm("a", "r2", 4), vm("b", "r3", 3))
    found = suppose(now, drained="r1")
    first, second = found.changes
    assert (first.turn, second.turn, second.vm, second.target) == (1, 2, "big", first.source)
    assert sorted(n.after.vms for n in found.nodes) == [0, 1, 2]


def test_a_vm_that_cannot_be_drained_for_want_of_another_node_says_so() -> None:
    (waiting,) = suppose(situation(vm("a", "r1"), nodes=NODES[:1]), drained="r1").waiting
    assert [(r.node, r.reason) for r in waiting.nodes] == [("", "there is no other node")]


def test_what_breaks_a_rule_is_moved_only_in_a_plan_that_repairs() -> None:
    apart = NamedConstraint(
        name="apart",
        spec=decode(PlacementConstraintSpec, {"type": "AntiAffinity", "vms": {"names": ["a", "b"]}}),
    )
    now = replace(situation(vm("a", "r1"), vm("b", "r1")), constraints=(apart,))
    assert not suppose(now).differs
    (change,) = suppose(now, repair=True).changes
    assert (change.action, change.source, change.turn) == (Action.MIGRATE, "r1", 1)
    assert change.target in ("r2", "r3")


def test_balance_moves_what_is_worth_it_and_nothing_when_all_is_even() -> None:
    lopsided = situation(vm("a", "r1"), vm("b", "r1"), vm("c", "r1"))
    assert suppose(lopsided, repair=True).changes == ()
    found = suppose(lopsided, balance=True)
    assert [n.after.vms for n in found.nodes] == [1, 1, 1]
    assert [c.turn for c in found.changes] == [1, 2]
    assert suppose(situation(vm("a", "r1"), vm("b", "r2"), vm("c", "r3")), balance=True).changes == ()


def test_a_vm_that_is_stopped_for_a_higher_priority_is_told_and_so_is_who_waits_for_it() -> None:
    now = situation(
        *(vm(f"low{n}", f"r{n}", 7) for n in (1, 2, 3)), vm("high", None, 6, priority=9, preemption=True)
    )
    found = suppose(now)
    (change,) = found.changes
    assert (change.action, change.target) == (Action.EVICT, None)
    assert "high" in change.reason
    (waiting,) = found.waiting
    assert (waiting.vm, waiting.node) == ("high", None)
    assert "is stopped for it" in waiting.nodes[0].reason


def test_an_edit_is_compared_with_what_is() -> None:
    now = situation(vm("a", "r1"))
    stopped = vm("a", "r1", wish=Wish.STOP)
    found = suppose(now, then=situation(stopped, vm("new")))
    assert told(found) == [("a", Action.STOP, "r1", None), ("new", Action.START, None, "r2")]
    assert [n.after.vms for n in found.nodes] == [0, 1, 0]


def test_the_index_changes_with_what_counts_and_with_nothing_else() -> None:
    now = situation(vm("a", "r1"), vm("b"))
    index = index_of(now, {})
    assert len(index) == 12
    same = replace(now, vms=now.vms[::-1], nodes=now.nodes[::-1])
    assert index_of(same, {}) == index
    silent = replace(NODES[0], refuses="is silent")
    others = [
        replace(now, nodes=(silent, *NODES[1:])),
        replace(now, vms=(vm("a", "r2"), vm("b"))),
        replace(now, vms=(vm("a", "r1", 3), vm("b"))),
    ]
    found = {index_of(each, {}) for each in others} | {index_of(now, {"web.yaml": b"x"})}
    assert len(found - {index}) == 4
    reworded = replace(now, nodes=(replace(silent, refuses="is silent for 9 s"), *NODES[1:]))
    assert index_of(reworded, {}) == index_of(others[0], {})


@settings(max_examples=60, deadline=None)
@given(
    vms=st.lists(
        st.tuples(st.sampled_from([None, "r1", "r2", "r3"]), st.integers(1, 6), st.booleans()), max_size=8
    )
)
def test_without_supposing_anything_it_is_the_masters_plan(vms: list[tuple[str | None, int, bool]]) -> None:
    now = situation(
        *(
            vm(f"v{i}", node, memory, Wish.RUN if runs else Wish.STOP)
            for i, (node, memory, runs) in enumerate(vms)
        )
    )
    plan = plan_master(now.vms, now.nodes, now.constraints)
    found = suppose(now)
    starts = [(c.vm, c.target) for c in found.changes if c.action is Action.START]
    assert starts == [(bind.vm, bind.node) for bind in plan.binds]
    assert [w.vm for w in found.waiting] == [x.vm for x in plan.not_placed]
