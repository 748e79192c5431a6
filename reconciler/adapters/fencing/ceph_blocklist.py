"""Fences a node out of one Ceph cluster: its blocklist takes every address and every known client of it.

Invariants (SAFETY rules 10-12): an entry counts only once `ls` shows that it lasts for years; one that ends
too soon is replaced while a lasting one covers it, because adding it again would not extend it; whole-host
entries go only while the single ones last; each command is harmless when it arrives late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from reconciler.adapters.fencing.ceph_images import Trouble, break_locks, users
from reconciler.adapters.fencing.entries import YEARS, Entries, parse, wanted_entries
from reconciler.adapters.fencing.mon_commands import MonCommands
from reconciler.ports.fencer import Guard
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import (
    Blocklisted,
    FenceMethod,
    FenceOrder,
    Proof,
    canonical,
    host_entry,
)
from reconciler.resources.images import RbdIdentity

_LOOK = 0.1
"""Seconds between looks whether an entry has come or gone."""


class CephBlocklistFencer:
    """`fsid` is asked of the cluster by `open`; `conf` and `user` are as in a pool's settings."""

    method = FenceMethod.CEPH_BLOCKLIST

    def __init__(self, commands: MonCommands, fsid: str, id: str = "ceph-blocklist") -> None:
        """Use `open`."""
        self.id: str = id
        self.fsid: str = fsid
        self._commands = commands

    @classmethod
    async def open(
        cls, conf: str, user: str, *, id: str = "ceph-blocklist", timeout: float = 10.0
    ) -> CephBlocklistFencer:
        """Connect. Raises FenceFailed."""
        commands = MonCommands(conf, user)
        try:
            fsid: str = await commands.call(lambda cluster: cluster.get_fsid(), timeout)
        except FenceFailed:
            commands.close()
            raise
        return cls(commands, fsid, id)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its own clients of Ceph, all so far."""
        return self._commands.addresses

    def unready(self, order: FenceOrder) -> str:
        """See Fencer."""
        return "" if order.addresses or order.clients else f"no Ceph client of {order.node} is known"

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """See Fencer. What has the images open or locked counts as the node's when it has its address."""
        deadline = time.monotonic() + timeout
        hosts, clients = wanted_entries(order)
        await guard()
        # First all that is known already, at once: looking at the images may take its time.
        await self._put((*hosts, *clients), deadline)
        observed = await self._observed(order, hosts, deadline)
        clients = tuple(sorted({*clients, *observed}))
        await guard()
        await self._put((*hosts, *clients), deadline)
        await self._extend(clients, hosts, guard, deadline)
        await self._extend(hosts, clients, guard, deadline)
        await self._see((*hosts, *clients), deadline)
        return Blocklisted(fsid=self.fsid, entries=(*hosts, *clients))

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See Fencer."""
        deadline = time.monotonic() + timeout
        hosts, clients = wanted_entries(order, proof.entries if isinstance(proof, Blocklisted) else ())
        entries = await self._read(deadline)
        if not entries.hold((*hosts, *clients)):
            gone = [entry for entry in (*hosts, *clients) if not entries.lasts(entry)]
            raise FenceFailed(f"{', '.join(gone)} is not in Ceph's blocklist, or not for long enough")
        await self._commands.call(lambda cluster: cluster.wait_for_latest_osdmap(), _left(deadline))
        await self._check_users(order, deadline)

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """See Fencer."""
        deadline = time.monotonic() + timeout
        images = self._images(order)
        if not images:
            return ()
        entries = await self._check_users(order, deadline)
        broken: list[str] = []
        for image in images:
            held = await self._at_image(image, deadline)
            fenced = frozenset(address for address in held if entries.covers(address))
            if not fenced:
                continue
            await guard()
            broken += await self._call_image(
                partial(break_locks, image=image, fenced=fenced), image, deadline
            )
        return tuple(broken)

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        """See Fencer."""
        deadline = time.monotonic() + timeout
        hosts, single = wanted_entries(order)
        if not clients:
            await guard()
            await self._put(single, deadline)
            await self._extend(single, hosts, guard, deadline)
            await self._see(single, deadline)
        await guard()
        await self._take((*hosts, *(single if clients else ())), deadline)

    async def let_in(self, addresses: Iterable[str], *, timeout: float) -> None:
        """Remove the whole-host entries of this host's own addresses: works while it is blocklisted. Only for
        a host that `planning.homecoming` lets do so. Raises FenceFailed."""
        await self._take(map(host_entry, addresses), time.monotonic() + timeout)

    async def listed(
        self, entries: Iterable[str], *, timeout: float, lasting: bool = False
    ) -> frozenset[str]:
        """Which of these the blocklist has now, for however long, or with `lasting` for years; works while
        this host is on it. Raises FenceFailed."""
        found = await self._read(time.monotonic() + timeout)
        there = (entry for entry in map(canonical, entries) if entry in found.until)
        return frozenset(entry for entry in there if found.lasts(entry) or not lasting)

    async def close(self) -> None:
        """See Fencer."""
        self._commands.close()

    async def _put(self, wanted: Iterable[str], deadline: float) -> None:
        """Add those that are not there, all at once."""
        missing = (await self._read(deadline)).missing(wanted)
        await asyncio.gather(*(self._command("add", entry, deadline) for entry in missing))

    async def _take(self, entries: Iterable[str], deadline: float) -> None:
        """Remove those that are there, and see them gone."""
        wanted = tuple(entries)
        while True:
            until = (await self._read(deadline)).until
            there = [entry for entry in wanted if entry in until]
            if not there:
                return
            await asyncio.gather(*(self._command("rm", entry, deadline) for entry in there))

    async def _extend(
        self, wanted: tuple[str, ...], covers: tuple[str, ...], guard: Guard, deadline: float
    ) -> None:
        """Replace those that end too soon, under the cover of others that last: whole hosts cover their
        clients, and the known clients' entries are what covers while a whole host's is replaced."""
        entries = await self._read(deadline)
        short = entries.short(wanted)
        if not short:
            return
        bare = [entry for entry in short if not self._covered(entry, covers, entries)]
        if bare:
            raise FenceFailed(
                f"{', '.join(bare)} is in Ceph's blocklist for a short time only, which cannot be extended, "
                "and no lasting entry covers it meanwhile",
                cure="wait until it has expired; it is then entered for years",
            )
        # Each of these is sent once: one that was not answered could arrive after the new entry was added.
        await guard()
        await asyncio.gather(*(self._command("rm", entry, deadline, again=False) for entry in short))
        left = set(short) & set((await self._read(deadline)).until)
        if left:
            raise FenceFailed(f"{', '.join(sorted(left))} did not leave Ceph's blocklist")
        await guard()
        await self._put(short, deadline)

    @staticmethod
    def _covered(entry: str, covers: tuple[str, ...], entries: Entries) -> bool:
        address, _, nonce = entry.rpartition(":")
        if nonce == "0/0":
            mine = [other for other in covers if other.rpartition(":")[0] == address]
            return entries.hold(mine)
        return f"{address}:0/0" in covers and entries.lasts(f"{address}:0/0")

    async def _see(self, wanted: tuple[str, ...], deadline: float) -> None:
        """Until the list shows that all of them last."""
        while not (entries := await self._read(deadline)).hold(wanted):
            lacking = [entry for entry in wanted if not entries.lasts(entry)]
            if _left(deadline) < _LOOK:
                raise FenceFailed(f"{', '.join(lacking)} did not come into Ceph's blocklist in time")
            await asyncio.sleep(_LOOK)

    async def _read(self, deadline: float) -> Entries:
        return parse(await self._commands.ask(deadline, "osd blocklist ls"), time.time())

    async def _command(self, what: str, entry: str, deadline: float, *, again: bool = True) -> None:
        arguments: dict[str, Any] = {"blocklistop": what, "addr": entry}
        if what == "add":
            arguments["expire"] = YEARS
        await self._commands.ask(deadline, "osd blocklist", arguments, again=again)

    def _images(self, order: FenceOrder) -> tuple[RbdIdentity, ...]:
        parsed = (RbdIdentity.parse(image) for image in order.images)
        return tuple(image for image in parsed if image is not None and image.fsid == self.fsid)

    async def _observed(self, order: FenceOrder, hosts: tuple[str, ...], deadline: float) -> set[str]:
        """Clients at the node's addresses that have an image of it open or locked, recorded or not."""
        found: set[str] = set()
        for image in self._images(order):
            for address in await self._at_image(image, deadline):
                if f"{address.rpartition(':')[0]}:0/0" in hosts:
                    found.add(address)
        return found

    async def _check_users(self, order: FenceOrder, deadline: float) -> Entries:
        """Every watcher and lock owner of the images is in the list, for years (rule 11)."""
        entries = await self._read(deadline)
        for image in self._images(order):
            free = sorted(a for a in await self._at_image(image, deadline) if not entries.covers(a))
            if free:
                where = ", ".join(free)
                raise FenceFailed(
                    f"the image {image.where} is open at {where}, which is no known client of {order.node}",
                    cure="end that client, or wait until it has closed the image",
                )
        return entries

    async def _at_image(self, image: RbdIdentity, deadline: float) -> frozenset[str]:
        found = await self._call_image(partial(users, image=image), image, deadline)
        return frozenset(map(canonical, found.addresses))

    async def _call_image(self, work: Any, image: RbdIdentity, deadline: float) -> Any:
        def guarded(cluster: Any) -> Any:
            try:
                return work(cluster)
            except Trouble as error:
                raise FenceFailed(
                    f"the image {image.where} cannot be looked at by client.{self._commands.user}: {error}",
                    cure=f"it needs `profile rbd pool={image.pool}`; look at `ceph status` otherwise",
                ) from error

        return await self._commands.call(guarded, _left(deadline))


def _left(deadline: float) -> float:
    return max(0.05, deadline - time.monotonic())
