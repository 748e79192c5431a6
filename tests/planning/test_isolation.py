"""When a node pauses, resumes or ends its guests, told from what it hears."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.isolation import Contact, Measure, decide_isolation
from reconciler.planning.timers import Timers

TIMERS = Timers()
NEVER = float("inf")
SECONDS = st.one_of(st.floats(min_value=0, max_value=100), st.just(NEVER))
CONTACTS = st.builds(
    Contact,
    nodes=st.integers(1, 5),
    mesh_silence=SECONDS,
    store_silence=SECONDS,
    contrast=st.floats(min_value=0, max_value=100),
    ran_for=st.floats(min_value=0, max_value=100),
    shut_out=st.booleans(),
)


def measure(
    before: Measure = Measure.NOTHING,
    *,
    nodes: int = 3,
    mesh: float = 0.0,
    store: float = 0.0,
    contrast: float = 0.0,
    ran_for: float = 100.0,
    shut_out: bool = False,
) -> Measure:
    contact = Contact(
        nodes=nodes,
        mesh_silence=mesh,
        store_silence=store,
        contrast=contrast,
        ran_for=ran_for,
        shut_out=shut_out,
    )
    return decide_isolation(before, contact, TIMERS).measure


def test_both_channels_lost_pauses_and_one_of_them_does_not() -> None:
    assert measure(mesh=3.1, store=3.1) is Measure.PAUSE
    assert measure(mesh=60.0) is Measure.NOTHING
    assert measure(store=60.0) is Measure.NOTHING
    assert measure(mesh=2.9, store=60.0) is Measure.NOTHING


def test_a_single_node_has_nobody_to_lose() -> None:
    assert measure(nodes=1, mesh=NEVER, store=NEVER) is Measure.NOTHING


def test_a_node_that_was_frozen_has_not_heard_any_silence() -> None:
    assert measure(mesh=60.0, store=60.0, ran_for=0.5) is Measure.NOTHING


def test_a_pause_outlasts_a_freeze_and_the_return_of_the_mesh() -> None:
    assert measure(Measure.PAUSE, mesh=60.0, store=60.0, ran_for=0.0) is Measure.PAUSE
    assert measure(Measure.PAUSE, mesh=0.1, store=60.0) is Measure.PAUSE
    assert measure(Measure.PAUSE, mesh=60.0, store=0.5) is Measure.RESUME


def test_a_store_that_only_others_reach_ends_the_guests_after_its_grace() -> None:
    assert measure(store=20.0, contrast=14.9) is Measure.NOTHING
    assert measure(store=20.0, contrast=15.0) is Measure.DESTROY
    assert measure(store=NEVER, contrast=40.0, ran_for=2.0) is Measure.NOTHING


def test_a_node_on_the_blocklist_ends_its_guests_first_of_all() -> None:
    assert measure(Measure.PAUSE, mesh=60.0, store=60.0, shut_out=True) is Measure.DESTROY


@given(before=st.sampled_from(Measure), contact=CONTACTS)
def test_nothing_is_resumed_before_the_store_answers_and_a_reason_is_always_given(
    before: Measure, contact: Contact
) -> None:
    decision = decide_isolation(before, contact, TIMERS)
    alone = contact.nodes < 2
    if decision.measure is Measure.RESUME:
        assert alone or contact.store_silence <= TIMERS.isolation
    if before in (Measure.PAUSE, Measure.DESTROY):
        assert decision.measure is not Measure.NOTHING
    assert bool(decision.reason) is (decision.measure is not Measure.NOTHING)


@given(before=st.sampled_from(Measure), contact=CONTACTS)
def test_no_guest_is_paused_or_ended_while_the_store_answers(before: Measure, contact: Contact) -> None:
    decision = decide_isolation(before, contact, TIMERS)
    if contact.store_silence <= TIMERS.isolation or contact.nodes < 2:
        assert decision.measure in (Measure.NOTHING, Measure.RESUME)
