"""Schedules of events that break naive agents, in memory: what changes under a running VM, what vanishes
from under a claim, and a daemon that dies between two steps of a start that must not be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.resources import keys
from reconciler.resources.domains import PauseReason
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Claim, Intent, dump
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import Faults, GuestFaults
from reconciler.sim.dummy_hypervisor import DummyHypervisor
from reconciler.sim.killpoints import KillController, Killpoint, KillStore
from reconciler.sim.node import SimNode
from reconciler.sim.store import MemoryStore

SMALL = {"cpu": {"cores": 1}, "memory": "64Mi", "controller": "dummy", "terminationGracePeriodSeconds": 1}
MOST = 40
"""More steps than a start has; the test fails if they are not all reached."""


class World:
    """Two hypervisors and a store that outlive the daemons on them."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.first = DummyController()
        self.second = DummyController()
        self.second.name = "other"

    @property
    def hypervisor(self) -> DummyHypervisor:
        return self.first.hypervisor

    def node(self, point: Killpoint | None = None) -> SimNode:
        point = point or Killpoint()
        both = {each.name: KillController(each, point) for each in (self.first, self.second)}
        store = KillStore(self.store, point)
        return SimNode(store, clock=SystemClock(), ids=SystemIds(), controllers=both)

    def copies(self) -> list[str]:
        """Where a guest called web lives."""
        return [
            controller.name
            for controller in (self.first, self.second)
            for guest in controller.hypervisor.alive()
            if guest.uid and guest.made_by_vcl
        ]

    async def direct(self, node: SimNode, name: str, spec: dict[str, Any]) -> None:
        """Put a spec without going through the killpoint."""
        outside = SimNode(self.store, clock=SystemClock(), ids=SystemIds(), controllers={})
        outside.views, outside.cache = node.views, node.cache
        await outside.apply(name, spec)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def node(world: World) -> AsyncIterator[SimNode]:
    made = world.node()
    await made.start()
    yield made
    await made.kill()


async def running(node: SimNode, **changes: Any) -> Claim:
    await node.apply("web", SMALL | changes)
    await node.until(lambda: node.phase("web") == "Running")
    claim = node.views.claim("web")
    assert claim is not None
    return claim


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.slow
async def test_a_start_that_was_asked_for_is_not_lost_with_the_daemon(after: bool) -> None:
    """Only `vcl start` starts a Manual VM: the daemon dies at each step of that start."""
    for step in range(1, MOST):
        world = World()
        point = Killpoint(after=after)
        node = world.node(point)
        await node.start()
        await world.direct(node, "web", SMALL | {"runStrategy": "Manual"})
        await node.until(lambda node=node: node.views.exists(keys.spec(Kind.VIRTUAL_MACHINE, "web")))
        await asyncio.sleep(0.1)
        point.at = point.count + step
        asked = Intent(run="Start", start="1", run_strategy="Manual")
        outside = SimNode(world.store, clock=SystemClock(), ids=SystemIds(), controllers={})
        await outside.intend("web", asked)
        async with asyncio.timeout(20.0):
            while not point.reached.is_set() and node.phase("web") != "Running":
                await asyncio.sleep(0.005)
        await node.kill()
        assert len(world.copies()) <= 1
        if not point.reached.is_set():
            return
        second = world.node()
        await second.start()
        await second.until(lambda second=second: second.phase("web") == "Running")
        assert world.copies() == ["dummy"], point.what
        await second.kill()
    raise AssertionError("the start never came to its end")


async def test_a_vm_that_changes_its_controller_stays_where_it_runs_until_its_restart(
    world: World, node: SimNode
) -> None:
    before = await running(node)
    await node.apply("web", SMALL | {"controller": "other"})
    await node.until(lambda: "spec.controller changed" in (status := node.status("web")).message and status)
    assert node.views.claim("web") == before
    assert world.copies() == ["dummy"]
    await node.intend("web", Intent(restart="1"))
    await node.until(lambda: world.copies() == ["other"])
    await node.until(lambda: node.phase("web") == "Running")
    claim = node.views.claim("web")
    assert claim is not None
    assert claim.controller == "other"


async def test_a_vm_whose_spec_cannot_be_read_keeps_its_claim_when_its_hypervisor_is_silent(
    world: World,
) -> None:
    """A daemon that knows several controllers must not ask the wrong one for the proof of an end."""
    first = world.node()
    await first.start()
    await first.apply("web", SMALL | {"controller": "other"})
    await first.until(lambda: first.phase("web") == "Running")
    before = first.views.claim("web")
    await first.kill()
    record = await world.store.get([keys.spec(Kind.VIRTUAL_MACHINE, "web")])
    broken = record[keys.spec(Kind.VIRTUAL_MACHINE, "web")].value.replace(b'"cores":1', b'"coers":1')
    world.second.hypervisor.faults = Faults(unavailable=("inventory", "observe"))
    second = world.node()
    await second.start()
    await second.put(keys.spec(Kind.VIRTUAL_MACHINE, "web"), broken)
    await second.agent.resync()
    await asyncio.sleep(0.3)
    assert second.views.claim("web") == before
    assert world.copies() == ["other"]
    await second.kill()


