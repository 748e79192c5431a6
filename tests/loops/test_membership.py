"""What a node tells of itself and observes of others; silence counts only when it could have been heard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from reconciler.loops.cache import StoreCache
from reconciler.loops.membership import Membership, MembershipContext
from reconciler.loops.views import Views
from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.ports.transport import Endpoint, Link, LinkState, Listener, Message, Topic
from reconciler.resources import keys
from reconciler.resources.codec import encode
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import Heartbeat, Member, NodeHealth, NodeLease
from reconciler.resources.records import ObjectMeta, Source, SpecRecord, dump
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.clock import SeededIds, VirtualClock
from reconciler.sim.store import MemoryStore


class HandTransport:
    """The test is the network."""

    def __init__(self) -> None:
        self.peers: Mapping[str, Endpoint] = {}
        self.found: dict[str, Link] = {}
        self.sent: list[tuple[str, Message]] = []
        self.listeners: list[Listener] = []

    def connect(self, peers: Mapping[str, Endpoint]) -> None:
        self.peers = peers

    def links(self) -> Mapping[str, Link]:
        return self.found

    def send(self, node: str, message: Message) -> bool:
        self.sent.append((node, message))
        return True

    def listen(self, listener: Listener) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    async def run(self) -> None:
        return None

    def arrive(self, node: str, message: Message) -> None:
        for listener in self.listeners:
            listener(node, message)


class HandLeases:
    """What is in the store's lease object; `down` for no answer."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.down = False

    async def renew(self, node: str, value: bytes, *, timeout: float) -> None:
        self._require()
        self.values[node] = value

    async def read(self, *, timeout: float) -> Mapping[str, bytes]:
        self._require()
        return dict(self.values)

    async def close(self) -> None:
        return None

    def _require(self) -> None:
        if self.down:
            raise StoreUnavailable("no answer")


