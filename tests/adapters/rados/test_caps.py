"""What an existing Ceph user lacks."""

from __future__ import annotations

import pytest

from reconciler.adapters.rados.caps import Caps, qemu_caps, vcl_caps, with_missing

WANT = vcl_caps("vcl", "vcl", ["vms"])


def test_the_rights_are_the_least_that_work() -> None:
    assert WANT == {
        "mon": 'profile rbd, allow command "osd blocklist", allow command "osd down", '
        'allow command "osd set", allow command "osd unset"',
        "osd": "allow rw pool=vcl namespace=vcl, profile rbd pool=vms",
    }
    assert qemu_caps(["vms"]) == {"mon": "profile rbd", "osd": "profile rbd pool=vms"}


@pytest.mark.parametrize(
    "have",
    [
        WANT,
        {"mon": "allow *", "osd": "allow *"},
        {service: clauses.replace(", ", " ,  ") for service, clauses in WANT.items()},
        {**WANT, "mgr": "profile rbd"},
        {**WANT, "osd": "profile rbd pool=other, " + WANT["osd"]},
    ],
)
def test_a_user_that_may_do_all_is_left_as_it_is(have: Caps) -> None:
    assert with_missing(have, WANT) == have


def test_only_what_is_missing_is_added_and_nothing_taken_away() -> None:
    have = {
        "mon": 'profile rbd, allow command "osd blocklist"',
        "osd": "profile rbd pool=old",
        "mgr": "allow r",
    }
    assert with_missing(have, WANT) == {
        "mon": 'profile rbd, allow command "osd blocklist", allow command "osd down", '
        'allow command "osd set", allow command "osd unset"',
        "osd": "profile rbd pool=old, allow rw pool=vcl namespace=vcl, profile rbd pool=vms",
        "mgr": "allow r",
    }
