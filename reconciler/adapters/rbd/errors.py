"""What Ceph's errors mean for the person who has images in a pool."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import rados
import rbd

from reconciler.resources.errors import (
    AlreadyExists,
    DiskError,
    ImageInUse,
    ImageInvalid,
    ImageMissing,
    NoSpace,
    PoolUnavailable,
    VclError,
)

LOST = frozenset({errno.ESHUTDOWN, errno.ENOTCONN})
"""The connection is of no use any more: it was blocklisted, or closed."""

_AWAY = {
    errno.ESHUTDOWN: (
        "this host, or vcld on it, is blocklisted: the cluster has fenced it",
        "look at `ceph osd blocklist ls` and at `vcl get nodes`",
    ),
    errno.ETIMEDOUT: ("Ceph does not answer", "look at `ceph status` and at the network to its hosts"),
    errno.ENOTCONN: ("the connection to Ceph is closed", "look at `ceph status`"),
}


def number(error: rados.Error | rbd.Error) -> int:
    """Its errno; 0 for the bindings' own errors."""
    found = getattr(error, "errno", 0)
    return abs(found) if isinstance(found, int) else 0


def needed_caps(user: str, pool: str) -> str:
    """How vcl's user gets what it needs for a pool of images. `ceph auth caps` replaces all that a user may
    do, so no command is told here that would leave out its right to the cluster's state."""
    return (
        f"run `vcl init` again where client.admin's keyring is; `vcl doctor` tells what client.{user} may "
        f"not do, and all the caps that it is to have (for this pool: osd 'profile rbd pool={pool}')"
    )


def translate(error: rados.Error | rbd.Error, where: str, *, user: str, pool: str) -> VclError:
    """The error in our words, with the place and a cure. What says nothing about an image is
    PoolUnavailable: unknown is never "not there"."""
    code = number(error)
    if isinstance(error, rbd.ImageNotFound):
        return ImageMissing(f"there is no image {where}")
    if code in (errno.ENOSPC, errno.EDQUOT):
        what = "the pool's quota is used up" if code == errno.EDQUOT else "Ceph is full"
        return NoSpace(f"{where}: {what}", cure="remove data, add OSDs, or raise the pool's quota")
    if code == errno.EEXIST:
        return AlreadyExists(f"{where} exists already")
    if code in (errno.EBUSY, errno.ENOTEMPTY):
        return ImageInUse(f"{where} is in use ({error})", cure=f"`rbd status` and `rbd lock ls` {where}")
    if code == errno.EROFS:
        return ImageInUse(f"{where} cannot be written: somebody else took its lock", cure="stop that first")
    if code in (errno.EPERM, errno.EACCES):
        return PoolUnavailable(
            f"{where}: Ceph refuses this to client.{user}: caps are missing", cure=needed_caps(user, pool)
        )
    if isinstance(error, rados.ObjectNotFound):
        return PoolUnavailable(
            f"{where}: there is no Ceph pool '{pool}'",
            cure=f"make it: ceph osd pool create {pool}; rbd pool init {pool}",
        )
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EDOM):
        return ImageInvalid(f"{where}: RBD refuses this: {error}")
    what, cure = _AWAY.get(code, ("Ceph reports an error", "look at `ceph status`"))
    return PoolUnavailable(f"{where}: {what} ({error})", cure=cure)


def cannot_connect(error: rados.Error, conf: str, user: str) -> DiskError:
    """Of a connection that could not be made."""
    cures = {
        errno.ENOENT: f"look at {conf}, and whether the keyring that it names has the key of client.{user}",
        errno.EACCES: f"look at the keyring of client.{user} and at `ceph auth get client.{user}`",
        errno.ETIMEDOUT: f"look at `mon host` in {conf}, the monitors and the network",
    }
    return PoolUnavailable(
        f"cannot connect to Ceph with {conf} as client.{user}: {error}",
        cure=cures.get(number(error), "look at `ceph status`"),
    )


@contextlib.contextmanager
def ceph_errors(where: str, *, user: str, pool: str) -> Iterator[None]:
    """Ceph's errors about `where`, as ours."""
    try:
        yield
    except (rados.Error, rbd.Error) as error:
        raise translate(error, where, user=user, pool=pool) from error
