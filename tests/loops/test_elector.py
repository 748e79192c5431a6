"""A node becomes master, stays it and stops being it, on a store that it shares with others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.elector import Elector, ElectorContext
from reconciler.loops.membership import Membership, MembershipContext
from reconciler.loops.session import Entry, HostIdentity, begin
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer, conflicts
from reconciler.planning.timers import Timers
from reconciler.ports.leases import Leases
from reconciler.resources import keys
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.membership import NodeHealth, NodeLease
from reconciler.resources.records import Epoch, dump, load
from reconciler.resources.transactions import Committed, Put, Txn
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryCluster, MemoryStore, TxnFault, touching


class SharedLeases:
    """What the nodes of a test renew; `order` says what was written when, beside the epochs."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.down = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None

    async def renew(self, node: str, value: bytes, *, timeout: float) -> None:
        if self.down:
            raise StoreUnavailable("no answer")
        if self.meanwhile is not None:
            await self.meanwhile()
        self.values[node] = value

    async def read(self, *, timeout: float) -> Mapping[str, bytes]:
        return dict(self.values)

    async def close(self) -> None:
        return None


class Candidate:
    """One node that is alone in its cluster, as far as it knows."""

    def __init__(self, cluster: MemoryCluster, leases: Leases | None = None, seed: int = 0) -> None:
        self.ids = SeededIds(seed)
        self.store = MemoryStore(cluster)
        self.clock = VirtualClock()
        self.leases = leases
        self.problems: list[str] = []
        self.epochs: list[int] = []
        self.events: list[str] = []
        self.fails = False

    async def start(self) -> None:
        host = HostIdentity(node="r1", boot_id="b", machine_id="m")
        begun = await begin(self.store, Entry(host=host), self.clock, self.ids)
        self.cache = StoreCache(self.store)
        await self.cache.step(0.0)
        self.writer = Writer(self.store, self.cache, self.ids)
        self.writer.guard(keys.SCHEMA, begun.schema_revision)
        self.writer.guard(keys.session("r1"), begun.session_revision)
        self.following = asyncio.create_task(self._follow())
        views, timers = Views(self.cache), Timers()
        self.membership = Membership(
            MembershipContext(
                node="r1",
                boot_id="b",
                session=begun.session,
                version="",
                schemas=(1, 1),
                clock=self.clock,
                views=views,
                timers=timers,
                transport=None,
                leases=self.leases,
                health=NodeHealth,
            )
        )
        self.elector = Elector(
            ElectorContext(
                node="r1",
                clock=self.clock,
                views=views,
                writer=self.writer,
                membership=self.membership,
                timers=timers,
                problems=lambda: tuple(self.problems),
                run_master=self._master,
                elected=lambda reason, words: self.events.append(reason),
            )
        )

    async def _follow(self) -> None:
        while True:
            await self.cache.step(1.0)

    async def _master(self, epoch: Epoch) -> None:
        self.epochs.append(epoch.epoch)
        if self.fails:
            raise ValueError("the master's loop has a bug")
        await asyncio.Event().wait()

    async def look(self) -> int | None:
        """One look; the epoch held after it."""
        await self.elector.step()
        await asyncio.sleep(0)
        return self.elector.epoch.epoch if self.elector.epoch is not None else None

    async def stop(self) -> None:
        self.following.cancel()
        await asyncio.gather(self.following, return_exceptions=True)
        await self.elector.end()


@pytest.fixture
async def alone() -> AsyncIterator[Candidate]:
    made = Candidate(MemoryCluster(), SharedLeases())
    await made.start()
    yield made
    await made.stop()


async def test_a_lone_node_becomes_master_at_its_first_look_and_stays_it(alone: Candidate) -> None:
    assert await alone.look() == 1
    assert await alone.look() == 1
    assert alone.epochs == [1]
    assert alone.membership.bearing.eligible
    assert alone.membership.bearing.master == "r1"


async def test_the_lease_names_the_epoch_before_the_store_does(alone: Candidate) -> None:
    alone.store.arm(TxnFault.REFUSED, when=touching(keys.EPOCH))
    assert await alone.look() is None
    assert isinstance(alone.leases, SharedLeases)
    assert load(NodeLease, alone.leases.values["r1"]).mastering == 1
    assert alone.membership.bearing.mastering is None
    assert "the store refused" in alone.elector.reason


async def test_an_epoch_that_was_taken_although_the_answer_was_lost_is_not_held_but_followed(
    alone: Candidate,
) -> None:
    alone.store.arm(TxnFault.APPLIED, when=touching(keys.EPOCH))
    assert await alone.look() == 1, "the outcome is resolved by its id"
    alone.store.arm(TxnFault.LOST, when=touching(keys.EPOCH))
    assert await alone.look() == 1


async def test_a_node_with_a_problem_gives_up_and_its_lease_says_so(alone: Candidate) -> None:
    await alone.look()
    alone.problems = ["frozen"]
    assert await alone.look() is None
    assert isinstance(alone.leases, SharedLeases)
    assert load(NodeLease, alone.leases.values["r1"]).mastering is None
    assert alone.events == ["BecameMaster", "GaveUpMastership"]
    alone.problems = []
    assert await alone.look() == 2


async def test_a_master_whose_lease_cannot_be_renewed_gives_up(alone: Candidate) -> None:
    await alone.look()
    assert isinstance(alone.leases, SharedLeases)
    alone.leases.down = True
    alone.clock.advance(3.1)
    assert await alone.look() is None
    assert "not renewed for 3.1 s" in alone.elector.reason


async def test_a_master_s_loop_that_fails_ends_the_mastership_and_is_tried_anew(alone: Candidate) -> None:
    alone.fails = True
    assert await alone.look() == 1
    assert await alone.look() is None
    assert "the master's loop has a bug" in alone.elector.reason
    alone.fails = False
    assert await alone.look() == 2


async def test_an_earlier_daemon_s_epoch_is_replaced_and_it_can_write_no_more() -> None:
    cluster = MemoryCluster()
    first, second = Candidate(cluster), Candidate(cluster, seed=1)
    await first.start()
    assert await first.look() == 1
    await second.start()
    assert await second.look() == 2
    await first.cache.wait_for(second.cache.revision)
    late = await first.writer.commit(puts={"binding/web": b"{}"}, guards=(keys.EPOCH,), wait=False)
    assert conflicts(late) == (keys.EPOCH,)
    assert await first.look() is None
    assert "r1 took epoch 2" in first.elector.reason
    await first.stop()
    await second.stop()


async def test_an_epoch_that_somebody_takes_while_the_lease_is_renewed_is_not_taken_again() -> None:
    cluster, leases = MemoryCluster(), SharedLeases()
    first = Candidate(cluster, leases)
    await first.start()

    async def meanwhile() -> None:
        put = Put(key=keys.EPOCH, value=dump(Epoch(epoch=1, holder="r2")))
        result = await first.store.txn(Txn(id="other", puts=(put,)))
        assert isinstance(result, Committed)
        await first.cache.wait_for(result.revision)

    leases.meanwhile = meanwhile
    assert await first.look() is None
    assert "another node was faster with epoch 1" in first.elector.reason
    await first.stop()
