"""Commands for Ceph's monitors on a connection of the fencer's own, sent again when they are not answered.

Invariant: nothing here waits for longer than it is told. A monitor that is newly dead keeps a command waiting
for 2 to 12 s, so several are sent at once, and a new connection is made once one was not answered.
"""

from __future__ import annotations

import asyncio
import errno
import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import rados

from reconciler.adapters.rados.answers import values
from reconciler.adapters.rados.connecting import connect
from reconciler.resources.errors import FenceFailed

T = TypeVar("T")

ANSWER = 5
"""Seconds for one attempt at a command; librados takes whole ones."""
THREADS = 16
_BREAK = {"rbd_blocklist_on_break_lock": "false"}
"""Locks are broken only of clients that the blocklist was seen to hold for years; to have librbd enter each
once more took a second per lock."""
_NEEDS = 'allow command "osd blocklist"'


class _Connection:
    """librados must not be shut down under a call: the last user of a dropped connection ends it."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.users = 0
        self.dropped = False


class MonCommands:
    """As client.USER, connected when first needed. `close` at the end, or librados aborts the process."""

    def __init__(self, conf: str, user: str, *, answer: int = ANSWER) -> None:
        self.user = user
        self._conf = conf
        self._answer = answer
        self._pool = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="vcl-fence")
        self._connecting = threading.Lock()
        self._counting = threading.Lock()
        self._connection: _Connection | None = None
        self._closed = False
        self.addresses: tuple[str, ...] = ()
        """Those that its connections have had so far, as Ceph knows them."""

    async def ask(
        self,
        deadline: float,
        prefix: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        again: bool = True,
    ) -> Any:
        """The command's answer (JSON, or None). With `again` it is sent until `deadline` (monotonic), and
        must be one that may take effect twice, and late. Raises FenceFailed."""
        error: FenceFailed | None = None
        while (left := deadline - time.monotonic()) > 0:
            try:
                return await self.call(lambda cluster: self._command(cluster, prefix, arguments or {}), left)
            except _NoAnswer as silent:
                error = silent
                self._drop()
                if not again:
                    break
        raise error or FenceFailed(f"Ceph's monitors did not answer `{prefix}` in time")

    async def call(self, work: Callable[[Any], T], timeout: float) -> T:
        """Run `work` with the connection on a thread, for `timeout` seconds at most; it may still be done
        then. Raises FenceFailed."""
        if self._closed:
            raise FenceFailed("the fencer is closed")
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._with_cluster, work)
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(future)
        except BaseException as error:
            future.add_done_callback(_forget)
            if isinstance(error, TimeoutError):
                raise _NoAnswer("Ceph does not answer", cure="look at `ceph status`") from error
            raise

    def close(self) -> None:
        """Disconnect, once the calls under way have ended."""
        self._closed = True
        self._drop()
        self._pool.shutdown(wait=False)

    def _with_cluster(self, work: Callable[[Any], T]) -> T:
        try:
            connection = self._take()
            try:
                return work(connection.cluster)
            finally:
                self._give_back(connection)
        except rados.Error as error:
            raise self._explained(error) from error

    def _take(self) -> _Connection:
        with self._connecting:
            if self._connection is None:
                limit = self._answer
                cluster = connect(
                    self._conf, self.user, op_timeout=limit, connect_timeout=limit, settings=_BREAK
                )
                self.addresses = (*self.addresses, cluster.get_addrs())
                self._connection = _Connection(cluster)
            with self._counting:
                self._connection.users += 1
            return self._connection

    def _give_back(self, connection: _Connection) -> None:
        with self._counting:
            connection.users -= 1
            last = connection.dropped and connection.users == 0
        if last or self._closed:
            self._end(connection)

    def _drop(self) -> None:
        """The next call connects anew; whoever is connecting at this moment may stay with what it gets."""
        if not self._connecting.acquire(blocking=False):
            return
        try:
            connection, self._connection = self._connection, None
        finally:
            self._connecting.release()
        if connection is not None:
            self._end(connection)

    def _end(self, connection: _Connection) -> None:
        with self._counting:
            connection.dropped = True
            if connection.users:
                return
        threading.Thread(target=connection.cluster.shutdown, name="vcl-fence-end").start()

    def _command(self, cluster: Any, prefix: str, arguments: Mapping[str, Any]) -> Any:
        document = json.dumps({"prefix": prefix, "format": "json", **arguments})
        code, output, said = cluster.mon_command(document, b"")
        match abs(code):
            case 0:
                return _first(output)
            case errno.EACCES | errno.EPERM:
                raise FenceFailed(
                    f"Ceph's user client.{self.user} may not run `{prefix}`",
                    cure=f"give it the right: ceph auth caps client.{self.user} mon "
                    f"'profile rbd, {_NEEDS}, ...' (`vcl doctor` prints the whole command)",
                )
            case errno.ETIMEDOUT | errno.EINTR | errno.EAGAIN:
                raise _NoAnswer(f"Ceph's monitors did not answer `{prefix}`")
            case _:
                raise FenceFailed(f"`ceph {prefix}` failed: {said or errno.errorcode.get(abs(code), code)}")

    def _explained(self, error: rados.Error) -> FenceFailed:
        number = abs(getattr(error, "errno", 0) or 0)
        if number in (errno.ETIMEDOUT, errno.ENOTCONN, 0):
            return _NoAnswer(f"Ceph does not answer client.{self.user}: {error}")
        if number == errno.ESHUTDOWN:
            return FenceFailed(
                "this host is itself blocklisted", cure="look at `ceph osd blocklist ls` and `vcl get nodes`"
            )
        if number in (errno.EPERM, errno.EACCES, errno.ENOENT):
            return FenceFailed(
                f"Ceph refuses client.{self.user}: {error}",
                cure=f"look at its keyring and at `ceph auth get client.{self.user}`",
            )
        return FenceFailed(f"Ceph reports an error to client.{self.user}: {error}")


def _first(output: bytes) -> Any:
    """The first JSON value; None of an empty answer."""
    text = output.decode("utf-8", "replace")
    try:
        return next(values(text), None)
    except ValueError as error:
        raise FenceFailed(f"Ceph's monitors answered what cannot be read: {text[:200]!r}") from error


class _NoAnswer(FenceFailed):
    """Worth another attempt at once."""


def _forget(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()