async def test_what_was_claimed_is_what_must_be_proven_gone(world: World, node: SimNode) -> None:
    """The spec has become another VM's; the guest of the claim hides under another name."""
    before = await running(node)
    guest = world.hypervisor.get("web")
    assert guest is not None
    await node.put(keys.spec(Kind.VIRTUAL_MACHINE, "web"), None)
    world.hypervisor.end("web")
    world.hypervisor.put(replace(guest, name="renamed"), "renamed")
    await node.until(lambda: not node.views.exists(keys.spec(Kind.VIRTUAL_MACHINE, "web")))
    await node.apply("web", SMALL)
    await node.agent.resync()
    await asyncio.sleep(0.3)
    assert node.views.claim("web") == before
    assert world.copies() == ["dummy"]
    world.hypervisor.end("renamed")
    await node.agent.resync()
    await node.until(lambda: (node.views.claim("web") or before).uid != before.uid)


async def test_a_guest_that_got_new_clients_has_them_recorded(world: World, node: SimNode) -> None:
    before = await running(node)
    guest = world.hypervisor.get("web")
    assert guest is not None
    world.hypervisor.put(replace(guest, incarnation="by-hand"), "started")
    await node.until(lambda: (node.views.claim("web") or before).clients == ("dummy:by-hand",))
    claim = node.views.claim("web")
    assert claim == replace(before, clients=("dummy:by-hand",))


async def test_a_pause_that_was_undone_leaves_no_mark_behind(world: World, node: SimNode) -> None:
    """The daemon died between resuming the guest and writing it down: a later pause of somebody else's
    must not be taken for vcl's own."""
    before = await running(node)
    await node.put(keys.claim("web"), dump(replace(before, paused=True)))
    await node.until(lambda: ("web", "Resumed", "the guest goes on") in node.events)
    assert node.views.claim("web") == before
    world.hypervisor.pause("web", PauseReason.USER)
    await node.until(lambda: node.phase("web") == "Paused")
    await node.agent.resync()
    await asyncio.sleep(0.2)
    status = node.status("web")
    assert status is not None
    assert "paused outside vcl" in status.message


async def test_a_guest_of_an_earlier_vm_of_the_name_is_not_ended_by_the_record_of_a_later_one(
    world: World, node: SimNode
) -> None:
    await running(node)
    await node.put(keys.claim("web"), None)
    await node.put(keys.spec(Kind.VIRTUAL_MACHINE, "web"), None)
    await node.until(lambda: not node.views.exists(keys.spec(Kind.VIRTUAL_MACHINE, "web")))
    await node.apply("web", SMALL)
    await node.until(lambda: node.views.spec_record(Kind.VIRTUAL_MACHINE, "web") is not None)
    record = node.views.spec_record(Kind.VIRTUAL_MACHINE, "web")
    assert record is not None
    await node.put(keys.claim("web"), dump(Claim(uid=record.metadata.uid)))
    await node.until(lambda: "is left alone" in getattr(node.status("web"), "message", ""))
    assert world.copies() == ["dummy"]
    assert node.events == [event for event in node.events if event[1] != "Killing"]


@pytest.mark.slow
async def test_a_corrected_spec_is_tried_at_once(world: World, node: SimNode) -> None:
    """Nobody waits for the end of a back-off after mending the manifest."""
    world.hypervisor.faults = Faults(guests={"web": GuestFaults(start_failures=10**6)})
    await node.apply("web", SMALL)
    await node.until(lambda: (status := node.status("web")) is not None and status.failures.count >= 3)
    world.hypervisor.faults = Faults()
    await node.apply("web", SMALL | {"memory": "65Mi"})
    await node.until(lambda: node.phase("web") == "Running", seconds=1.5)


async def test_images_in_use_are_a_condition_only_until_the_vm_runs(world: World, node: SimNode) -> None:
    taken = GuestFaults(start_failures=1, failure_reason="ImageInUse", failure_message="web.data is locked")
    world.hypervisor.faults = Faults(guests={"web": taken})
    await node.apply("web", SMALL)

    def conditions() -> set[str]:
        status = node.status("web")
        return {c.type.value for c in status.conditions} if status is not None else set()

    await node.until(lambda: "ImageInUse" in conditions())
    await node.until(lambda: node.phase("web") == "Running")
    assert "ImageInUse" not in conditions()
    assert "FailedOnNode" in conditions()
