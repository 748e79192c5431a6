"""The nodes' leases in the omap of one RADOS object, away from the state's: renewing never waits for state.

Nothing is compared: each node writes its own key only, and a lease is a hint. A renewal that timed out may
still arrive later, which makes a node look alive for a moment longer, and costs nothing else.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

from reconciler.adapters.event_loop import post
from reconciler.adapters.rados.errors import closed
from reconciler.adapters.rados.link import Link
from reconciler.resources.errors import StoreUnavailable

T = TypeVar("T")

JOIN_SECONDS = 7.0
"""How long `close` waits for a call that Ceph still holds: librados gives up after its own time-outs."""


class RadosLeases:
    """The Leases port on an object beside the state's. One thread, so calls are made in order."""

    def __init__(self, link: Link) -> None:
        """`link` belongs to the store; `close` this first."""
        self._link = link
        self._object = f"{link.place.object}.leases"
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="vcl-rados-leases", daemon=True)
        self._closed = False
        self._thread.start()

    async def renew(self, node: str, value: bytes, *, timeout: float) -> None:
        """See Leases.renew."""
        await self._call(lambda: self._link.put_hint(self._object, node, value), timeout)

    async def read(self, *, timeout: float) -> Mapping[str, bytes]:
        """See Leases.read."""
        return await self._call(lambda: self._link.read_hints(self._object), timeout)

    async def close(self) -> None:
        """See Leases.close."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join, JOIN_SECONDS)

    async def _call(self, work: Callable[[], T], timeout: float) -> T:
        if self._closed:
            raise closed(self._object)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(set_outcome: Callable[[], None]) -> None:
            if not done.done():
                set_outcome()

        def job() -> None:
            if done.cancelled():
                return
            try:
                result = work()
            except StoreUnavailable as error:
                failure = error
                post(loop, lambda: settle(lambda: done.set_exception(failure)))
            else:
                post(loop, lambda: settle(lambda: done.set_result(result)))

        self._jobs.put(job)
        try:
            async with asyncio.timeout(timeout):
                return await done
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the leases in {self._link.place.pool} were not answered for within {timeout:g} s",
                cure="look at `ceph status` and at the network to its hosts",
            ) from error

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
