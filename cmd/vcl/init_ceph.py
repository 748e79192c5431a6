"""The part of `vcl init` that deals with Ceph: pools, users, their keyring files, and the store in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from reconciler.adapters.rados import Place, RadosStore
from reconciler.adapters.rados.monitors import AccessDenied, Monitors, keyring_of
from reconciler.adapters.rados.probe import rights
from reconciler.adapters.rados.setup import Wanted, from_nothing, keyring, plan
from reconciler.ports.store import Store
from reconciler.resources.errors import InvalidInput, StoreUnavailable
from vcl.init_plan import CephAsked
from vcl.node_files import SECRET_MODE, Hand, keys_differ
from vcl.session import warn

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a new pool may take until it can be written to."""


def place_of(ceph: CephAsked) -> Place:
    """Where the store is."""
    return Place(conf=ceph.conf, user=ceph.user, pool=ceph.pool, namespace=ceph.namespace, object=ceph.object)


def prepare(ceph: CephAsked, hand: Hand) -> None:
    """Pools, users and keyring files. Raises InvalidInput with the commands
    when somebody else has to run them, StoreUnavailable."""
    wanted = _wanted(ceph)
    try:
        with Monitors.connect(ceph.conf, ceph.admin) as admin:
            for step in plan(admin, wanted):
                for command in step.commands if not hand.dry else ():
                    admin.run(command)
                if step.commands:
                    hand.did(step.what + "".join(f"\n             {command}" for command in step.commands))
                else:
                    hand.kept(step.what)
            for user in wanted.users():
                _keyring_file(ceph, admin, user, hand)
    except AccessDenied as error:
        _prepared_by_others(ceph, wanted, error, hand)


def keyrings(ceph: CephAsked) -> dict[str, str]:
    """The keyring files that are there, by user."""
    found = {}
    for user in (ceph.user, ceph.qemu_user):
        path = Path(keyring_of(ceph.conf, user))
        if path.exists():
            found[user] = path.read_text(encoding="utf-8")
    return found


def with_store(ceph: CephAsked, work: Callable[[Store], Awaitable[T]]) -> T:
    """Do something with the store, made if it is not there. Raises StoreError and what `work` raises."""

    async def run() -> T:
        store = await _open(place_of(ceph))
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def has_state(ceph: CephAsked) -> bool:
    """Whether there is a store already. Raises StoreUnavailable."""
    with Monitors.connect(ceph.conf, ceph.user) as monitors:
        return ceph.pool in monitors.pools() and monitors.has_object(ceph.pool, ceph.namespace, ceph.object)


async def _open(place: Place) -> RadosStore:
    """A pool that was just made answers after some seconds."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await RadosStore.open(place)
        except StoreUnavailable:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(1.0)


def _wanted(ceph: CephAsked) -> Wanted:
    return Wanted(
        pool=ceph.pool,
        namespace=ceph.namespace,
        images=ceph.images,
        user=ceph.user,
        qemu_user=ceph.qemu_user,
    )


def _keyring_file(ceph: CephAsked, admin: Monitors, user: str, hand: Hand) -> None:
    path = Path(keyring_of(ceph.conf, user))
    if hand.dry and not path.exists():
        hand.did(str(path))
        return
    text = keyring(admin, user)
    if keys_differ(path, user, text):
        raise InvalidInput(
            f"{path} has another key than Ceph has for client.{user}",
            cure=f"move the file away, and run this again; or look at `ceph auth get client.{user}`",
        )
    if path.exists():
        hand.kept(str(path))
        return
    try:
        hand.put(path, text.encode(), SECRET_MODE)
    except OSError as error:
        made_by = f"ceph auth get client.{user} -o {path}"
        warn(f"{path} cannot be written ({error.strerror}): make it with `{made_by}`")


def _prepared_by_others(ceph: CephAsked, wanted: Wanted, error: AccessDenied, hand: Hand) -> None:
    """Go on if everything is there and allowed already. Raises InvalidInput otherwise."""
    lacking = _lacking(ceph, wanted)
    if not lacking:
        for name in (wanted.pool, *wanted.images):
            hand.kept(f"pool {name}")
        hand.kept(f"Ceph user client.{ceph.user}, with all rights that vcl needs")
        return
    files = {user: keyring_of(ceph.conf, user) for user in wanted.users()}
    raise InvalidInput(
        f"Ceph cannot be set up from here: {error.message}; and so far {lacking}",
        problems=tuple(str(command) for command in from_nothing(wanted, files)),
        cure="run the commands above where you may administer Ceph, bring the keyring files "
        f"{' and '.join(files.values())} here (mode 0600), and run this again",
    )


def _lacking(ceph: CephAsked, wanted: Wanted) -> str:
    """What stands in the way of client.USER; empty for nothing."""
    try:
        with Monitors.connect(ceph.conf, ceph.user) as monitors:
            missing = sorted({wanted.pool, *wanted.images} - monitors.pools())
            if missing:
                return f"Ceph has no pool {', '.join(missing)}"
            refused = [r for r in rights(monitors, place_of(ceph), wanted.images) if r.refused]
    except AccessDenied as error:
        return error.message
    return "; ".join(f"client.{ceph.user} may not do '{r.name}': {r.refused}" for r in refused)
