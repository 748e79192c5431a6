"""A fenced node's way back, one look after the other."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.membership import Bearing
from reconciler.loops.rejoin import Rejoin, RejoinContext
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.resources import keys
from reconciler.resources.fencing import FenceCause, FenceRecord, ReturnRecord
from reconciler.resources.records import Session, dump, load
from reconciler.resources.transactions import Committed, Put, Txn
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryCluster, MemoryStore

FENCE = FenceRecord(
    id="id",
    node="r3",
    incident="r3-5",
    cause=FenceCause.SILENT,
    reason="silent",
    epoch=1,
    session=5,
    boot_id="boot-1",
    machine_id="m",
    began="",
)


@dataclass
class Host:
    """Node r3, whose daemon runs in session 4 (unless said otherwise)."""

    session: int = 4
    guests: int = 1
    anew: int = 0
    store: MemoryStore = field(default_factory=lambda: MemoryStore(MemoryCluster()))

    async def begin(self) -> Rejoin:
        await self.put(keys.SCHEMA, b"{}")
        await self.write_session(self.session)
        self.cache = StoreCache(self.store)
        await self.cache.step(0.0)
        self.bearing = Bearing()
        writer = Writer(self.store, self.cache, SeededIds(1))
        for key in (keys.SCHEMA, keys.session("r3")):
            writer.guard(key, self.cache.revision_of(key))
        self.rejoin = Rejoin(
            RejoinContext(
                node="r3",
                session=self.session,
                boot_id="boot-1",
                machine_id="m",
                clock=VirtualClock(),
                views=Views(self.cache),
                writer=writer,
                bearing=self.bearing,
                empty=self.empty,
                begin_anew=self.begin_anew,
            )
        )
        return self.rejoin

    async def empty(self) -> bool:
        return self.guests == 0

    def begin_anew(self) -> None:
        self.anew += 1

    async def put(self, key: str, value: bytes) -> None:
        done = await self.store.txn(Txn(id=f"{key}{value!r}", puts=(Put(key=key, value=value),)))
        assert isinstance(done, Committed)

    async def write_session(self, number: int) -> None:
        record = Session(session=number, boot_id="boot-1", machine_id="m", started="")
        await self.put(keys.session("r3"), dump(record))

    async def look(self) -> bool:
        while self.cache.revision < (await self.store.list("")).revision:
            await self.cache.step(0.1)
        return await self.rejoin.step()


async def test_a_node_that_is_not_fenced_does_and_says_nothing() -> None:
    host = Host(guests=0)
    await host.begin()
    assert not await host.look()
    assert not host.bearing.empty
    assert not host.anew


async def test_a_session_that_a_fence_has_ended_is_followed_by_another_only_when_nothing_is_left() -> None:
    host = Host()
    await host.begin()
    await host.write_session(5)
    await host.put(keys.fence("r3"), dump(FENCE))
    assert await host.look()
    assert (host.anew, host.bearing.empty) == (0, False)
    host.guests = 0
    assert await host.look()
    assert (host.anew, host.bearing.empty) == (1, True)


@pytest.mark.slow
async def test_a_session_that_began_after_the_fence_shows_that_nothing_is_left_and_waits_for_its_end() -> (
    None
):
    host = Host(session=6)
    await host.begin()
    await host.put(keys.fence("r3"), dump(FENCE))
    assert await host.look()
    assert keys.returned("r3") not in await host.store.get([keys.returned("r3")])
    host.guests = 0
    assert await host.look()
    shown = (await host.store.get([keys.returned("r3")]))[keys.returned("r3")]
    assert load(ReturnRecord, shown.value).session == 6
    assert await host.look()
    again = (await host.store.get([keys.returned("r3")]))[keys.returned("r3")]
    assert again.revision == shown.revision
    assert not host.anew


async def test_a_return_is_not_shown_in_a_session_that_is_over_meanwhile() -> None:
    host = Host(session=6, guests=0)
    await host.begin()
    await host.put(keys.fence("r3"), dump(FENCE))
    while host.cache.revision < (await host.store.list("")).revision:
        await host.cache.step(0.1)
    await host.write_session(7)
    await host.rejoin.step()
    assert keys.returned("r3") not in await host.store.get([keys.returned("r3")])


@pytest.mark.parametrize("shown", [1, 3])
async def test_a_store_that_shows_an_older_session_ends_nothing(shown: int) -> None:
    host = Host(guests=0)
    await host.begin()
    await host.write_session(shown)
    assert not await host.look()
    assert not host.anew
