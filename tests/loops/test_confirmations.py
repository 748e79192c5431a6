"""A person's word reaches the store only beside the very fencing that it was checked against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from reconciler.loops.confirmations import Confirmations
from reconciler.planning.confirming import Witness, Word
from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, InvalidInput
from reconciler.resources.fencing import ConfirmRecord, FenceCause, FenceRecord
from reconciler.resources.kinds import Kind
from reconciler.resources.records import EventType, Session, load
from reconciler.sim.desk import Desk

WORD = Word(node="r3", incident="r3-12", boot_id="boot-a")


def record(incident: str = "r3-12") -> FenceRecord:
    return FenceRecord(
        id=f"id-{incident}",
        node="r3",
        incident=incident,
        cause=FenceCause.SILENT,
        reason="silent",
        epoch=1,
        session=12,
        boot_id="boot-a",
        machine_id="m",
        began="2026-01-31T12:00:04Z",
    )


class Office:
    """The desk, and a node that is silent until `sight` says otherwise."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.sight = Sight(name="r3", rank=2)
        self.told: list[str] = []
        self.confirmations = Confirmations(
            self.desk.views, self.desk.writer, self.desk.clock, Timers(), self._witness, self._event
        )

    def _witness(self) -> Witness:
        return Witness(me="r1", sights=(self.sight,), ran_for=60.0)

    def _event(self, type: EventType, kind: Kind, name: str, reason: str, message: str) -> None:
        self.told.append(f"{kind} {name} {reason}: {message}")


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    made = Office()
    await made.desk.start()
    await made.desk.put(
        {
            keys.fence("r3"): record(),
            keys.session("r3"): Session(session=12, boot_id="boot-a", machine_id="m", started=""),
        }
    )

    async def follow() -> None:
        while True:
            await made.desk.cache.step(1.0)

    following = asyncio.create_task(follow())
    yield made
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_the_word_is_recorded_with_who_gave_it(office: Office) -> None:
    await office.confirmations.confirm_down(WORD, "ann@desk")
    found = await office.desk.cache.read([keys.confirm("r3")])
    said = load(ConfirmRecord, found[keys.confirm("r3")].value)
    assert (said.incident, said.boot_id, said.by) == ("r3-12", "boot-a", "ann@desk")
    assert office.told == [
        "Node r3 ConfirmedDown: r3-12: ann@desk says that this boot of it is down (boot-a)"
    ]


async def test_a_later_incident_in_the_store_beats_an_old_copy(office: Office) -> None:
    """The copy of the store is not asked: what is there now counts."""
    await office.desk.put({keys.fence("r3"): record("r3-14")})
    with pytest.raises(ConflictError, match="under way is r3-14"):
        await office.confirmations.confirm_down(WORD, "ann@desk")
    assert keys.confirm("r3") not in await office.desk.cache.read([keys.confirm("r3")])


async def test_a_sign_of_life_keeps_it_out(office: Office) -> None:
    office.sight = Sight(name="r3", rank=2, refused=3.0)
    with pytest.raises(ConflictError, match="shows signs of life"):
        await office.confirmations.confirm_down(WORD, "ann@desk")
    assert not office.told


async def test_a_record_that_cannot_be_read_is_not_taken_for_none(office: Office) -> None:
    await office.desk.put({keys.fence("r3"): {"id": 3}})
    with pytest.raises(InvalidInput):
        await office.confirmations.confirm_down(WORD, "ann@desk")
