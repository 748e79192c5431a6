"""The agent and the master on a dummy hypervisor: from a spec in the store to a running VM and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.ports.controller import ControllerContext
from reconciler.resources import keys
from reconciler.resources.records import Intent
from reconciler.sim.controller import create
from reconciler.sim.node import SimNode

SMALL = {"cpu": {"cores": 1}, "memory": "64Mi", "controller": "dummy"}


def node_on(store: SqliteStore, state: Path, **faults: object) -> SimNode:
    context = ControllerContext(
        node="r1", cluster_uid="", state_dir=state, run_dir=state, options={"faults": faults}
    )
    return SimNode(store, clock=SystemClock(), ids=SystemIds(), controllers={"dummy": create(context)})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "store.db")
    yield opened
    await opened.close()


@pytest.fixture
async def node(store: SqliteStore, tmp_path: Path) -> AsyncIterator[SimNode]:
    made = node_on(store, tmp_path)
    await made.start()
    yield made
    await made.kill()


async def test_a_vm_runs_and_its_claim_names_its_clients(node: SimNode) -> None:
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    claim = node.views.claim("web")
    assert claim is not None
    assert claim.node == "r1"
    assert claim.phase == "Running"


async def test_stop_releases_and_start_runs_it_again(node: SimNode) -> None:
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    await node.intend("web", Intent(run="Stop"))
    await node.until(lambda: node.phase("web") == "Stopped")
    claim = node.views.claim("web")
    assert claim is not None
    assert claim.node == ""
    await node.intend("web", Intent(run="Start", start="1"))
    await node.until(lambda: node.phase("web") == "Running")


async def test_a_deleted_vm_leaves_nothing_but_its_tombstone(node: SimNode) -> None:
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Running")
    await node.delete("web")
    await node.until(lambda: node.cache.get("tombstone/VirtualMachine/web"))
    left = [item.key for item in node.cache.prefix("") if "web" in item.key]
    assert left == ["tombstone/VirtualMachine/web"]


async def test_a_daemon_killed_while_it_runs_finds_the_same_guest_again(
    store: SqliteStore, tmp_path: Path
) -> None:
    first = node_on(store, tmp_path)
    await first.start()
    await first.apply("web", SMALL)
    await first.until(lambda: first.phase("web") == "Running")
    before = first.cache.revision_of(keys.claim("web"))
    await first.kill()
    second = node_on(store, tmp_path)
    await second.start()
    await asyncio.sleep(0.3)
    assert second.phase("web") == "Running"
    assert second.cache.revision_of(keys.claim("web")) == before
    await second.kill()


async def test_a_start_that_fails_is_tried_again_and_says_why(store: SqliteStore, tmp_path: Path) -> None:
    node = node_on(store, tmp_path, web={"startFailures": 1, "failureMessage": "no such bridge"})
    await node.start()
    await node.apply("web", SMALL)
    await node.until(lambda: node.phase("web") == "Failed")
    status = node.status("web")
    assert status is not None
    assert "no such bridge" in status.message
    await node.until(lambda: node.phase("web") == "Running")
    await node.kill()
