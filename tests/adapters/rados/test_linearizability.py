"""Histories of several processes, recorded while everything fails, have an order that explains them."""

from __future__ import annotations

import asyncio
import base64
import pickle
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reconciler.adapters.rados import Place, RadosStore
from reconciler.resources.transactions import Committed
from reconciler.testing.linearizability import Operation, TxnCall, explain

pytestmark = [pytest.mark.ceph, pytest.mark.slow]

CLIENTS = 3
FAULTS = 8

Start = Callable[..., Awaitable[Any]]


class Clients:
    """Programs that record what they do; those that die are replaced."""

    def __init__(self, start: Start, seed: int) -> None:
        self._start = start
        self._seed = seed
        self._all: list[Any] = []
        self.alive: list[Any] = []
        self.addresses: dict[Any, str] = {}

    async def add(self) -> None:
        client = await self._start("history", f"{self._seed}.{len(self._all)}")
        self._all.append(client)
        self.alive.append(client)
        self.addresses[client] = (await client.heard()).strip()

    async def kill(self, client: Any) -> None:
        self.alive.remove(client)
        client.signal(signal.SIGKILL)
        await client.end()

    async def end(self) -> None:
        assert [await client.end() for client in self.alive] == [0] * len(self.alive)

    def history(self) -> list[Operation]:
        """Every call of every client, without those that certainly did not happen."""
        calls: dict[str, Operation | None] = {}
        for client in self._all:
            for line in client.lines:
                if line.startswith("call "):
                    _, id, data = line.split()
                    calls[id] = pickle.loads(base64.b64decode(data))
        return [call for call in calls.values() if call is not None]


async def hurt(clients: Clients, ceph: Any, osds: tuple[int, ...], dice: random.Random) -> None:
    """One fault, and its end."""
    victim = dice.choice(clients.alive)
    seconds = 0.1 + dice.random() * 0.7
    match dice.choice(["kill", "pause", "pause", "stall", "stall", "stall", "fence"]):
        case "kill":
            await clients.kill(victim)
            await clients.add()
        case "pause":
            victim.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            victim.signal(signal.SIGCONT)
        case "stall":
            osd = dice.choice([osds[0], osds[0], osds[1]])
            ceph.freeze(osd)
            await asyncio.sleep(seconds * 2)
            ceph.thaw(osd)
        case _:
            await asyncio.to_thread(
                ceph.command, "osd", "blocklist", "add", clients.addresses[victim], "3600"
            )
            await asyncio.sleep(0.2)
            await clients.kill(victim)
            await clients.add()


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_clients_saw_through_kills_pauses_stalls_and_fences_has_an_order(
    place: Place, ceph: Any, osds: tuple[int, ...], program: Start, seed: int
) -> None:
    dice = random.Random(seed)
    clients = Clients(program, seed)
    for _ in range(CLIENTS):
        await clients.add()
    for _ in range(FAULTS):
        await asyncio.sleep(0.1 + dice.random() * 0.2)
        await hurt(clients, ceph, osds, dice)
    await clients.end()
    history = clients.history()
    store = await RadosStore.open(place)
    final = await store.list("")
    await store.close()
    commits = [each.call for each in history if isinstance(each.call, TxnCall)]
    known = {call.result.revision for call in commits if isinstance(call.result, Committed)}
    assert len(known) > 20
    assert max(known) <= final.revision
    assert await asyncio.to_thread(explain, history) == ""
