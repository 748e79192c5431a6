"""Back-off, pending restarts, and whether the store is the one we knew."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from reconciler.planning.backoff import delay
from reconciler.planning.restart import pending_fields
from reconciler.planning.store_memory import Seen, doubt, most
from reconciler.resources.codec import decode
from reconciler.resources.virtualmachine import VirtualMachineSpec

SEEN = Seen(cluster_uid="c1", revision=10, epoch=3)


def spec(**more: object) -> VirtualMachineSpec:
    return decode(VirtualMachineSpec, {"cpu": {"cores": 1}, "memory": "1Gi", **more})


def test_back_off_doubles_from_one_second_to_a_minute() -> None:
    waits = [delay(n, 0.0) for n in range(1, 12)]
    assert waits[0] == 1.0
    assert all(b == min(60.0, 2 * a) for a, b in pairwise(waits))
    assert waits[-1] == 60.0
    assert 60.0 < delay(99, 0.99) < 72.0


def test_only_what_the_guest_sees_waits_for_a_restart() -> None:
    wanted = spec(cpu={"cores": 2}, priority=5, domainXML="<domain/>", runStrategy="Manual")
    assert pending_fields(spec(), wanted) == ("spec.cpu.cores", "spec.domainXML")
    assert pending_fields(spec(), spec(memory="1024Mi")) == ()


def test_a_store_that_shows_less_or_another_cluster_is_doubted() -> None:
    assert doubt(None, SEEN) == ""
    assert doubt(SEEN, Seen(cluster_uid="c1", revision=11, epoch=3)) == ""
    assert "older" in doubt(SEEN, Seen(cluster_uid="c1", revision=9, epoch=3))
    assert "older" in doubt(SEEN, Seen(cluster_uid="c1", revision=11, epoch=2))
    assert "cluster c2" in doubt(SEEN, Seen(cluster_uid="c2", revision=99, epoch=9))
    assert "--accept-store" in doubt(SEEN, Seen(cluster_uid="c2", revision=99, epoch=9))


def test_a_store_that_was_set_back_is_doubted_when_its_numbers_have_grown_again() -> None:
    known = replace(SEEN, txn="mine")
    later = Seen(cluster_uid="c1", revision=50, epoch=9)
    assert doubt(known, later, "mine") == ""
    assert "was older" in doubt(known, later, "another")
    assert doubt(known, later, None) == ""
    assert doubt(SEEN, later, "another") == ""


def test_a_doubt_stands_until_the_log_shows_what_was_seen() -> None:
    doubted = replace(SEEN, txn="mine", doubted=True)
    later = Seen(cluster_uid="c1", revision=50, epoch=9)
    assert "no longer says" in doubt(doubted, later, None)
    assert doubt(doubted, later, "mine") == ""
    assert not most(doubted, later).doubted


def test_the_number_of_a_session_is_remembered_over_stores() -> None:
    known = replace(SEEN, session=7)
    assert most(known, Seen(cluster_uid="c1", revision=50, epoch=9, session=3)).session == 7
    assert most(known, Seen(cluster_uid="c2", revision=1, epoch=0, session=1)).session == 7


def test_what_is_remembered_only_grows() -> None:
    assert most(replace(SEEN, txn="a"), Seen(cluster_uid="c1", revision=9, epoch=4, txn="b")).txn == "a"
    assert most(SEEN, Seen(cluster_uid="c1", revision=9, epoch=4)) == Seen(
        cluster_uid="c1", revision=10, epoch=4
    )
