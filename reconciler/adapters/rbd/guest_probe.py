"""Tries out, as QEMU's own Ceph user, what guests need and what they must not be able to do (SAFETY rules 11
and 16): a guest that takes over its QEMU has that user's rights.

Invariant: as of adapters/rados/probe.py, whose trials these are: nothing that matters is changed. What is
tried beyond the images is a name that nothing has: Ceph looks at the rights before it looks for the thing.
The blocklist's entry of an address that no host has stays for a minute, as this user may not remove it.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rados

from reconciler.adapters.rados.link import Place
from reconciler.adapters.rados.monitors import Monitors
from reconciler.adapters.rados.probe import Right, rights
from reconciler.adapters.rbd.cluster import Clusters, Limits
from reconciler.adapters.rbd.errors import ceph_errors
from reconciler.adapters.rbd.guests import find_key, write_conf
from reconciler.resources.infrastructure import RbdPool

SECONDS = 5
"""For each question. Ceph has been found to answer by then."""
NOBODY = "client.vcl-doctor-nobody"

_NEEDED = ("osd blocklist add", "osd blocklist ls", "lock break in ")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestDiagnosis:
    """`missing`: what guests need and may not do. `beyond`: what they may do and do not need, in words.
    `fence_seconds`: how long an entry of the blocklist lasts that QEMU makes, 0 for the monitors' default;
    `fences`: whether it makes one when it takes a dead client's lock."""

    missing: tuple[Right, ...] = ()
    beyond: tuple[str, ...] = ()
    fence_seconds: float = 0.0
    fences: bool = True


def diagnose_guests(pools: Sequence[RbdPool], state: Place) -> GuestDiagnosis:
    """Try the guests' user out, which these pools share, with the configuration that QEMU gets. `state` is
    where it has no business. Blocks. Raises PoolUnavailable without its key, StoreUnavailable when Ceph does
    not answer or refuses the key."""
    first = pools[0]
    key = _key(first)
    with _conf(first) as conf, Monitors.connect(conf, first.qemu_user, timeout=SECONDS, key=key) as guest:
        images = [f"{pool.pool}/{pool.namespace}".rstrip("/") for pool in pools]
        tried = rights(guest, state, images)
        needed = [right for right in tried if right.name.startswith(_NEEDED)]
        beyond = [right.name for right in tried if right not in needed and not right.refused]
        beyond += ["read other users' keys"] if _reads_keys(guest) else []
        others = guest.pools() - {pool.pool for pool in pools}
        beyond += [f"write to pool {name}" for name in _writable(guest, sorted(others))]
        return GuestDiagnosis(
            missing=tuple(right for right in needed if right.refused),
            beyond=tuple(beyond),
            fence_seconds=float(guest.effective("rbd_blocklist_expire_seconds") or 0),
            fences=guest.effective("rbd_blocklist_on_break_lock") != "false",
        )


def _key(pool: RbdPool) -> str:
    """Where vcld finds it, too."""
    clusters = Clusters(Limits(op=SECONDS, monitor=SECONDS))
    cluster = clusters.get(pool.conf, pool.user)
    try:
        with ceph_errors(pool.pool, user=pool.user, pool=pool.pool):
            return find_key(cluster, pool.qemu_user, pool.qemu_keyring)
    finally:
        clusters.give_back(cluster)


@contextlib.contextmanager
def _conf(pool: RbdPool) -> Iterator[str]:
    """The person's own, or one such as vcld makes."""
    if pool.qemu_conf:
        yield pool.qemu_conf
        return
    with tempfile.TemporaryDirectory(prefix="vcl-doctor-") as directory:
        made = Path(directory, "guests.conf")
        write_conf(pool.conf, made, pool.qemu_user)
        yield str(made)


def _reads_keys(guest: Monitors) -> bool:
    """Whether only the user who is asked about is missing."""
    return guest.ask("auth get-key", entity=NOBODY).code in (0, errno.ENOENT)


def _writable(guest: Monitors, pools: Sequence[str]) -> list[str]:
    """Those where an object may be removed that is not there. A pool that does not answer ends it."""
    found = []
    for name in pools:
        context = guest.pool(name)
        try:
            context.remove_object(f"vcl-doctor.{secrets.token_hex(8)}")
        except rados.ObjectNotFound:
            found.append(name)
        except rados.TimedOut:
            break
        except rados.Error:
            continue
        finally:
            context.close()
    return found
