"""VMs come back in their order, so many at once, and nobody waits for what does not come."""

from __future__ import annotations

from dataclasses import replace

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.master import Bind, MasterPlan, VmRecords
from reconciler.planning.placement import FailedOn
from reconciler.planning.start_turns import Standing, all_started, in_turn, start_turns
from reconciler.resources.codec import decode
from reconciler.resources.records import Binding, Claim, ClaimPhase, ObjectMeta
from reconciler.resources.startorder import order_of
from reconciler.resources.virtualmachine import VirtualMachineSpec

SITE = order_of({"web": 5, "db": 0, "batch": -1, "cache": 5}, {"web": ["db"]})
WAITING = dict.fromkeys(SITE.places, Standing.WAITING)


def may(standings: dict[str, Standing], parallel: int = 9) -> list[str]:
    return [vm for vm, why in start_turns(SITE, standings, parallel).items() if not why]


def test_what_others_need_starts_first_then_the_important() -> None:
    assert list(start_turns(SITE, WAITING, 9)) == ["db", "cache", "web", "batch"]
    assert may(WAITING) == ["db", "cache", "batch"]
    assert start_turns(SITE, WAITING, 9)["web"] == "it starts after db (startAfter)"
    assert may({**WAITING, "db": Standing.STARTING}) == ["cache", "batch"]
    assert may({**WAITING, "db": Standing.RUNNING}) == ["cache", "web", "batch"]


def test_no_more_start_at_once_than_was_asked_for() -> None:
    assert may(WAITING, 2) == ["db", "cache"]
    assert may({**WAITING, "db": Standing.STARTING}, 2) == ["cache"]
    said = start_turns(SITE, {**WAITING, "db": Standing.STARTING}, 1)
    assert said["cache"] == "it waits for its turn: 1 start at once"


def test_nobody_waits_for_what_does_not_come() -> None:
    assert "web" in may({**WAITING, "db": Standing.OUT})
    assert "web" in may({vm: each for vm, each in WAITING.items() if vm != "db"})


def test_a_cycle_does_not_hold_its_vms_for_ever() -> None:
    ring = order_of({"a": 0, "b": 0}, {"a": ["b"], "b": ["a"]})
    standings = dict.fromkeys("ab", Standing.WAITING)
    first = [vm for vm, why in start_turns(ring, standings, 9).items() if not why]
    assert len(first) == 1
    assert all(not why for why in start_turns(ring, {**standings, first[0]: Standing.RUNNING}, 9).values())


NOW = "2026-01-01T12:00:00Z"
BOUND = Binding(node="r1", uid="", epoch=1, bound="2026-01-01T11:59:00Z")
OWNED = Claim(node="r1", phase=ClaimPhase.STARTING)


def vm(name: str, *after: str, priority: int = 0) -> VmRecords:
    spec = {"cpu": {"cores": 1}, "memory": "1Gi", "priority": priority, "startAfter": list(after)}
    return VmRecords(
        metadata=ObjectMeta(name=name, uid=name),
        spec=decode(VirtualMachineSpec, spec),
        desired=Desired(wish=Wish.RUN, reason=""),
        claim=None,
        binding=None,
        purge=False,
    )


def plan(*names: str) -> MasterPlan:
    return MasterPlan(binds=tuple(Bind(vm=name, node="r1", reason="") for name in names))


DB, WEB, BIG = vm("db"), vm("web", "db"), vm("big", priority=9)


def bound(given: MasterPlan, *vms: VmRecords, parallel: int = 0) -> list[str]:
    return [bind.vm for bind in in_turn(given, vms, parallel=parallel, now=NOW).binds]


def test_of_what_is_to_start_only_that_whose_turn_it_is_gets_a_place() -> None:
    assert bound(plan("big", "db", "web"), DB, WEB, BIG) == ["big", "db"]
    held = in_turn(plan("big", "db", "web"), (DB, WEB, BIG), parallel=1, now=NOW)
    assert [bind.vm for bind in held.binds] == ["big"]
    assert {each.vm: (each.reason, each.in_turn) for each in held.not_placed} == {
        "db": ("it waits for its turn: 1 start at once", True),
        "web": ("it starts after db (startAfter)", True),
    }
    free = plan("big", "db")
    assert in_turn(free, (DB, BIG), parallel=0, now=NOW) is free


def test_a_vm_that_starts_is_waited_for_and_one_that_runs_is_not() -> None:
    starting = replace(DB, binding=BOUND, claim=OWNED)
    assert bound(plan("web"), starting, WEB) == []
    assert bound(plan("web"), replace(DB, binding=BOUND), WEB) == []
    assert bound(plan("web"), replace(starting, claim=replace(OWNED, phase=ClaimPhase.RUNNING)), WEB) == [
        "web"
    ]


def test_a_vm_that_does_not_come_up_is_waited_for_by_nobody() -> None:
    halted = replace(DB, desired=Desired(wish=Wish.STOP, reason=""))
    failed = replace(DB, binding=BOUND, failed={"r1": FailedOn(count=3, why="it crashes")})
    long = replace(DB, binding=replace(BOUND, bound="2026-01-01T11:00:00Z"), claim=OWNED)
    for other in (halted, failed, long, DB):  # the last one has no place
        assert bound(plan("web"), other, WEB) == ["web"]


def test_a_start_has_ended_when_nothing_is_on_its_way_up() -> None:
    up = replace(DB, binding=BOUND, claim=replace(OWNED, phase=ClaimPhase.RUNNING))
    assert all_started(plan(), (up, WEB), NOW)  # web has no place
    assert not all_started(plan("web"), (up, WEB), NOW)
    assert not all_started(plan(), (up, replace(WEB, binding=BOUND)), NOW)
