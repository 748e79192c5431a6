"""A shutdown sets flags that move no data, and leaves those of a person alone."""

from __future__ import annotations

from reconciler.planning.ceph_flags import to_set, to_unset


def test_a_flag_of_a_person_is_neither_set_nor_unset() -> None:
    assert to_set({"noout"}, ()) == ("norebalance",)
    assert to_unset({"noout", "norebalance"}, {"norebalance"}) == ("norebalance",)


def test_a_recorded_flag_is_set_again_since_its_setting_may_have_been_lost() -> None:
    assert to_set((), {"noout"}) == ("noout", "norebalance")
    assert to_set({"noout"}, {"noout"}) == ("noout", "norebalance")


def test_nothing_is_unset_that_is_not_there() -> None:
    assert to_unset((), {"noout"}) == ()


def test_nothing_that_stops_the_store_is_set() -> None:
    assert not {"pause", "nodown", "norecover", "nobackfill"} & set(to_set((), ()))
