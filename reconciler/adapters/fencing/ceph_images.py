"""Who has an RBD image open or locked, and breaking what the fenced have left locked. Blocking calls.

Looking does not open the image, so it leaves no watch of its own behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import rados
import rbd

from reconciler.resources.fencing import canonical
from reconciler.resources.images import RbdIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """Addresses of clients: those that have it open for writing, and the owners of its locks by (client id,
    cookie)."""

    watchers: tuple[str, ...] = ()
    locks: tuple[tuple[str, str, str], ...] = ()
    """(client such as client.4123, cookie, address)"""

    @property
    def addresses(self) -> frozenset[str]:
        """Of all of them."""
        return frozenset(map(canonical, (*self.watchers, *(address for _, _, address in self.locks))))


def users(cluster: Any, image: RbdIdentity) -> Users:
    """Who uses it; nobody when it is gone. Raises rados.Error, rbd.Error."""
    with cluster.open_ioctx(image.pool) as ioctx:
        ioctx.set_namespace(image.namespace)
        ioctx.set_osdmap_full_try()
        try:
            with rbd.Image(ioctx, image_id=image.id, read_only=True) as opened:
                watchers = tuple(sorted({each["addr"] for each in opened.watchers_list()}))
                held = opened.list_lockers() or {}
        except rbd.ImageNotFound:
            return Users()
        return Users(watchers=watchers, locks=tuple(held.get("lockers", ())))


def break_locks(cluster: Any, image: RbdIdentity, fenced: frozenset[str]) -> tuple[str, ...]:
    """Break every lock whose owner is in `fenced`; what was broken. One that is gone meanwhile is as good.
    Raises rados.Error, rbd.Error."""
    broken = []
    for client, cookie, address in users(cluster, image).locks:
        if canonical(address) not in fenced:
            continue
        with cluster.open_ioctx(image.pool) as ioctx:
            ioctx.set_namespace(image.namespace)
            try:
                with rbd.Image(ioctx, image_id=image.id, read_only=False) as opened:
                    opened.break_lock(client, cookie)
            except rbd.ImageNotFound:
                continue
        broken.append(f"{image.where}: the lock of {canonical(address)}")
    return tuple(broken)


Trouble = (rados.Error, rbd.Error)
"""What these functions raise."""
