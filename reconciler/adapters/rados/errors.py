"""What Ceph's errors mean for the person who runs the store, and which prove that nothing happened."""

from __future__ import annotations

import errno

import rados

from reconciler.resources.errors import StoreUnavailable

REFUSED = frozenset({errno.ECANCELED, errno.ENOENT})
"""A compare did not hold: another version, or no object at all."""

NO_EFFECT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMSGSIZE})
"""Answers of a write that the OSD gives only after it made sure that it has not applied it before. All others
leave it unknown: a client whose connection broke sends again, and what the second attempt meets (a blocklist,
other rights, a time-out) says nothing about the first."""

_MEANING = {
    errno.ESHUTDOWN: (
        "this host is blocklisted: the cluster has fenced it",
        "look at `ceph osd blocklist ls` and at `vcl get nodes`; vcld goes on once the host is let in",
    ),
    errno.ETIMEDOUT: ("Ceph does not answer", "look at `ceph status` and at the network to its hosts"),
    errno.EPERM: ("Ceph refuses access", "look at the user's rights with `ceph auth get`"),
    errno.EACCES: ("Ceph refuses the user's key", "look at its keyring file and at `ceph auth get`"),
    errno.ENOENT: ("it does not exist", "look at the name of the pool, and whether somebody removed it"),
    errno.ENOSPC: ("Ceph is full", "add OSDs or remove data; vcl goes on by itself"),
    errno.EDQUOT: ("the pool's quota is used up", "raise it with `ceph osd pool set-quota`"),
    errno.EMSGSIZE: ("the transaction is too large for Ceph", "store something smaller"),
    errno.ENOTCONN: ("the connection to Ceph is closed", "look at `ceph status`"),
}


def number(error: rados.Error) -> int:
    """Its errno; 0 for the binding's own errors."""
    found = getattr(error, "errno", 0)
    return abs(found) if isinstance(found, int) else 0


def translate(error: rados.Error, where: str) -> StoreUnavailable:
    """The error in words, with the place and a cure; the cause is chained."""
    what, cure = _MEANING.get(number(error), ("Ceph reports an error", "look at `ceph status`"))
    unavailable = StoreUnavailable(f"the store {where}: {what} ({error})", cure=cure)
    unavailable.__cause__ = error
    return unavailable


def cannot_connect(error: rados.Error, conf: str, user: str) -> StoreUnavailable:
    """The same for a connection that could not be made."""
    cures = {
        errno.ENOENT: f"look at {conf}, and whether the keyring that it names has the key of client.{user}",
        errno.ETIMEDOUT: f"look at `mon host` in {conf}, the monitors and the network",
    }
    known = _MEANING.get(number(error), ("", "look at `ceph status`"))[1]
    unavailable = StoreUnavailable(
        f"cannot connect to Ceph with {conf} as client.{user}: {error}",
        cure=cures.get(number(error), known),
    )
    unavailable.__cause__ = error
    return unavailable


def closed(where: str) -> StoreUnavailable:
    """What every call on a closed store gets."""
    return StoreUnavailable(f"the store {where} is closed")
