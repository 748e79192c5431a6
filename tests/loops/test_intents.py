"""Recording verbs: judged from what is there, and written only if that is still so."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.planning.intents import Verb
from reconciler.planning.node_intents import NodeVerb
from reconciler.resources import keys
from reconciler.resources.errors import (
    ConflictError,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
)
from reconciler.resources.kinds import Kind
from reconciler.resources.membership import Member
from reconciler.resources.records import Intent, dump
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.desk import Desk, vm_record
from reconciler.sim.store import TxnFault, touching

KEY = keys.intent(Kind.VIRTUAL_MACHINE, "web")


@pytest.fixture
async def desk() -> Desk:
    made = Desk()
    await made.start()
    await made.vm("web")
    return made


async def follow(desk: Desk) -> None:
    while True:
        await desk.cache.step(0.05)


async def ask(desk: Desk, verb: Verb, *, force: bool = False) -> bool:
    """The verb, while the copy of the store is kept fresh."""

    following = asyncio.create_task(follow(desk))
    try:
        return await desk.intents.apply(verb, "web", force=force)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_a_verb_is_visible_when_it_returns(desk: Desk) -> None:
    assert await ask(desk, Verb.STOP, force=True)
    intent = desk.views.intent("web")
    assert (intent.run, intent.force, intent.requested) == ("Stop", True, desk.clock.wall())


async def test_asking_twice_writes_once(desk: Desk) -> None:
    await ask(desk, Verb.STOP)
    revision = desk.cache.revision
    assert not await ask(desk, Verb.STOP)
    assert desk.cache.revision == revision


async def test_an_intent_that_asks_for_nothing_is_removed(desk: Desk) -> None:
    await ask(desk, Verb.PAUSE)
    await ask(desk, Verb.RESUME)
    assert desk.cache.get(KEY) is None


async def test_a_verb_from_a_stale_copy_is_judged_again(desk: Desk) -> None:
    other = Intent(reset_failures="other")
    await desk.store.txn(Txn(id="other", puts=(Put(key=KEY, value=dump(other)),)))
    assert await ask(desk, Verb.PAUSE)
    intent = desk.views.intent("web")
    assert (intent.paused, intent.reset_failures) == (True, "other")


async def test_a_vm_deleted_in_between_refuses_the_verb(desk: Desk) -> None:
    deleted = vm_record("web", deleted="2026-01-31T12:00:00Z")
    key = keys.spec(Kind.VIRTUAL_MACHINE, "web")
    await desk.store.txn(Txn(id="deleted", puts=(Put(key=key, value=dump(deleted)),)))
    with pytest.raises(ConflictError, match="being deleted"):
        await ask(desk, Verb.PAUSE)


async def test_nobody_cannot_be_stopped(desk: Desk) -> None:
    with pytest.raises(NotFound):
        await desk.intents.apply(Verb.STOP, "nobody")


async def test_a_store_that_refuses_is_an_error(desk: Desk) -> None:
    desk.store.arm(TxnFault.REFUSED)
    with pytest.raises(StoreUnavailable):
        await ask(desk, Verb.STOP)


async def test_an_unknown_outcome_that_happened_counts_as_done(desk: Desk) -> None:
    desk.store.arm(TxnFault.APPLIED, when=touching(KEY))
    assert await ask(desk, Verb.STOP)
    assert desk.views.intent("web").run == "Stop"


async def test_a_write_that_was_lost_is_said_to_be_lost(desk: Desk) -> None:
    desk.store.arm(TxnFault.LOST, when=touching(KEY))
    with pytest.raises((StoreUnavailable, OutcomeUnknown)):
        await ask(desk, Verb.STOP)
    assert desk.cache.get(KEY) is None


async def test_an_unreadable_record_is_not_written_over(desk: Desk) -> None:
    await desk.store.txn(Txn(id="broken", puts=(Put(key=KEY, value=b"{"),)))
    await desk.sync()
    with pytest.raises(InvalidInput, match="cannot be read"):
        await ask(desk, Verb.STOP)
    found = desk.cache.get(KEY)
    assert found is not None
    assert found.value == b"{"


async def test_an_unusable_spec_is_named(desk: Desk) -> None:
    await desk.vm("web", cpu="many")
    with pytest.raises(InvalidInput, match="spec of virtualmachine 'web' cannot be used"):
        await ask(desk, Verb.STOP)


async def ask_node(desk: Desk, verb: NodeVerb, name: str = "r1") -> bool:
    await desk.put({keys.member(name): Member(address="10.0.0.1", rank=0, version="")}, deletes=())
    done = await desk.intents.apply_to_node(verb, name)
    await desk.sync()
    return done


async def test_a_cordon_is_seen_in_the_node_and_removed_by_its_opposite(desk: Desk) -> None:
    following = asyncio.create_task(follow(desk))
    assert await ask_node(desk, NodeVerb.CORDON)
    status = desk.objects.get(Kind.NODE, "r1").object["status"]
    assert (status["unschedulable"], status["intent"]["unschedulable"]) == (True, True)
    assert not await ask_node(desk, NodeVerb.CORDON)
    assert await ask_node(desk, NodeVerb.UNCORDON)
    assert desk.cache.get(keys.intent(Kind.NODE, "r1")) is None
    following.cancel()


async def test_a_node_that_nobody_knows_cannot_be_cordoned(desk: Desk) -> None:
    with pytest.raises(NotFound, match="node 'r9' not found"):
        await desk.intents.apply_to_node(NodeVerb.CORDON, "r9")
