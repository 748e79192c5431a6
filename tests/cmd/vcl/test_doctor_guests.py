"""`vcl doctor` on what guests use of Ceph: their user, its entries in the blocklist, their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from vcl.checks.guests import guests_user, images
from vcl.checks.machine import Daemon, Finding, Level, Machine

from reconciler.adapters.rados import Place
from reconciler.adapters.rados.probe import Right
from reconciler.adapters.rbd.guest_probe import GuestDiagnosis
from reconciler.resources.errors import PoolUnavailable
from reconciler.resources.infrastructure import RbdPool

YEARS = 315360000.0
GOOD = GuestDiagnosis(fence_seconds=YEARS)


@dataclass(slots=True, kw_only=True)
class Guests:
    """Answers with a diagnosis, or the error; remembers what was asked."""

    answer: GuestDiagnosis | PoolUnavailable = GOOD
    asked: list[tuple[list[str], str]] = field(default_factory=list)

    def __call__(self, pools: Sequence[RbdPool], state: Place) -> GuestDiagnosis:
        self.asked.append(([pool.pool for pool in pools], f"{state.pool}/{state.namespace}"))
        if isinstance(self.answer, PoolUnavailable):
            raise self.answer
        return self.answer


def pool(name: str, **rbd: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"type": "rbd", "rbd": {"pool": name, **rbd}}}


VCLD = Daemon(socket="/run/vcl/vcld.sock", pools=(pool("vms"),))


def look(root: Path, answer: GuestDiagnosis | PoolUnavailable, vcld: Daemon = VCLD) -> list[Finding]:
    return list(guests_user(Machine(root=root, guests=Guests(answer=answer)), vcld))


def only(root: Path, answer: GuestDiagnosis | PoolUnavailable, vcld: Daemon = VCLD) -> Finding:
    [finding] = [finding for finding in look(root, answer, vcld) if finding.level is not Level.OK]
    assert finding.check == "ceph-guests"
    return finding


def test_a_user_with_just_its_rights_and_lasting_entries_is_fine(tmp_path: Path) -> None:
    assert [finding.message for finding in look(tmp_path, GOOD)] == [
        "client.qemu may use the images in vms, and nothing else",
        "guests of client.qemu shut dead clients out for years",
    ]


def test_a_right_that_guests_lack_comes_with_the_command_that_gives_it(tmp_path: Path) -> None:
    missing = Right(name="lock break in vms", refused="denied")
    finding = only(tmp_path, replace(GOOD, missing=(missing,)))
    assert finding.level is Level.FAIL
    assert "client.qemu may not do 'lock break in vms'" in finding.message
    assert finding.cure.startswith(
        "ceph auth caps client.qemu mon 'profile rbd' osd 'profile rbd pool=vms' (it replaces all caps"
    )


def test_rights_that_guests_do_not_need_are_a_warning(tmp_path: Path) -> None:
    finding = only(tmp_path, replace(GOOD, beyond=("osd down", "write to pool backup")))
    assert finding.level is Level.WARN
    assert finding.message.endswith("breaks out of its QEMU: osd down, write to pool backup")
    assert "make a user for the guests alone and name it as rbd.qemuUser" in finding.cure


def test_a_persons_configuration_for_qemu_must_fence_for_years(tmp_path: Path) -> None:
    own = replace(VCLD, pools=(pool("vms", qemuConf="/etc/ceph/qemu.conf"),))
    finding = only(tmp_path, replace(GOOD, fence_seconds=3600.0), own)
    assert finding.level is Level.FAIL
    assert finding.message.startswith("by /etc/ceph/qemu.conf QEMU shuts a dead client out for 3600 s only")
    assert finding.cure.endswith("seconds = 315360000` there, or leave `qemuConf` out")
    silent = only(tmp_path, replace(GOOD, fence_seconds=0.0), own)
    assert "for Ceph's default time only, which is an hour" in silent.message


def test_guests_that_take_over_locks_without_fencing_are_found(tmp_path: Path) -> None:
    finding = only(tmp_path, replace(GOOD, fences=False))
    assert finding.level is Level.FAIL
    assert "ceph config rm client rbd_blocklist_on_break_lock" in finding.cure


def test_a_user_whose_key_is_not_to_be_had_is_one_failure(tmp_path: Path) -> None:
    away = PoolUnavailable("no key of client.qemu", cure="put its keyring here")
    finding = only(tmp_path, away)
    assert (finding.level, finding.message, finding.cure) == (
        Level.FAIL,
        "no key of client.qemu",
        "put its keyring here",
    )


def test_pools_that_share_a_user_are_tried_together(tmp_path: Path) -> None:
    tried = Guests()
    files = {"metadata": {"name": "files"}, "spec": {"type": "directory", "directory": {"path": "/srv"}}}
    pools = (pool("vms"), pool("ssd"), pool("dmz", qemuUser="dmz"), files)
    found = list(guests_user(Machine(root=tmp_path, guests=tried), replace(VCLD, pools=pools)))
    assert tried.asked == [(["dmz"], "vcl/vcl"), (["ssd", "vms"], "vcl/vcl")]
    assert {finding.level for finding in found} == {Level.OK}


def vm(**features: Sequence[str]) -> dict[str, Any]:
    disks = [
        {"name": name, "image": f"rbd:vms/web.{name}", "features": has} for name, has in features.items()
    ]
    return {"metadata": {"name": "web"}, "status": {"disks": disks}}


@pytest.mark.parametrize("has", [[], ["layering"]])
def test_an_image_that_two_clients_could_write_to_is_found(tmp_path: Path, has: list[str]) -> None:
    vms = (vm(root=["exclusive-lock", "layering"], data=has),)
    [finding] = images(Machine(root=tmp_path), replace(VCLD, vms=vms))
    assert (finding.check, finding.level) == ("ceph-images", Level.FAIL)
    assert finding.message.startswith("the image vms/web.data lacks the feature exclusive-lock")
    assert finding.cure.startswith("rbd feature enable vms/web.data exclusive-lock;")


def test_images_with_an_exclusive_lock_are_fine(tmp_path: Path) -> None:
    [finding] = images(Machine(root=tmp_path), replace(VCLD, vms=(vm(root=["exclusive-lock"]),)))
    assert (finding.level, finding.message) == (Level.OK, "all 1 images have exclusive-lock")


def test_nothing_is_said_of_images_where_there_are_none(tmp_path: Path) -> None:
    assert list(images(Machine(root=tmp_path), VCLD)) == []
