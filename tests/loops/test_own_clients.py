"""A daemon's clients of Ceph are in its session, also those that connect later: a fencer closes them out."""

from __future__ import annotations

from reconciler.loops.cache import StoreCache
from reconciler.loops.own_clients import OwnClients, complete
from reconciler.loops.session import Entry, HostIdentity, begin
from reconciler.loops.views import Views
from reconciler.loops.writer import Writer
from reconciler.resources import keys
from reconciler.resources.records import ArmedWatchdog, Session, load
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryCluster, MemoryStore

HOST = HostIdentity(node="r1", boot_id="boot-1", machine_id="machine-1")

SESSION = Session(
    session=4,
    boot_id="boot-1",
    machine_id="machine-1",
    started="",
    addresses=("10.77.0.1",),
    clients=("10.77.0.1:0/100",),
)


def test_a_new_client_is_added_with_the_address_that_it_comes_from() -> None:
    found = complete(SESSION, ["10.77.0.1:0/100", "v1:10.77.0.1:0/7", "10.78.0.1:0/8"])
    assert found.clients == ("10.77.0.1:0/100", "10.77.0.1:0/7", "10.78.0.1:0/8")
    assert found.addresses == ("10.77.0.1", "10.78.0.1")


def test_nothing_is_ever_taken_away() -> None:
    assert complete(SESSION, []) == SESSION
    assert complete(SESSION, ["-", "pid:1:2"]) == SESSION


async def test_the_end_of_a_watchdog_is_written_even_when_nothing_seems_to_be_there() -> None:
    store = MemoryStore(MemoryCluster())
    begun = await begin(store, Entry(host=HOST), VirtualClock(), SeededIds(1))
    cache = StoreCache(store)
    await cache.step(0.0)
    armed = ArmedWatchdog(identity="iTCO_wdt", period=30.0)
    writer = Writer(store, cache, SeededIds(2))
    lost = OwnClients(Views(cache), writer, "r1", begun, tuple, lambda: armed)
    again = OwnClients(Views(cache), writer, "r1", begun, tuple)
    assert await lost.step()  # and this node's copy of the store has not seen it yet
    assert await again.step()
    assert not await again.confirm()
    await cache.step(0.0)
    assert await again.confirm()
    found = (await store.get([keys.session("r1")]))[keys.session("r1")]
    assert load(Session, found.value).watchdog is None
