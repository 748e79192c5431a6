"""What the node reports, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Intent
from reconciler.resources.status import ConditionType, NodeStatus
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import Faults, GuestFaults
from reconciler.sim.node import SimNode
from reconciler.sim.store import MemoryStore

SMALL = {"cpu": {"cores": 1}, "memory": "64Mi", "controller": "dummy", "terminationGracePeriodSeconds": 1}


@pytest.fixture
async def node() -> AsyncIterator[SimNode]:
    controller = DummyController()
    made = SimNode(MemoryStore(), clock=SystemClock(), ids=SystemIds(), controllers={"dummy": controller})
    made.hypervisor = controller.hypervisor  # type: ignore[attr-defined]
    await made.start()
    yield made
    await made.kill()


def report(node: SimNode) -> NodeStatus:
    status = node.views.record(keys.node_status(Kind.NODE, "r1"), NodeStatus)
    assert status is not None
    return status


async def test_a_domain_that_vcl_did_not_make_is_reported_and_left_alone(node: SimNode) -> None:
    node.hypervisor.foreign("handmade", "11111111-2222-3333-4444-555555555555")
    await node.agent.resync()
    assert [domain.name for domain in node.agent.foreign] == ["handmade"]
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    assert [domain.name for domain in node.agent.foreign] == ["handmade"]


async def test_a_vm_whose_name_is_taken_waits_and_says_so(node: SimNode) -> None:
    node.hypervisor.foreign("web", "11111111-2222-3333-4444-555555555555")
    await node.apply("web", SMALL)
    await node.until(lambda: "did not make" in (node.status("web") or _Nothing).message)
    assert node.views.claim("web") is None


class _Nothing:
    message = ""
    ip_addresses = ()


async def test_a_crashed_guest_comes_back_and_the_restart_is_counted(node: SimNode) -> None:
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    node.hypervisor.end("web")
    await node.until(lambda: (node.status("web") or _Nothing).message.startswith("its QEMU process died"))
    await node.until(lambda: node.phase("web") == "Running")
    status = node.status("web")
    assert status is not None
    assert status.restarts == 1
    assert status.failures.count == 1


async def test_what_an_earlier_run_of_a_guest_told_is_not_said_of_the_next_one(node: SimNode) -> None:
    await node.apply("web", SMALL)
    await node.until(lambda: bool((node.status("web") or _Nothing).ip_addresses))
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    node.hypervisor.faults = Faults(unavailable=("info",))
    await node.intend("web", Intent(run="Start"))
    await node.until(lambda: node.phase("web") == "Running")
    status = node.status("web")
    assert status is not None
    assert status.ip_addresses == ()
    assert ConditionType.AGENT_CONNECTED not in {condition.type for condition in status.conditions}


LIVELY = {**SMALL, "liveness": {"periodSeconds": 1, "timeoutSeconds": 1, "failureThreshold": 1}}
HANGS = Faults(guests={"web": GuestFaults(hangs_after=2.5)})


@pytest.mark.slow
async def test_a_guest_whose_agent_falls_silent_is_restarted_and_remembered_as_hung(node: SimNode) -> None:
    node.hypervisor.faults = HANGS
    await node.apply("web", LIVELY)
    await node.until(lambda: (node.status("web") or _Nothing).message.startswith("the guest hangs"))
    node.hypervisor.faults = Faults()
    await node.until(lambda: node.phase("web") == "Running")
    status = node.status("web")
    assert status is not None
    assert (status.failures.reason, status.failures.count, status.restarts) == ("GuestHung", 1, 1)


@pytest.mark.slow
async def test_hangs_are_looked_for_only_when_asked_and_never_in_a_paused_guest_or_a_silent_hypervisor(
    node: SimNode,
) -> None:
    for name, spec in {"web": SMALL, "paused": LIVELY, "unknown": LIVELY}.items():
        await node.apply(name, spec)
        await node.until(lambda name=name: node.phase(name) == "Running")
    await node.intend("paused", Intent(paused=True))
    await node.until(lambda: node.phase("paused") == "Paused")
    silent = GuestFaults(hangs_after=0.0)
    node.hypervisor.faults = Faults(guests={"web": silent, "paused": silent}, unavailable=("ping",))
    await asyncio.sleep(3.0)
    for name in ("web", "paused", "unknown"):
        status = node.status(name)
        assert status is not None
        assert (status.restarts, status.failures.count) == (0, 0), name


async def test_a_guest_that_refuses_to_stop_is_ended_after_its_grace_period(node: SimNode) -> None:
    node.hypervisor.faults = Faults(guests={"web": GuestFaults(refuses_shutdown=True)})
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    assert ("web", "Killing", "the guest did not power off within 1 s") in node.events


async def test_a_hypervisor_that_does_not_answer_is_unknown_not_stopped(node: SimNode) -> None:
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    before = node.cache.revision_of(keys.claim("web"))
    node.hypervisor.faults = Faults(unavailable=("*",))
    await node.agent.resync()
    await node.until(lambda: node.phase("web") == "Unknown")
    assert node.cache.revision_of(keys.claim("web")) == before
    node.hypervisor.faults = Faults()
    await node.until(lambda: node.phase("web") == "Running")
    assert node.cache.revision_of(keys.claim("web")) == before


@pytest.mark.slow
async def test_a_creation_that_arrives_late_is_ended_and_only_one_copy_runs(node: SimNode) -> None:
    node.hypervisor.faults = Faults(guests={"web": GuestFaults(start_delay=1.5)})
    await node.apply("web", SMALL)
    await node.until(lambda: any(reason == "Killing" for _, reason, _ in node.events))
    node.hypervisor.faults = Faults()
    await node.until(lambda: node.phase("web") == "Running")
    assert len(list(node.hypervisor.alive())) == 1


async def test_one_vm_that_fails_does_not_hold_up_the_others(node: SimNode) -> None:
    node.hypervisor.faults = Faults(guests={"bad": GuestFaults(start_failures=1000)})
    await node.apply("bad", SMALL)
    for number in range(20):
        await node.apply(f"vm{number}", SMALL)
    await node.until(lambda: all(node.phase(f"vm{number}") == "Running" for number in range(20)))
    await node.until(lambda: node.phase("bad") == "Failed")


async def test_a_spec_change_asks_for_a_restart_by_field(node: SimNode) -> None:
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    await node.apply("web", {**SMALL, "memory": "128Mi"})
    await node.until(lambda: "spec.memory" in (node.status("web") or _Nothing).message)
    await node.intend("web", Intent(restart="once"))
    await node.until(
        lambda: (node.status("web") or _Nothing).message == "" and node.phase("web") == "Running"
    )


async def test_a_vm_too_large_for_the_node_says_what_is_short(node: SimNode) -> None:
    await node.apply("huge", {**SMALL, "memory": "9000Gi"})
    key = keys.master_status(Kind.VIRTUAL_MACHINE, "huge")
    await node.until(lambda: b"short" in (node.cache.get(key).value if node.cache.get(key) else b""))
    assert node.views.binding("huge") is None


async def test_the_node_says_what_it_has_and_that_it_is_ready(node: SimNode) -> None:
    await node.until(lambda: node.cache.get(keys.node_status(Kind.NODE, "r1")))
    assert report(node).ready
    assert report(node).controllers == {"dummy": "Ready"}
    assert report(node).cpu > 0
