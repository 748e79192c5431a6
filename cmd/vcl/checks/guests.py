"""Checks of what guests use of Ceph: their user may do what it must and no more, and each of their images can
have one writer only (SAFETY rules 7, 11 and 16)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reconciler.resources.codec import decode
from reconciler.resources.errors import VclError
from reconciler.resources.infrastructure import RbdPool
from vcl import here
from vcl.checks.ceph import TEN_YEARS, YEAR, place_of
from vcl.checks.cluster import usable_config
from vcl.checks.machine import Daemon, Finding, Level, Machine
from vcl.node_config import NodeConfig

if TYPE_CHECKING:
    from reconciler.adapters.rbd.guest_probe import GuestDiagnosis

CHECK, IMAGES = "ceph-guests", "ceph-images"
LOCK = "exclusive-lock"


def guests_user(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Each Ceph user of guests, tried out as QEMU would."""
    config = usable_config(machine) or NodeConfig(path=machine.path(machine.config), said={})
    for pools in _by_user(vcld):
        try:
            here.require_rados(images=True)
            diagnosis = machine.guests(pools, place_of(config))
        except VclError as error:
            yield Finding(check=CHECK, level=Level.FAIL, message=error.message, cure=error.cure)
        else:
            yield from _rights(pools, diagnosis)
            yield from _fencing(pools[0], diagnosis)


def images(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Every RBD image of a VM, as the nodes report them, has the feature by which Ceph allows one writer."""
    disks = [disk for vm in vcld.vms for disk in (vm.get("status") or {}).get("disks") or []]
    found = {str(disk.get("image")).removeprefix("rbd:"): disk.get("features") or [] for disk in disks}
    without = sorted(name for name, features in found.items() if LOCK not in features)
    for name in without:
        yield Finding(
            check=IMAGES,
            level=Level.FAIL,
            message=f"the image {name} lacks the feature {LOCK}: Ceph itself lets two clients write to it",
            cure=f"rbd feature enable {shlex.quote(name)} {LOCK}; if new images lack it, too: "
            "`ceph config get client rbd_default_features`",
        )
    if found and not without:
        yield Finding(check=IMAGES, level=Level.OK, message=f"all {len(found)} images have {LOCK}")


def _by_user(vcld: Daemon) -> list[list[RbdPool]]:
    """The RBD pools that vcld knows; those together whose guests are one user with one configuration."""
    found: dict[tuple[str, ...], list[RbdPool]] = {}
    for item in vcld.pools:
        said: Mapping[str, Any] = (item.get("spec") or {}).get("rbd") or {}
        if said.get("pool"):
            pool = decode(RbdPool, said)
            key = (pool.conf, pool.qemu_user, pool.qemu_keyring or "", pool.qemu_conf or "")
            found.setdefault(key, []).append(pool)
    return [sorted(pools, key=lambda pool: (pool.pool, pool.namespace)) for _, pools in sorted(found.items())]


def _rights(pools: Sequence[RbdPool], diagnosis: GuestDiagnosis) -> Iterator[Finding]:
    from reconciler.adapters.rados.caps import qemu_caps

    user, names = pools[0].qemu_user, sorted({pool.pool for pool in pools})
    caps = " ".join(f"{service} {shlex.quote(said)}" for service, said in qemu_caps(names).items())
    command = f"ceph auth caps client.{user} {caps}"
    for right in diagnosis.missing:
        yield Finding(
            check=CHECK,
            level=Level.FAIL,
            message=f"the guests' user client.{user} may not do '{right.name}', which a guest needs to take "
            f"over its image after a crash: {right.refused}",
            cure=f"{command} (it replaces all caps: `ceph auth get client.{user}` shows those of now)",
        )
    if diagnosis.beyond:
        yield Finding(
            check=CHECK,
            level=Level.WARN,
            message=f"the guests' user client.{user} may do more than guests need, and so may a guest that "
            f"breaks out of its QEMU: {', '.join(diagnosis.beyond)}",
            cure=f"{command}; or, if others use client.{user} too, make a user for the guests alone and name "
            "it as rbd.qemuUser",
        )
    if not diagnosis.missing and not diagnosis.beyond:
        message = f"client.{user} may use the images in {', '.join(names)}, and nothing else"
        yield Finding(check=CHECK, level=Level.OK, message=message)


def _fencing(pool: RbdPool, diagnosis: GuestDiagnosis) -> Iterator[Finding]:
    """QEMU's own entries last: a client that outlives its entry writes again."""
    where = pool.qemu_conf or f"[client.{pool.qemu_user}] of {pool.conf}"
    if diagnosis.fence_seconds < YEAR:
        yield Finding(
            check=CHECK,
            level=Level.FAIL,
            message=f"by {where} QEMU shuts a dead client out for {_time(diagnosis.fence_seconds)}; then "
            "that client writes again",
            cure=f"write `rbd blocklist expire seconds = {TEN_YEARS}` there"
            + (", or leave `qemuConf` out" if pool.qemu_conf else ""),
        )
    if not diagnosis.fences:
        yield Finding(
            check=CHECK,
            level=Level.FAIL,
            message=f"client.{pool.qemu_user} has rbd_blocklist_on_break_lock false: QEMU takes over a dead "
            "client's lock without shutting that client out",
            cure=f"take it out of {where}, and: ceph config rm client rbd_blocklist_on_break_lock",
        )
    if diagnosis.fences and diagnosis.fence_seconds >= YEAR:
        message = f"guests of client.{pool.qemu_user} shut dead clients out for years"
        yield Finding(check=CHECK, level=Level.OK, message=message)


def _time(seconds: float) -> str:
    return f"{seconds:g} s only" if seconds else "Ceph's default time only, which is an hour"
