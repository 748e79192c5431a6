"""A person's word that a host is down: only for this incident and boot, and void at any sign of life."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.confirming import Witness, Word, refusal
from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.resources.fencing import FenceRecord
from reconciler.resources.membership import Heartbeat, NodeLease
from reconciler.resources.records import Session
from reconciler.testing.fence_records import SILENT_R3 as RECORD

WORD = Word(node="r3", incident="r3-12", boot_id="boot-a")
SESSION = Session(session=12, boot_id="boot-a", machine_id="m", started="")
LEASE = NodeLease(node="r3", boot_id="boot-a", session=11, renewals=7)
DEAD = Sight(name="r3", rank=2, heard=30.0, lease=LEASE, lease_age=31.0)


def beat(node: str, *hears: str) -> Heartbeat:
    return Heartbeat(node=node, session=1, boot_id="b", sequence=99, hears=hears)


def witness(
    sight: Sight = DEAD, me: str = "r1", ran_for: float = 60.0, hears: tuple[str, ...] = ()
) -> Witness:
    peer = Sight(name="r2", rank=1, heard=0.2, heartbeat=beat("r2", *hears))
    return Witness(me=me, sights=(Sight(name="r1", rank=0, heard=0.0), peer, sight), ran_for=ran_for)


def why(
    word: Word = WORD,
    record: FenceRecord | None = RECORD,
    session: Session | None = SESSION,
    seen: Witness | None = None,
) -> str:
    return refusal(word, record, session, seen or witness(), Timers())[0]


def test_a_word_about_the_fencing_under_way_of_a_silent_host_is_taken() -> None:
    assert why() == ""


def test_without_a_fencing_there_is_nothing_to_confirm() -> None:
    assert "no fencing of node 'r3' is under way" in why(record=None)


def test_one_that_has_nothing_left_needs_no_word() -> None:
    assert "is fenced already (r3-12)" in why(record=replace(RECORD, released="2026-01-31T12:00:09Z"))


def test_a_word_about_another_incident_or_boot_is_none() -> None:
    assert "is r3-12, and what you confirm is r3-11" in why(word=replace(WORD, incident="r3-11"))
    assert "is boot-a, and what you confirm is boot-b" in why(word=replace(WORD, boot_id="boot-b"))


def test_no_word_counts_when_nobody_knows_which_boot_it_is_about() -> None:
    assert "not known which boot" in why(word=replace(WORD, boot_id=""), record=replace(RECORD, boot_id=""))


@pytest.mark.parametrize(
    ("sight", "words"),
    [
        (replace(DEAD, heard=0.4), "heard on the mesh 0.4 s ago"),
        (replace(DEAD, lease_age=1.0), "its lease in the store changed 1.0 s ago"),
        (replace(DEAD, refused=9.0), "its host refuses connections, so it is up"),
        (replace(DEAD, connected=9.0), "it keeps its connection"),
    ],
)
def test_any_sign_of_life_voids_it(sight: Sight, words: str) -> None:
    assert words in why(seen=witness(sight=sight))


def test_what_only_another_node_hears_voids_it_too() -> None:
    assert "r2 still hears it" in why(seen=witness(hears=("r1", "r3")))


def test_a_daemon_that_began_anew_after_the_intent_is_a_sign_of_life() -> None:
    assert "begun anew" in why(session=replace(SESSION, session=13, boot_id="boot-b"))


def test_a_node_cannot_confirm_that_it_is_itself_down() -> None:
    assert "the very node that you ask" in why(seen=witness(me="r3"))


def test_a_node_that_has_just_begun_to_listen_is_no_witness() -> None:
    problem, cure = refusal(WORD, RECORD, SESSION, witness(ran_for=1.0), Timers())
    assert "has listened for 1.0 s only" in problem
    assert "ask again in 3 s" in cure
