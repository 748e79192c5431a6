"""Constraints that contradict each other: apply refuses them, what arrives otherwise gets conditions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from reconciler.ports.manifests import ApplyInput, ApplyOutcome, ApplyResult
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import dump
from reconciler.resources.status import NodeStatus
from reconciler.sim.store import MemoryStore
from reconciler.testing.manifests import ManifestWorld, together, vm


@pytest.fixture
async def world() -> AsyncIterator[ManifestWorld]:
    made = ManifestWorld(MemoryStore())
    await made.start()
    await made.look()
    yield made
    await made.stop()


def rule(name: str, spec: str) -> bytes:
    return (
        f"apiVersion: vcl/v1\nkind: PlacementConstraint\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    ).encode()


SAME = rule("same", "type: Affinity, vms: {names: [a, b]}")
APART = rule("apart", "type: AntiAffinity, vms: {names: [a, b]}")
WHY = "a and b must share a node and must not"


async def apply(world: ManifestWorld, content: bytes) -> ApplyResult:
    report = await world.service.apply([ApplyInput(name="new.yaml", content=content)], dry_run=False)
    return report.results[0]


async def test_apply_refuses_a_constraint_that_contradicts_another_and_names_both_lines(
    world: ManifestWorld,
) -> None:
    world.files["vms.yaml"] = together(vm("a"), vm("b"))
    world.files["same.yaml"] = SAME
    await world.look()
    result = await apply(world, APART)
    assert result.result is ApplyOutcome.FAILED
    assert result.error is not None
    assert result.error.startswith(
        "new.yaml:4:14: spec.type: contradicts PlacementConstraint 'same' (manifests/same.yaml:1): " + WHY
    )
    assert result.error.endswith("remove one of these constraints, or make it Preferred")
    assert "apart" not in world.living()


async def test_a_file_that_arrives_otherwise_is_taken_and_every_object_concerned_says_so(
    world: ManifestWorld,
) -> None:
    world.files |= {"a.yaml": vm("a"), "b.yaml": vm("b"), "c.yaml": vm("c"), "same.yaml": SAME}
    world.files["apart.yaml"] = APART
    await world.settle()
    assert world.living() == ["a", "apart", "b", "c", "same"]
    same = world.condition("same", Kind.PLACEMENT_CONSTRAINT)
    assert same is not None
    assert not same.valid
    assert "contradicts PlacementConstraint 'apart' (apart.yaml:1): " + WHY in same.message
    for name in "ab":
        waiting = world.condition(name)
        assert waiting is not None
        assert waiting.valid
        assert (
            "'same' (same.yaml:1) and PlacementConstraint 'apart' (apart.yaml:1): " + WHY in waiting.message
        )
    assert world.condition("c") is None


async def test_the_conditions_end_with_the_contradiction(world: ManifestWorld) -> None:
    world.files |= {"a.yaml": vm("a"), "b.yaml": vm("b"), "same.yaml": SAME, "apart.yaml": APART}
    await world.settle()
    world.files["apart.yaml"] = APART.replace(b"type:", b"enforcement: Preferred, type:")
    await world.settle()
    assert [world.condition(name) for name in "ab"] == [None, None]
    assert world.condition("same", Kind.PLACEMENT_CONSTRAINT) is None


async def test_what_more_nodes_would_cure_is_a_warning_and_ends_when_they_come(world: ManifestWorld) -> None:
    async def report(node: str) -> None:
        await world.put(keys.node_status(Kind.NODE, node), dump(NodeStatus(uid="", ready=True)))

    await report("r1")
    world.files["vms.yaml"] = together(vm("a"), vm("b"))
    await world.look()
    result = await apply(world, APART)
    assert result.error is None
    assert "a and b (2 VMs) must each have a node of their own, and only r1 can take them" in str(
        result.warnings
    )
    await world.settle()
    assert world.condition("a") is not None
    await report("r2")
    await world.settle()
    assert world.condition("a") is None


async def test_applying_a_vm_that_has_no_place_because_of_others_constraints_is_told_at_once(
    world: ManifestWorld,
) -> None:
    world.files |= {"a.yaml": vm("a"), "same.yaml": SAME, "apart.yaml": APART}
    await world.settle()
    result = await apply(world, vm("b"))
    assert result.error is None
    assert WHY in str(result.warnings)
