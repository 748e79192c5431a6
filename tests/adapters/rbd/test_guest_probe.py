"""The guests' Ceph user, tried out on a real Ceph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.rados import Place
from reconciler.adapters.rados.caps import qemu_caps
from reconciler.adapters.rados.monitors import Monitors
from reconciler.adapters.rados.setup import create_user, keyring
from reconciler.adapters.rbd.guest_probe import GuestDiagnosis, diagnose_guests
from reconciler.resources.errors import PoolUnavailable
from reconciler.resources.infrastructure import RbdPool

pytestmark = pytest.mark.ceph

YEARS = 315360000.0
JUST = qemu_caps(["vms"])

Try = Callable[..., GuestDiagnosis]


@pytest.fixture
def guest(ceph: Any, tmp_path: Path) -> Try:
    """Tries out a user with the caps given, who has a keyring of its own, on the pool `vms`."""
    state = Place(conf=str(ceph.conf), user="vcl", pool="vcl", namespace="vcl", object="state")

    def tried(name: str, caps: Any = JUST, **fields: str) -> GuestDiagnosis:
        path = tmp_path / f"{name}.keyring"
        with Monitors.connect(str(ceph.conf), "admin") as admin:
            admin.run(create_user(name, caps))
            path.write_text(keyring(admin, name))
        mine = RbdPool(pool="vms", conf=str(ceph.conf), qemu_user=name, qemu_keyring=str(path))
        return diagnose_guests([replace(mine, **fields)], state)

    return tried


def test_the_rights_that_vcl_gives_are_just_right(guest: Try) -> None:
    assert guest("just") == GuestDiagnosis(fence_seconds=YEARS)


def test_a_user_of_one_namespace_is_just_right_for_it(guest: Try, pool: RbdPool) -> None:
    caps = {"mon": "profile rbd", "osd": f"profile rbd pool=vms namespace={pool.namespace}"}
    assert guest("narrow", caps, namespace=pool.namespace) == GuestDiagnosis(fence_seconds=YEARS)
    assert [right.name for right in guest("narrow", caps).missing] == ["lock break in vms"]


def test_a_user_who_may_not_shut_others_out_is_found(guest: Try) -> None:
    found = guest("meek", {**JUST, "mon": "allow r"})
    assert [right.name for right in found.missing] == ["osd blocklist add"]


def test_a_user_who_may_do_anything_is_found(guest: Try) -> None:
    found = guest("mighty", {"mon": "allow *", "osd": "allow *"})
    assert found.missing == ()
    assert set(found.beyond) >= {
        *("osd blocklist rm", "osd down", "osd set", "osd unset", "state in vcl/vcl"),
        *("read other users' keys", "write to pool vcl"),
    }


def test_a_user_who_may_write_to_another_pool_is_found_and_one_who_may_read_is_not(guest: Try) -> None:
    wide = {**JUST, "osd": f"{JUST['osd']}, allow rw pool=vcl"}
    assert guest("wide", wide).beyond == ("state in vcl/vcl", "write to pool vcl")
    reads = {**JUST, "osd": f"{JUST['osd']}, profile rbd-read-only pool=vcl"}
    assert guest("reads", reads).beyond == ()


def test_a_persons_own_configuration_counts_in_the_section_that_qemu_reads(
    guest: Try, ceph: Any, tmp_path: Path
) -> None:
    own = tmp_path / "own.conf"
    lasting = "rbd blocklist expire seconds = 315360000\n"
    for section, seconds in (("mon", 0.0), ("client", YEARS), ("client.owner", YEARS)):
        own.write_text(f"{ceph.conf.read_text()}\n[{section}]\n{lasting}")
        assert guest("owner", qemu_conf=str(own)).fence_seconds == seconds
    own.write_text(f"{ceph.conf.read_text()}\n[client]\nrbd blocklist on break lock = false\n")
    found = guest("owner", qemu_conf=str(own))
    assert (found.fence_seconds, found.fences) == (0.0, False)


def test_what_ceph_itself_is_told_for_all_clients_does_not_reach_guests(guest: Try, ceph: Any) -> None:
    ceph.command("config", "set", "client", "rbd_blocklist_expire_seconds", "60")
    try:
        assert guest("steady").fence_seconds == YEARS
    finally:
        ceph.command("config", "rm", "client", "rbd_blocklist_expire_seconds")


def test_a_user_without_a_key_is_told(guest: Try, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere.keyring")
    with pytest.raises(PoolUnavailable, match=r"nowhere\.keyring cannot be read"):
        guest("keyless", qemu_keyring=nowhere)
