"""What a node says would happen, over a store and a manifest directory in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from reconciler.loops.plans import Like, Plans
from reconciler.planning.eviction import Way
from reconciler.planning.prospect import Action, Supposed
from reconciler.ports.manifests import ApplyInput
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, InvalidInput, NotFound
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Binding, Claim, ClaimPhase, dump
from reconciler.resources.status import NodeStatus
from reconciler.sim.store import MemoryStore
from reconciler.testing.manifests import ManifestWorld, together, vm

GIB = 2**30
NOTHING = Supposed()


class Desk(ManifestWorld):
    """Two nodes of 4 GiB, `web` on r1; `silent`: nodes that are not heard."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.silent: set[str] = set()
        self.plans = Plans(
            self.views,
            self.clock,
            self.sync.reader,
            self.service,
            lambda node: "is silent" if node in self.silent else "",
        )

    async def begin(self) -> None:
        await self.start()
        for name in ("r1", "r2"):
            status = NodeStatus(uid="", ready=True, cpu=8, memory=4 * GIB, controllers={"libvirt": ""})
            await self.put(keys.node_status(Kind.NODE, name), dump(status))
        self.files["web.yaml"] = vm("web", memory="2Gi")
        await self.look()
        await self.run("web", "r1")

    async def run(self, name: str, node: str) -> None:
        record = self.record(name)
        assert record is not None
        uid = record.metadata.uid
        await self.put(keys.binding(name), dump(Binding(node=node, uid=uid, epoch=1, bound="")))
        claim = Claim(node=node, uid=uid, phase=ClaimPhase.RUNNING)
        await self.put(keys.claim(name), dump(claim))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    await made.begin()
    yield made
    await made.stop()


def file(content: bytes) -> ApplyInput:
    return ApplyInput(name="new.yaml", content=content)


def object_(kind: str, name: str, spec: str) -> bytes:
    return f"apiVersion: vcl/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n".encode()


async def changes(desk: Desk, *contents: bytes, **supposed: Any) -> list[tuple[str, Action, str | None]]:
    nodes: Mapping[str, frozenset[str]] = {key: frozenset(value) for key, value in supposed.items()}
    planned = await desk.plans.plan([file(content) for content in contents], Supposed(**nodes))
    return [(change.vm, change.action, change.target) for change in planned.prospect.changes]


async def test_a_cluster_at_rest_has_nothing_to_do(desk: Desk) -> None:
    assert await changes(desk) == []


async def test_a_new_manifest_is_placed_and_nothing_is_written(desk: Desk) -> None:
    revision, before = desk.cache.revision, dict(desk.files)
    assert await changes(desk, vm("db", memory="3Gi")) == [("db", Action.START, "r2")]
    assert (desk.cache.revision, desk.files) == (revision, before)


async def test_an_edit_of_a_vm_a_node_or_the_cluster_counts(desk: Desk) -> None:
    halted = vm("web", memory="2Gi", extra="  runStrategy: Halted\n")
    assert await changes(desk, halted) == [("web", Action.STOP, None)]
    assert await changes(desk, object_("Cluster", "cluster", "power: Off")) == [("web", Action.STOP, None)]
    cordon = object_("Node", "r2", "unschedulable: true")
    assert await changes(desk, together(vm("db", memory="1Gi"), cordon)) == [("db", Action.START, "r1")]


async def test_a_constraint_to_be_applied_counts(desk: Desk) -> None:
    avoid = object_(
        "PlacementConstraint", "off", "type: NodeAntiAffinity, vms: {names: [db]}, nodes: {names: [r2]}"
    )
    assert await changes(desk, together(vm("db", memory="1Gi"), avoid)) == [("db", Action.START, "r1")]


async def test_nodes_that_are_down_drained_or_silent(desk: Desk) -> None:
    assert await changes(desk, down=["r1"]) == [("web", Action.RESTART, "r2")]
    assert await changes(desk, drained=["r1"]) == [("web", Action.MOVE, "r2")]
    desk.silent.add("r2")
    planned = await desk.plans.plan((), Supposed(down=frozenset({"r1"})))
    (waiting,) = planned.prospect.waiting
    assert [(r.node, r.reason) for r in waiting.nodes] == [
        ("r1", "is supposed to be down"),
        ("r2", "is silent"),
    ]


async def test_a_node_that_there_is_not(desk: Desk) -> None:
    with pytest.raises(NotFound, match="node 'r9' not found; there are r1, r2"):
        await changes(desk, down=["r9"])


async def test_what_apply_would_refuse_is_not_planned_with(desk: Desk) -> None:
    with pytest.raises(InvalidInput, match=r"new\.yaml would be refused") as refused:
        await changes(desk, b"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: x}\nspec: {}\n")
    assert any("spec.cpu" in problem for problem in refused.value.problems)


async def test_warnings_of_the_files_are_passed_on(desk: Desk) -> None:
    apart = object_("PlacementConstraint", "x", "type: AntiAffinity, vms: {names: [web, a, b]}")
    files = [file(together(vm("a"), vm("b"), apart))]
    planned = await desk.plans.plan(files, NOTHING)
    assert "only r1 and r2 can take them" in planned.warnings[0]


async def test_the_index_of_a_plan_holds_until_something_changes(desk: Desk) -> None:
    files = [file(vm("db", memory="3Gi"))]
    index = (await desk.plans.plan(files, NOTHING)).prospect.index
    await desk.plans.require(index, files)
    with pytest.raises(ConflictError, match="not as they were when"):
        await desk.plans.require(index, [file(vm("db", memory="1Gi"))])
    desk.silent.add("r2")
    with pytest.raises(ConflictError):
        await desk.plans.require(index, files)


async def test_how_many_more_like_one_that_is_there_or_one_in_a_file(desk: Desk) -> None:
    room = await desk.plans.room(Like(vm="web"))
    assert (room.cpu, room.memory) == (1, 2 * GIB)
    assert (room.headroom.fit, room.headroom.with_reserve) == (3, 1)
    room = await desk.plans.room(Like(file=file(vm("x", memory="1Gi"))))
    assert (room.vm, room.headroom.fit) == ("x", 6)
    with pytest.raises(NotFound):
        await desk.plans.room(Like(vm="nobody"))
    with pytest.raises(InvalidInput, match="does not define one VM"):
        await desk.plans.room(Like(file=file(together(vm("x"), vm("y")))))


async def test_a_drain_is_foreseen_as_it_will_be(desk: Desk) -> None:
    found = await desk.plans.drain("r1")
    assert [(move.vm, move.target, move.way) for move in found.moves] == [("web", "r2", Way.RESTART)]
    with pytest.raises(NotFound, match="node 'r9' not found"):
        await desk.plans.drain("r9")
