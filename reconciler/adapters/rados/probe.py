"""Tries out, with vcl's own Ceph user, everything that running and failing over will need.

Invariant: it changes nothing that matters and leaves nothing behind. The blocklisted address is one that no
host has (TEST-NET-1), OSD and flag are ones that do not exist - Ceph looks at the rights before it looks at
the arguments - and objects are its own, made and removed.
"""

from __future__ import annotations

import contextlib
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import rados

from reconciler.adapters.rados.follow import load
from reconciler.adapters.rados.link import Link, Place
from reconciler.adapters.rados.monitors import Answer, Monitors, keyring_of, setting
from reconciler.resources import keys
from reconciler.resources.errors import StoreUnavailable, VclError

NOWHERE = "192.0.2.1:0"
EXPIRY = 60.0
"""Seconds after which Ceph forgets the entry, should it not be removed."""
NO_OSD, NO_FLAG = "999999", "vcl-doctor"
SETTINGS = {
    "osd_heartbeat_grace": "mon.a",
    "osd_heartbeat_interval": "osd.0",
    "mon_lease": "mon.a",
    "mon_election_timeout": "mon.a",
    "paxos_propose_interval": "mon.a",
    "mon_client_ping_interval": "osd.0",
    "mon_client_ping_timeout": "osd.0",
    "auth_allow_insecure_global_id_reclaim": "mon.a",
    "rbd_blocklist_expire_seconds": "client.admin",
    "mon_osd_blocklist_default_expire": "mon.a",
}
"""What is looked up, and whose section of the configuration says it: of those that both read, the one that is
forgotten more easily."""

