"""A daemon's clients of Ceph are in its session, also those that connect later: a fencer closes them out."""

from __future__ import annotations

from reconciler.loops.own_clients import complete
from reconciler.resources.records import Session

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
