"""Checks of the daemon: does it answer, may we use it, and what does it see?"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from reconciler.resources.quantity import human_bytes
from vcl.checks.machine import Daemon, Finding, Level, Machine

DEFAULT_MANIFESTS = "/var/lib/vcl/manifests"
LITTLE_SPACE = 2 * 2**30


def daemon(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """vcld answers and is ready."""
    if not vcld.answers:
        yield Finding(check="daemon", level=Level.FAIL, message=vcld.error, cure=vcld.cure or "start vcld")
        return
    version = vcld.version.get("version", "?")
    yield Finding(check="daemon", level=Level.OK, message=f"vcld {version} answers on {vcld.socket}")
    for problem in vcld.problems:
        yield Finding(
            check="daemon", level=Level.FAIL, message=f"not ready: {problem}", cure="look at the daemon's log"
        )


def socket_rights(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Whoever may open the socket rules the cluster."""
    path = machine.path(vcld.socket)
    if not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & stat.S_IWOTH:
        yield Finding(
            check="socket",
            level=Level.FAIL,
            message=f"{vcld.socket} is open to everybody (mode {mode:04o}): any user can delete your VMs",
            cure="set socket.mode to '0660' in vcld's configuration, and restart it",
        )
    else:
        yield Finding(check="socket", level=Level.OK, message=f"{vcld.socket} has mode {mode:04o}")


def manifest_directory(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """The watched directory exists, and only root and friends write to it."""
    manifests = vcld.status.get("manifests")
    told = manifests.get("directory") or manifests.get("path") if isinstance(manifests, dict) else None
    name = str(told or DEFAULT_MANIFESTS)
    path = machine.path(name)
    if not path.is_dir():
        level = Level.FAIL if vcld.answers else Level.WARN
        yield Finding(
            check="manifests",
            level=level,
            message=f"the manifest directory {name} does not exist",
            cure="vcld makes it when it starts; if it was on a file system that is not mounted, mount it",
        )
    elif path.stat().st_mode & stat.S_IWOTH:
        yield Finding(
            check="manifests",
            level=Level.FAIL,
            message=f"{name} can be written by everybody, and so can your VMs",
            cure=f"chmod o-w {name}",
        )
    elif not machine.access(name, os.R_OK | os.X_OK):
        yield Finding(
            check="manifests",
            level=Level.WARN,
            message=f"you may not read {name}",
            cure="run this as root to check it",
        )
    else:
        yield Finding(check="manifests", level=Level.OK, message=f"{name} is there")


def held_deletions(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Deletions wait for a person."""
    held = vcld.status.get("heldDeletions")
    if isinstance(held, dict):
        yield Finding(
            check="deletions",
            level=Level.WARN,
            message=f"{len(held.get('objects') or [])} deletions are held: {held.get('reason', '')}",
            cure=f"put the files back, or let them go with 'vcl confirm {held.get('id')}'",
        )


def disk_space(machine: Machine, vcld: Daemon) -> Iterator[Finding]:
    """Room for state, and for images in every directory pool."""
    store = vcld.status.get("store")
    path = str(store.get("path") or "") if isinstance(store, dict) else ""
    places = {path.rpartition("/")[0] or "/var/lib/vcl": "vcl's state"}
    for pool in vcld.pools:
        spec = pool.get("spec") or {}
        name = (pool.get("metadata") or {}).get("name")
        if (spec.get("directory") or {}).get("path"):
            places[str(spec["directory"]["path"])] = f"the images of pool {name}"
    for place, what in places.items():
        yield _space(machine, place, what)


def _space(machine: Machine, place: str, what: str) -> Finding:
    existing = next(
        (p for p in (machine.path(place), *machine.path(place).parents) if p.is_dir()), machine.root
    )
    free = machine.free(str(existing))
    if free >= LITTLE_SPACE:
        return Finding(
            check="disk", level=Level.OK, message=f"{human_bytes(free)} free in {place} for {what}"
        )
    return Finding(
        check="disk",
        level=Level.WARN if free > LITTLE_SPACE // 20 else Level.FAIL,
        message=f"only {human_bytes(free)} free in {place} for {what}",
        cure="make room, or move it to a larger file system",
    )
