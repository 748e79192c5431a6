"""Verbs and what people see of them, on a whole node with the dummy hypervisor: each is seen to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.loops.intents import Intents
from reconciler.loops.objects import Objects
from reconciler.planning.intents import Verb
from reconciler.ports.controller import ControllerContext
from reconciler.resources.kinds import Kind
from reconciler.resources.virtualmachine import RunStrategy
from reconciler.sim.controller import DummyController, create
from reconciler.sim.dummy_lifecycle import DummyLifecycle
from reconciler.sim.node import SimNode
from reconciler.sim.store import MemoryStore

SMALL = {"cpu": {"cores": 1}, "memory": "64Mi", "controller": "dummy"}


class Seen:
    """A node, its verbs, and what the API would show."""

    def __init__(self, node: SimNode, dummy: DummyController) -> None:
        self.node = node
        self.dummy = dummy
        self.objects = Objects(node.cache)
        self.intents = Intents(node.views, node.writer, SystemClock(), SystemIds())

    def status(self, name: str = "web") -> dict[str, Any]:
        view = self.objects.find(Kind.VIRTUAL_MACHINE, name)
        found: dict[str, Any] = view.object["status"] if view else {}
        return found

    def pending(self) -> str:
        """What RestartRequired lists; empty when nothing waits."""
        conditions = self.status().get("conditions", ())
        found = [each for each in conditions if (each["type"], each["status"]) == ("RestartRequired", "True")]
        return str(found[0]["message"]) if found else ""

    async def becomes(self, phase: str) -> None:
        await self.node.until(lambda: self.status().get("phase") == phase, 10.0)

    async def ask(self, verb: Verb, *, force: bool = False) -> None:
        await self.intents.apply(verb, "web", force=force)


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Seen]:
    context = ControllerContext(node="r1", cluster_uid="", state_dir=tmp_path, run_dir=tmp_path)
    dummy = create(context)
    assert isinstance(dummy, DummyController)
    controllers = {"dummy": dummy}
    node = SimNode(MemoryStore(), clock=SystemClock(), ids=SystemIds(), controllers=controllers)
    await node.start()
    yield Seen(node, dummy)
    await node.kill()


@pytest.mark.parametrize("strategy", [RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE])
async def test_stop_and_start(seen: Seen, strategy: RunStrategy) -> None:
    await seen.node.apply("web", {**SMALL, "runStrategy": strategy.value})
    await seen.becomes("Running")
    assert seen.status()["ready"] is True
    await seen.ask(Verb.STOP)
    await seen.becomes("Stopped")
    assert seen.status()["node"] is None
    await seen.ask(Verb.START)
    await seen.becomes("Running")
    assert seen.status()["node"] == "r1"


async def test_a_manual_vm_runs_once_for_each_start(seen: Seen) -> None:
    await seen.node.apply("web", {**SMALL, "runStrategy": "Manual"})
    await seen.becomes("Stopped")
    assert "vcl start web" in seen.status()["message"]
    await seen.ask(Verb.START)
    await seen.becomes("Running")


@pytest.mark.parametrize("strategy", [RunStrategy.ALWAYS, RunStrategy.RERUN_ON_FAILURE])
@pytest.mark.parametrize("force", [False, True])
async def test_restart_is_a_new_run(seen: Seen, strategy: RunStrategy, force: bool) -> None:
    await seen.node.apply("web", {**SMALL, "runStrategy": strategy.value})
    await seen.becomes("Running")
    before = seen.status()["claim"]["claimed"], seen.node.views.claim("web")
    await seen.ask(Verb.RESTART, force=force)
    await seen.node.until(
        lambda: "restart" not in seen.status().get("intent", {}) and seen.status()["phase"] == "Running", 10.0
    )
    after = seen.node.views.claim("web")
    assert after is not None
    assert before[1] is not None
    assert after.restart is not None
    assert after.clients != before[1].clients


async def test_what_waits_for_a_restart_is_listed_until_a_restart_applies_it(seen: Seen) -> None:
    await seen.node.apply("web", SMALL)
    await seen.becomes("Running")
    await seen.node.apply("web", {**SMALL, "cpu": {"cores": 2}, "memory": "128Mi"})
    await seen.node.until(lambda: seen.pending() == "spec.cpu.cores, spec.memory", 10.0)
    assert seen.status()["message"] == (
        "spec.cpu.cores waits for a restart: it was started with room for 1 vCPUs; "
        "spec.memory waits for a restart: it was started with room for 64 MiB"
    )
    await seen.ask(Verb.RESTART)
    await seen.node.until(lambda: seen.status().get("phase") == "Running" and not seen.pending(), 10.0)
    assert "restart" not in seen.status().get("message", "")


async def test_a_reset_leaves_the_run_as_it_is(seen: Seen) -> None:
    await seen.node.apply("web", SMALL)
    await seen.becomes("Running")
    before = seen.node.views.claim("web")
    await seen.ask(Verb.RESET)
    await seen.node.until(lambda: "reset" in seen.status().get("claim", {}), 10.0)
    after = seen.node.views.claim("web")
    assert before is not None
    assert after == replace(before, reset=seen.node.views.intent("web").reset)
    assert "intent" not in seen.status()
    assert seen.status()["phase"] == "Running"


class Buttonless(DummyLifecycle):
    """As of a controller without a reset button."""

    reset = None  # type: ignore[assignment]


async def test_a_controller_without_a_reset_button_says_so_once(seen: Seen) -> None:
    seen.dummy.lifecycle = Buttonless(seen.dummy.hypervisor)
    await seen.node.apply("web", SMALL)
    await seen.becomes("Running")
    await seen.ask(Verb.RESET)
    await seen.node.until(lambda: "reset" in seen.status().get("claim", {}), 10.0)
    assert "intent" not in seen.status()
    assert seen.status()["phase"] == "Running"


async def test_pause_and_resume(seen: Seen) -> None:
    await seen.node.apply("web", SMALL)
    await seen.becomes("Running")
    await seen.ask(Verb.PAUSE)
    await seen.becomes("Paused")
    assert "vcl resume web" in seen.status()["message"]
    await seen.ask(Verb.RESUME)
    await seen.becomes("Running")
    assert "intent" not in seen.status()


async def test_the_node_and_its_room_are_seen_without_a_manifest(seen: Seen) -> None:
    def status() -> dict[str, Any]:
        return dict(seen.objects.get(Kind.NODE, "r1").object["status"])

    await seen.node.until(lambda: status()["roles"] == ["master"])
    await seen.node.until(lambda: status()["ready"])
    assert seen.objects.get(Kind.CLUSTER, "cluster").object["status"]["power"] == "On"
