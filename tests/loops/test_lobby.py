"""A daemon that is started on a fenced host: it ends what was fenced, and says when nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from reconciler.loops.lobby import Lobby, LobbyContext
from reconciler.planning.homecoming import LastRun
from reconciler.ports.transport import Endpoint, Link, Listener, Message
from reconciler.resources.codec import decode
from reconciler.resources.domains import Definition
from reconciler.resources.errors import FenceFailed
from reconciler.resources.membership import Heartbeat, Member
from reconciler.sim.controller import DummyController
from reconciler.sim.dummy_guests import Faults

LAST = LastRun(
    boot_id="boot-1",
    machine_id="m",
    cluster_uid="ours",
    session=4,
    members={name: Member(address=f"10.0.0.{n}", rank=n) for n, name in enumerate(("r1", "r2", "r3"))},
)


class Mesh:
    """Takes everything."""

    def __init__(self) -> None:
        self.peers: Mapping[str, Endpoint] = {}
        self.sent: list[tuple[str, Heartbeat]] = []

    def connect(self, peers: Mapping[str, Endpoint]) -> None:
        self.peers = peers

    def links(self) -> Mapping[str, Link]:
        return {}

    def send(self, node: str, message: Message) -> bool:
        self.sent.append((node, decode(Heartbeat, message.body)))
        return True

    def listen(self, listener: Listener) -> Callable[[], None]:
        return lambda: None

    async def run(self) -> None:
        return None


@dataclass
class Host:
    """Node r3; `listed` None: the monitors do not answer."""

    listed: bool | None = True
    processes: bool | None = False
    mesh: Mesh = field(default_factory=Mesh)
    dummy: DummyController = field(default_factory=DummyController)

    def __post_init__(self) -> None:
        self.lobby = Lobby(
            LobbyContext(
                node="r3",
                boot_id="boot-1",
                version="1.0",
                last=LAST,
                transport=self.mesh,
                controllers={"dummy": self.dummy},
                fenced=self._fenced,
                guests=lambda: self.processes,
                beat=0.5,
                number=1000,
            )
        )

    async def _fenced(self) -> bool:
        if self.listed is None:
            raise FenceFailed("the monitors do not answer")
        return self.listed

    async def guest(self, name: str, cluster: str, node: str = "r3") -> None:
        document = {
            "cluster_uid": cluster,
            "node": node,
            "generation": 1,
            "vcpus": 1,
            "memory": 1,
            "machine": "dummy",
            "agent": False,
        }
        definition = Definition(
            name=name, uid=f"uid-{name}", document=json.dumps(document), machine="dummy", writable=()
        )
        await self.dummy.lifecycle.create(definition, timeout=1.0)

    async def names(self) -> list[str]:
        return [found.name for found in await self.dummy.lifecycle.inventory(timeout=1.0)]


async def test_the_guests_of_a_fenced_host_are_ended_and_then_it_says_that_nothing_is_left() -> None:
    host = Host()
    await host.guest("web", "ours")
    await host.lobby.step()
    assert (host.lobby.empty, await host.names()) == (False, [])
    await host.lobby.step()
    assert host.lobby.empty


@pytest.mark.parametrize("listed", [False, None])
async def test_nothing_is_ended_and_nothing_said_unless_the_host_is_surely_fenced(
    listed: bool | None,
) -> None:
    host = Host(listed=listed)
    await host.guest("web", "ours")
    await host.lobby.step()
    assert (host.lobby.empty, await host.names()) == (False, ["web"])


@pytest.mark.parametrize(("cluster", "node"), [("other", "r3"), ("", "")])
async def test_guests_of_others_are_left_alone(cluster: str, node: str) -> None:
    host = Host()
    await host.guest("theirs", cluster, node)
    await host.lobby.step()
    assert (host.lobby.empty, await host.names()) == (True, ["theirs"])


async def test_a_guest_with_another_nodes_mark_is_neither_ended_nor_overlooked() -> None:
    host = Host()
    await host.guest("odd", "ours", "r1")
    await host.lobby.step()
    assert (host.lobby.empty, await host.names()) == (False, ["odd"])


@pytest.mark.parametrize("processes", [True, None])
async def test_a_process_that_no_controller_knows_of_keeps_the_host_out(processes: bool | None) -> None:
    host = Host(processes=processes)
    await host.lobby.step()
    assert not host.lobby.empty


async def test_a_controller_that_does_not_answer_makes_it_unknown_again() -> None:
    host = Host()
    await host.lobby.step()
    assert host.lobby.empty
    host.dummy.hypervisor.faults = Faults(unavailable=("inventory",))
    await host.lobby.step()
    assert not host.lobby.empty


async def test_heartbeats_go_to_all_others_in_the_last_sessions_name_and_each_is_later() -> None:
    host = Host()
    await host.lobby.step()
    host.lobby.beat()
    host.lobby.beat()
    assert sorted(host.mesh.peers) == ["r1", "r2"]
    assert host.mesh.peers["r2"] == Endpoint(address="10.0.0.1", port=7480)
    said = [heartbeat for node, heartbeat in host.mesh.sent if node == "r1"]
    assert [(h.node, h.session, h.boot_id, h.sequence) for h in said] == [
        ("r3", 4, "boot-1", 1001),
        ("r3", 4, "boot-1", 1002),
    ]
    assert all(h.empty and not h.eligible and not h.health.store for h in said)