_LOCK, _CLIENT = "vcl-doctor", 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Something that this user must be able to do; `refused` says why it cannot, or nothing."""

    name: str
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """`used`: how full it is, from 0 to 1."""

    name: str
    size: int
    min_size: int
    erasure: bool = False
    used: float = 0.0
    applications: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found. `health` maps the names of Ceph's own complaints to their words. `settings`: current
    values, as text. `members`: member/NODE values by node; `state`: why they cannot be read, or nothing.
    `keyring`: the file with this user's key."""

    fsid: str
    status: str
    health: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, PoolFacts] = field(default_factory=dict)
    rights: tuple[Right, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    state: str = ""
    members: Mapping[str, bytes] = field(default_factory=dict)
    keyring: str = ""


def diagnose(place: Place, image_pools: Sequence[str] = ()) -> Diagnosis:
    """Look at everything; without `image_pools`, at all pools that are meant for images. Raises
    StoreUnavailable when Ceph does not answer or refuses the key."""
    with Monitors.connect(place.conf, place.user) as monitors:
        health = monitors.ask("health").json()
        pools = _pools(monitors)
        meant = [name for name, pool in sorted(pools.items()) if "rbd" in pool.applications]
        images = [name for name in image_pools or meant if name in pools]
        state, members = _state(place) if place.pool in pools else ("", {})
        return Diagnosis(
            fsid=monitors.fsid,
            status=str(health["status"]),
            health={name: str(check["summary"]["message"]) for name, check in health["checks"].items()},
            pools=pools,
            rights=rights(monitors, place, images),
            settings=_settings(monitors),
            state=state,
            members=members,
            keyring=keyring_of(place.conf, place.user),
        )


def rights(monitors: Monitors, place: Place, image_pools: Sequence[str]) -> tuple[Right, ...]:
    """Each thing that failover needs, tried. `image_pools`: POOL or POOL/NAMESPACE."""
    found = [
        *_blocklist(monitors),
        _command(monitors, "osd down", ids=[NO_OSD]),
        _command(monitors, "osd set", key=NO_FLAG),
        _command(monitors, "osd unset", key=NO_FLAG),
        _tried(f"state in {place.pool}/{place.namespace}", lambda: _write_state(monitors, place)),
    ]
    found += [_tried(f"lock break in {pool}", partial(_break_lock, monitors, pool)) for pool in image_pools]
    return tuple(found)


def _blocklist(monitors: Monitors) -> list[Right]:
    """Add an entry, see it, remove it, see it gone."""
    address = f"{NOWHERE}/{secrets.randbelow(2**31) + 1}"
    added = monitors.ask("osd blocklist", blocklistop="add", addr=address, expire=EXPIRY)
    if added.code:
        return [Right(name="osd blocklist add", refused=_words(added))]
    listed = monitors.ask("osd blocklist ls")
    seen = _words(listed) if listed.code else "" if address.encode() in listed.output else "it shows no entry"
    removed = monitors.ask("osd blocklist", blocklistop="rm", addr=address)
    why = _words(removed) if removed.code else ""
    if not why and not seen and address.encode() in monitors.ask("osd blocklist ls").output:
        why = "the entry is still there"
    return [
        Right(name="osd blocklist add"),
        Right(name="osd blocklist ls", refused=seen),
        Right(name="osd blocklist rm", refused=why),
    ]


def _command(monitors: Monitors, prefix: str, **arguments: Any) -> Right:
    """Allowed, if what is wrong is the argument only."""
    answer = monitors.ask(prefix, **arguments)
    return Right(name=prefix, refused=_words(answer) if answer.denied else "")


def _tried(name: str, attempt: Callable[[], None]) -> Right:
    try:
        attempt()
    except (rados.Error, VclError) as error:
        return Right(name=name, refused=str(error))
    return Right(name=name)


def _write_state(monitors: Monitors, place: Place) -> None:
    """Write and read omap values, as the store does. Raises rados.Error, StoreUnavailable."""
    ioctx, name = monitors.pool(place.pool, place.namespace), _scratch()
    try:
        with rados.WriteOpCtx() as write:
            ioctx.set_omap(write, ("k",), (b"v",))
            ioctx.operate_write_op(write, name)
        with rados.ReadOpCtx() as read:
            page, _ = ioctx.get_omap_vals(read, "", "", 1)  # librados writes into it: it must live on
            ioctx.operate_read_op(read, name)
            if dict(page) != {"k": b"v"}:
                raise StoreUnavailable(f"{place}: what was written is not what was read", cure="look at Ceph")
    finally:
        _drop(ioctx, name)


def _break_lock(monitors: Monitors, where: str) -> None:
    """Lock an object as one client and break the lock as another, as `rbd lock break` does with an image.
    Raises rados.Error, StoreUnavailable."""
    name, (pool, _, namespace) = _scratch(), where.partition("/")
    mine = monitors.pool(pool, namespace)
    try:
        with monitors.again() as owner:
            theirs = owner.pool(pool, namespace)
            try:
                theirs.lock_exclusive(name, _LOCK, "theirs", "vcl doctor")
                mine.execute(name, "lock", "break_lock", _break_request("theirs", owner.instance))
                mine.lock_exclusive(name, _LOCK, "mine", "vcl doctor")
            finally:
                theirs.close()
    finally:
        _drop(mine, name)


def _break_request(cookie: str, owner: int) -> bytes:
    """cls_lock_break_op as Ceph encodes it (src/cls/lock/cls_lock_ops.h): version 1, the lock's name, the
    owner's type and number, its cookie."""
    body = _text(_LOCK) + struct.pack("<Bq", _CLIENT, owner) + _text(cookie)
    return struct.pack("<BBI", 1, 1, len(body)) + body


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data


def _drop(ioctx: Any, name: str) -> None:
    """Remove the object, if it was made and may be removed, and close the handle."""
    with contextlib.suppress(rados.Error):
        ioctx.remove_object(name)
    ioctx.close()


def _pools(monitors: Monitors) -> dict[str, PoolFacts]:
    told = monitors.ask("osd pool ls", detail="detail")
    usage = monitors.ask("df")
    full = {each["name"]: each["stats"].get("percent_used", 0.0) for each in usage.json()["pools"]}
    found = told.json() if not told.code else []
    return {
        each["pool_name"]: PoolFacts(
            name=each["pool_name"],
            size=each["size"],
            min_size=each["min_size"],
            erasure=each["type"] == 3,
            used=full.get(each["pool_name"], 0.0),
            applications=tuple(sorted(each.get("application_metadata") or {})),
        )
        for each in found
    }


def _settings(monitors: Monitors) -> dict[str, str]:
    """Ceph's central configuration, and below it what this host's file or the default says."""
    answer = monitors.ask("config dump")
    central: dict[tuple[str, str], str] = {}
    for each in answer.json() if not answer.code else []:
        central[each["section"], each["name"]] = str(each["value"])
    found = {}
    for name, entity in SETTINGS.items():
        sections = (entity.partition(".")[0], "global")
        values = [central[section, name] for section in sections if (section, name) in central]
        found[name] = values[0] if values else setting(monitors.conf, entity, name)
    return found


def _state(place: Place) -> tuple[str, dict[str, bytes]]:
    """Why the state cannot be read, or nothing, and its members."""
    try:
        link = Link.connect(place, op_timeout=5, connect_timeout=5)
    except StoreUnavailable as error:
        return str(error), {}
    try:
        items = load(link).listing(keys.MEMBERS).items
    except StoreUnavailable as error:
        return str(error), {}
    finally:
        link.shutdown()
    return "", {item.key.removeprefix(keys.MEMBERS): item.value for item in items}


def _scratch() -> str:
    return f"vcl-doctor.{secrets.token_hex(8)}"


def _words(answer: Answer) -> str:
    return "access denied" if answer.denied else answer.said or f"error {answer.code}"