class World:
    """One Membership of r1, among r1 to r3."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.transport = HandTransport()
        self.leases = HandLeases()
        self.store = MemoryStore()
        self.sequence = 0

    async def start(self) -> Membership:
        members = {f"r{n}": Member(address=f"10.0.0.{n}", rank=n - 1) for n in (1, 2, 3)}
        await self.put({keys.member(name): dump(member) for name, member in members.items()})
        self.cache = StoreCache(self.store)
        await self.cache.step(0.0)
        self.membership = Membership(
            MembershipContext(
                node="r1",
                boot_id="b1",
                session=5,
                version="0.2.0",
                schemas=(1, 1),
                clock=self.clock,
                views=Views(self.cache),
                timers=Timers(),
                transport=self.transport,
                leases=self.leases,
                health=lambda: NodeHealth(load=0.5),
            )
        )
        return self.membership

    async def put(self, values: Mapping[str, bytes]) -> None:
        puts = tuple(Put(key=key, value=value) for key, value in values.items())
        await self.store.txn(Txn(id=SeededIds(len(values)).uuid(), puts=puts))

    def hear(self, name: str, **fields: object) -> None:
        self.sequence += 1
        beat = Heartbeat(node=name, session=1, boot_id="b", sequence=self.sequence)
        beat = replace(beat, **fields)  # type: ignore[arg-type]
        self.transport.arrive(name, Message(topic=Topic.HEARTBEAT, body=encode(beat)))

    def lease(self, name: str, renewals: int, mastering: int | None = None) -> None:
        value = NodeLease(node=name, boot_id="b", session=1, renewals=renewals, mastering=mastering)
        self.leases.values[name] = dump(value)

    def sight(self, name: str) -> Sight:
        return next(sight for sight in self.membership.sights() if sight.name == name)


@pytest.fixture
async def world() -> World:
    made = World()
    await made.start()
    return made


async def test_a_heartbeat_goes_to_every_other_member(world: World) -> None:
    world.hear("r2")
    world.membership.beat()
    assert world.transport.peers["r3"] == Endpoint(address="10.0.0.3", port=7480)
    assert [name for name, _ in world.transport.sent] == ["r2", "r3"]
    body = world.transport.sent[0][1].body
    assert (body["node"], body["session"], body["hears"]) == ("r1", 5, ["r2"])
    assert body["health"]["load"] == 0.5


async def test_the_age_of_a_heartbeat_is_of_this_node_s_own_time(world: World) -> None:
    assert world.sight("r2").heard is None
    world.hear("r2", eligible=True)
    world.clock.advance(2.0)
    assert (world.sight("r2").heard, world.sight("r2").eligible_for) == (2.0, 2.0)


async def test_an_old_heartbeat_that_comes_late_is_not_heard_again(world: World) -> None:
    world.hear("r2", eligible=True, sequence=10)
    world.clock.advance(1.0)
    world.hear("r2", eligible=False, sequence=9)
    found = world.sight("r2")
    assert found.heard == 1.0
    assert found.heartbeat is not None
    assert found.heartbeat.eligible


async def test_a_node_that_was_frozen_holds_the_time_against_nobody(world: World) -> None:
    world.membership.beat()
    world.hear("r2")
    await world.membership.look()
    world.lease("r2", 1)
    await world.membership.look()
    world.clock.advance(60.0)
    world.membership.beat()
    await world.membership.look()
    found = world.sight("r2")
    assert found.heard is not None
    assert found.heard <= 1.0
    assert found.lease_age <= 2.0


async def test_a_lease_ages_while_it_is_seen_not_to_change(world: World) -> None:
    world.lease("r2", 1)
    for _ in range(6):
        await world.membership.look()
        world.clock.advance(1.0)
    assert world.sight("r2").lease_age == 5.0
    world.lease("r2", 2)
    await world.membership.look()
    assert world.sight("r2").lease_age == 0.0


async def test_a_lease_that_goes_back_has_not_changed(world: World) -> None:
    world.lease("r2", 7, mastering=3)
    await world.membership.look()
    world.clock.advance(1.0)
    world.lease("r2", 6)
    await world.membership.look()
    found = world.sight("r2")
    assert found.lease_age == 1.0
    assert found.lease is not None
    assert found.lease.mastering == 3


async def test_a_store_that_does_not_answer_makes_nobody_old(world: World) -> None:
    world.lease("r2", 1)
    await world.membership.look()
    world.leases.down = True
    for _ in range(30):
        world.clock.advance(1.0)
        with pytest.raises(StoreUnavailable):
            await world.membership.look()
        world.membership.beat()
    assert world.sight("r2").lease_age == 0.0
    world.leases.down = False
    await world.membership.look()
    assert world.sight("r2").lease_age <= 2.0


async def test_a_lease_that_never_appeared_ages_from_the_first_look(world: World) -> None:
    await world.membership.look()
    world.clock.advance(1.5)
    await world.membership.look()
    assert (world.sight("r3").lease, world.sight("r3").lease_age) == (None, 1.5)


async def test_a_renewal_counts_from_when_it_was_sent(world: World) -> None:
    world.clock.advance(3.0)
    await world.membership.renew()
    assert world.membership.renewed_at == 3.0
    world.leases.down = True
    world.clock.advance(1.0)
    with pytest.raises(StoreUnavailable):
        await world.membership.renew()
    assert world.membership.renewed_at == 3.0


async def test_the_end_of_a_daemon_is_marked_in_its_lease(world: World) -> None:
    world.membership.bearing.mastering = 4
    await world.membership.say_goodbye()
    assert b'"stopped":true' in world.leases.values["r1"]
    assert b"mastering" not in world.leases.values["r1"]


async def test_each_fall_from_fitness_is_remembered_for_ten_minutes(world: World) -> None:
    for _ in range(2):
        world.hear("r2", eligible=True)
        world.clock.advance(1.0)
        world.hear("r2", eligible=False)
    world.hear("r2", eligible=True)
    world.clock.advance(5.0)
    assert world.sight("r2").falls == 3, "the silence of 5 s was the third"
    world.clock.advance(601.0)
    assert world.sight("r2").falls == 0


async def test_a_refused_connection_is_seen(world: World) -> None:
    world.transport.found["r2"] = Link(state=LinkState.REFUSED, since=0.0)
    world.clock.advance(2.5)
    assert world.sight("r2").refused == 2.5
    assert world.sight("r3").refused is None


async def test_a_manifest_s_rank_and_address_replace_the_configuration_s(world: World) -> None:
    record = SpecRecord(
        kind=Kind.NODE.value,
        metadata=ObjectMeta(name="r3", uid="u"),
        spec={"rank": 0, "address": "10.9.9.9"},
        source=Source(path="r3.yaml"),
    )
    await world.put({keys.spec(Kind.NODE, "r3"): dump(record), "x": b"", "y": b"", "z": b""})
    await world.cache.step(0.0)
    assert world.membership.members()["r3"].address == "10.9.9.9"
    assert [sight.name for sight in world.membership.sights()] == ["r1", "r3", "r2"]


async def test_a_commit_wakes_the_others_and_a_burst_wakes_them_once(world: World) -> None:
    world.membership.wake(7)
    world.membership.wake(8)
    woken = [(name, message.body) for name, message in world.transport.sent]
    assert woken == [("r2", {"revision": 7}), ("r3", {"revision": 7})]


async def test_whoever_changes_its_mind_is_told_of_at_once(world: World) -> None:
    told: list[bool] = []
    world.membership.subscribe(lambda: told.append(True))
    world.hear("r2", eligible=False)
    world.hear("r2", eligible=False)
    world.hear("r2", eligible=True)
    assert len(told) == 2


async def test_what_cannot_be_read_is_dropped(world: World) -> None:
    world.transport.arrive("r2", Message(topic=Topic.HEARTBEAT, body={"node": 5}))
    world.leases.values["r2"] = b"not JSON"
    await world.membership.look()
    assert (world.sight("r2").heard, world.sight("r2").lease) == (None, None)
