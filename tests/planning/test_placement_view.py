"""Wanted, owned, reported and really there: what does not agree comes first and says why."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.master import VmRecords
from reconciler.planning.node_capacity import Amount
from reconciler.planning.placement_view import (
    Held,
    Here,
    NodeFacts,
    PlacementView,
    VmFacts,
    VmLine,
    placement_view,
)
from reconciler.resources.domains import DomainPhase, Observed
from reconciler.resources.records import Binding, Claim, ClaimPhase, ObjectMeta
from reconciler.resources.status import Phase, VmNodeStatus
from reconciler.resources.virtualmachine import Cpu, VirtualMachineSpec

NODES = (
    NodeFacts(
        name="r1",
        standing="Ready",
        usable=Amount(cpu=32, memory=2**34),
        total=Amount(cpu=8, memory=2**34),
    ),
    NodeFacts(name="r2", standing="Ready", refuses="in maintenance"),
    NodeFacts(name="r3", standing="Silent", reason="silent on both"),
)


def records(name: str = "web", wish: Wish = Wish.RUN, **more: Any) -> VmRecords:
    return VmRecords(
        metadata=ObjectMeta(name=name, uid=f"uid-{name}"),
        spec=VirtualMachineSpec(cpu=Cpu(cores=2), memory=2**30),
        desired=Desired(wish=wish, reason="stopped by `vcl stop`" if wish is Wish.STOP else "as asked"),
        claim=more.get("claim"),
        binding=more.get("binding"),
        purge=False,
    )


def bound(node: str, name: str = "web") -> Binding:
    return Binding(node=node, uid=f"uid-{name}", epoch=1, bound="t")


def claimed(node: str, phase: ClaimPhase = ClaimPhase.RUNNING, name: str = "web") -> Claim:
    return Claim(node=node, uid=f"uid-{name}", phase=phase, controller="libvirt")


def says(node: str, phase: Phase = Phase.RUNNING, message: str = "", name: str = "web") -> VmNodeStatus:
    return VmNodeStatus(uid=f"uid-{name}", node=node, phase=phase, message=message)


def domain(phase: DomainPhase = DomainPhase.RUNNING, name: str = "web", cluster: str = "c") -> Observed:
    return Observed(name=name, uid=f"uid-{name}", cluster_uid=cluster, phase=phase)


def vm(name: str = "web", wish: Wish = Wish.RUN, **more: Any) -> VmFacts:
    kept = {key: more[key] for key in ("claim", "binding") if key in more}
    return VmFacts(name=name, records=records(name, wish, **kept), **more)


def view(*vms: VmFacts, here: tuple[Observed, ...] = (), **more: Any) -> PlacementView:
    found = Here(node="r1", cluster_uid="c", domains={d.name: d for d in here}, **more)
    return placement_view(vms, NODES, found)


def line(facts: VmFacts, *here: Observed, **more: Any) -> VmLine:
    return next(found for found in view(facts, here=here, **more).vms if found.name == facts.name)


def test_where_all_agree_there_is_nothing_to_say() -> None:
    found = line(vm(binding=bound("r1"), claim=claimed("r1"), reported=says("r1")), domain())
    assert found == VmLine(
        name="web",
        desired="r1",
        claimed=Held(node="r1", phase="Running"),
        reported=Held(node="r1", phase="Running"),
        local="Running",
    )


def test_what_runs_elsewhere_is_not_missed_here() -> None:
    found = line(vm(binding=bound("r2"), claim=claimed("r2"), reported=says("r2")))
    assert (found.local, found.state, found.note) == (None, "OK", "")


def test_what_is_not_to_run_says_why() -> None:
    found = line(vm(wish=Wish.STOP))
    assert (found.desired, found.state, found.note) == (None, "OK", "stopped by `vcl stop`")


RUNS = {"binding": bound("r1"), "claim": claimed("r1"), "reported": says("r1")}


@pytest.mark.parametrize(
    ("facts", "here", "state", "words"),
    [
        (vm(**RUNS), (), "Mismatch", "no domain is there"),
        (vm(**RUNS), (domain(DomainPhase.PAUSED),), "Mismatch", "reported as Running, and is Paused on r1"),
        (vm(**RUNS), (domain(cluster="other"),), "Mismatch", "this cluster did not make"),
        (vm(binding=bound("r2")), (domain(),), "Mismatch", "on r1, and nobody has claimed it"),
        (
            vm(binding=bound("r2"), claim=claimed("r2"), reported=says("r2")),
            (domain(),),
            "Mismatch",
            "a domain of it is on r1, and r2 owns it",
        ),
        (
            vm(binding=bound("r1"), claim=claimed("r2"), reported=says("r2")),
            (),
            "Changing",
            "r2 still owns it; r1 starts it once it has been let go",
        ),
        (
            vm(binding=bound("r2"), reported=says("r2", Phase.FAILED, "no such bridge")),
            (),
            "Mismatch",
            "r2 cannot start it: no such bridge",
        ),
        (
            vm(binding=bound("r2"), claim=claimed("r2"), reported=says("r2", Phase.FAILED, "no image")),
            (),
            "Mismatch",
            "r2 cannot run it: no image",
        ),
        (VmFacts(name="web"), (), "Mismatch", "cannot be read"),
        (VmFacts(name="web", exists=False, claim=claimed("r1")), (), "Mismatch", "no such virtual machine"),
        (
            vm(binding=bound("r3"), claim=claimed("r3"), reported=says("r3")),
            (),
            "Unknown",
            "r3 is Silent (silent on both): what it reported may be old",
        ),
        (vm(binding=bound("gone")), (), "Unknown", "gone is not a member"),
        (
            vm(
                binding=bound("r2"),
                claim=claimed("r2"),
                reported=says("r2", Phase.UNKNOWN, "it hangs"),
            ),
            (),
            "Unknown",
            "r2 does not know how it is: it hangs",
        ),
        (vm(refusal="r1: memory 1Gi short"), (), "Unplaced", "r1: memory 1Gi short"),
        (vm(), (), "Unplaced", "the master has not placed it yet"),
        (vm(binding=bound("r1")), (), "Changing", "r1 has not claimed it yet"),
        (
            vm(binding=bound("r2"), claim=claimed("r2", ClaimPhase.PROVISIONING)),
            (),
            "Changing",
            "r2 has not reported on it since it claimed it",
        ),
        (
            vm(binding=bound("r2"), claim=claimed("r2"), reported=says("r2", Phase.STARTING)),
            (),
            "Changing",
            "Starting on r2",
        ),
        (
            vm(wish=Wish.STOP, claim=claimed("r2"), reported=says("r2", Phase.STOPPING, "asked the guest")),
            (),
            "Changing",
            "r2 is to stop it: stopped by `vcl stop` (asked the guest)",
        ),
        (vm(wish=Wish.STOP, binding=bound("r2")), (), "Changing", "the master is to unbind it"),
        (vm(wish=Wish.DELETED), (), "Changing", "being deleted"),
    ],
)
def test_what_does_not_agree_says_why(
    facts: VmFacts, here: tuple[Observed, ...], state: str, words: str
) -> None:
    found = line(facts, *here)
    assert (found.state, words in found.note) == (state, True), found.note


def test_a_hypervisor_that_does_not_answer_makes_it_unknown() -> None:
    found = line(vm(**RUNS), unknown={"libvirt": "it hangs"})
    assert (found.local, found.state) == ("Unknown", "Unknown")
    assert found.note == "r1 owns it, and cannot tell whether it runs: it hangs"


def test_a_domain_of_the_cluster_without_a_vm_is_shown() -> None:
    found = view(here=(domain(name="lost"), domain(name="handmade", cluster=""))).vms
    assert [(one.name, one.state, one.local) for one in found] == [("lost", "Mismatch", "Running")]


def test_what_changed_while_the_hypervisor_was_asked_is_not_compared() -> None:
    assert line(vm(**RUNS), moved=frozenset({"web"})).state == "OK"
    assert view(here=(domain(name="lost"),), moved=frozenset({"lost"})).vms == ()


def test_an_earlier_vm_of_the_name_said_nothing_about_this_one() -> None:
    old = VmNodeStatus(uid="another", node="r2", phase=Phase.RUNNING)
    earlier = Binding(node="r2", uid="another", epoch=1, bound="t")
    found = line(vm(binding=earlier, reported=old))
    assert (found.desired, found.reported, found.state) == (None, None, "Unplaced")


def test_the_worst_comes_first_then_names_in_order() -> None:
    found = view(
        vm("b", binding=bound("r1", "b")),
        vm("a", wish=Wish.STOP),
        vm("c", claim=claimed("r1", name="c"), reported=says("r1", Phase.FAILED, "why", name="c")),
        vm("d"),
        vm("aa", binding=bound("r1", "aa")),
    ).vms
    assert [(one.name, one.state) for one in found] == [
        ("c", "Mismatch"),
        ("d", "Unplaced"),
        ("aa", "Changing"),
        ("b", "Changing"),
        ("a", "OK"),
    ]


def test_nodes_show_what_is_used_of_what_they_have() -> None:
    nodes = view(
        vm("a", binding=bound("r1", "a")),
        vm("b", binding=bound("r1", "b"), claim=claimed("r2", name="b")),
        vm("c", wish=Wish.STOP, claim=claimed("r2", name="c")),
        vm("d", wish=Wish.STOP),
    ).nodes
    assert [(node.name, node.used.cpu, node.used.memory, node.vms) for node in nodes] == [
        ("r1", 4, 2**31, 2),
        ("r2", 4, 2**31, 2),
        ("r3", 0, 0, 0),
    ]
    assert nodes[0].usable == Amount(cpu=32, memory=2**34)
    assert [node.note for node in nodes] == ["", "in maintenance", "silent on both"]
