"""Ceph's OSDs by the monitors' commands `osd dump`, `osd down`, `osd set` and `osd unset`.

Invariant: nothing waits for longer than it is told. A monitor may have died with the OSDs: a command is sent
on two connections, which hunt for another monitor each by itself, and the first answer counts. Marking an OSD
down twice, or late, is harmless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.adapters.fencing.mon_commands import MonCommands
from reconciler.resources.errors import FenceFailed

_ADDRESSES = ("public_addrs", "cluster_addrs")


class CephOsds:
    """As client.USER, which needs `allow command "osd down"`."""

    def __init__(self, conf: str, user: str) -> None:
        """Connects when first asked."""
        self._ways = (MonCommands(conf, user), MonCommands(conf, user))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its own clients of Ceph, all so far."""
        return tuple(address for way in self._ways for address in way.addresses)

    async def locate(self, *, timeout: float) -> Mapping[int, frozenset[str]]:
        """See Osds. Keeps both connections open, so that none has to be made in a stall."""
        deadline = time.monotonic() + timeout
        dump, _ = await asyncio.gather(*(way.ask(deadline, "osd dump") for way in self._ways))
        try:
            return {int(osd["osd"]): _places(osd) for osd in dump["osds"] if osd["up"]}
        except (KeyError, TypeError, ValueError) as error:
            raise FenceFailed(f"Ceph's answer to `osd dump` cannot be read: {error!r}") from error

    async def mark_down(self, osds: Sequence[int], *, dead: bool, timeout: float) -> None:
        """See Osds."""
        deadline = time.monotonic() + timeout
        arguments: dict[str, Any] = {"ids": [str(osd) for osd in osds]}
        if dead:
            arguments["definitely_dead"] = True
        asked = [asyncio.create_task(way.ask(deadline, "osd down", arguments)) for way in self._ways]
        try:
            await _first_success(asked)
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def flags(self, *, timeout: float) -> frozenset[str]:
        """See CephFlags."""
        dump = await self._ways[0].ask(time.monotonic() + timeout, "osd dump")
        try:
            return frozenset(str(flag) for flag in dump["flags_set"])
        except (KeyError, TypeError) as error:
            raise FenceFailed(f"Ceph's answer to `osd dump` cannot be read: {error!r}") from error

    async def set_flag(self, flag: str, on: bool, *, timeout: float) -> None:
        """See CephFlags. As client.USER, which needs `allow command "osd set"` and `"osd unset"`."""
        verb = "osd set" if on else "osd unset"
        await self._ways[0].ask(time.monotonic() + timeout, verb, {"key": flag})

    async def close(self) -> None:
        """See Osds."""
        for way in self._ways:
            way.close()


async def _first_success(asked: Sequence[asyncio.Task[Any]]) -> None:
    error: BaseException | None = None
    for done in asyncio.as_completed(asked):
        try:
            await done
            return
        except FenceFailed as failed:
            error = failed
    if error is not None:
        raise error


def _places(osd: Mapping[str, Any]) -> frozenset[str]:
    """An address is 10.77.0.1:6800, or [fd00::1]:6800."""
    found = (each["addr"] for kind in _ADDRESSES for each in osd.get(kind, {}).get("addrvec", ()))
    return frozenset(address.rpartition(":")[0].strip("[]") for address in found)
