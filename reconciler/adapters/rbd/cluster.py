"""One connection to a Ceph cluster for each (configuration file, user), shared by all pools of images.

It is made when first needed and made anew after it was lost (a blocklisted client never recovers). Every
method blocks and belongs on a worker thread; Ceph's own limits end it.
Invariant: a handle is shut down only when nobody uses it any more: librados crashes the process otherwise.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import rados
import rbd

from reconciler.adapters.rados.answers import values
from reconciler.adapters.rados.connecting import FENCE_SECONDS, connect
from reconciler.adapters.rbd.errors import LOST, cannot_connect, number
from reconciler.resources.errors import PoolUnavailable

_MONITORS_SECONDS = 60.0
"""How long a list of monitors is good enough for new guests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Whole seconds. `op`: of one operation of an OSD; `monitor`: of connecting and of monitor commands."""

    op: int = 30
    monitor: int = 10


@dataclass(slots=True, eq=False)
class _Session:
    handle: Any
    users: int = 0
    stale: bool = False


class Cluster:
    """Use `Clusters.get`. `conf` and `user` are as in a pool's spec."""

    def __init__(self, conf: str, user: str, limits: Limits) -> None:
        self.conf = conf
        self.user = user
        self._limits = limits
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._closed = False
        self._fsid = ""
        self.addresses: tuple[str, ...] = ()
        """Those that its connections have had so far, as Ceph knows them."""
        self._monitors: tuple[float, tuple[str, ...]] = (float("-inf"), ())

    @contextlib.contextmanager
    def handle(self) -> Iterator[Any]:
        """The connected rados.Rados. Raises PoolUnavailable when it cannot be had."""
        session = self._enter()
        try:
            yield session.handle
        except (rados.Error, rbd.Error) as error:
            session.stale = session.stale or number(error) in LOST
            raise
        finally:
            self._leave(session)

    @contextlib.contextmanager
    def pool(self, pool: str, namespace: str = "") -> Iterator[Any]:
        """An I/O context of a pool. Raises PoolUnavailable and what Ceph raises."""
        with self.handle() as handle, contextlib.closing(handle.open_ioctx(pool)) as context:
            context.set_namespace(namespace)
            yield context

    def command(self, **words: object) -> list[Any]:
        """The JSON values that a monitor command prints. Raises rados.Error when it is refused."""
        with self.handle() as handle:
            question = json.dumps({**words, "format": "json"})
            code, answer, complaint = handle.mon_command(question, b"")
            if code:
                raise rados.OSError(f"{words.get('prefix')}: {complaint}", errno=abs(code))
        return list(values(answer.decode()))

    def fsid(self) -> str:
        """The cluster's identity."""
        with self.handle() as handle:
            found = str(handle.get_fsid())
        if self._fsid and found != self._fsid:
            raise PoolUnavailable(
                f"{self.conf} leads to the Ceph cluster {found} now, and not to {self._fsid}",
                cure="correct it, or restart vcld if that is meant",
            )
        self._fsid = found
        return found

    def own_entity(self) -> str:
        """This connection, as watchers and locks name it: 'client.4193'."""
        with self.handle() as handle:
            return f"client.{handle.get_instance_id()}"

    def monitors(self) -> tuple[str, ...]:
        """All monitors as HOST:PORT; of each its address that every client can talk to."""
        read, known = self._monitors
        if time.monotonic() - read < _MONITORS_SECONDS:
            return known
        dump = self.command(prefix="mon dump")[0]
        found = tuple(_address(monitor) for monitor in dump["mons"])
        self._monitors = (time.monotonic(), found)
        return found

    def close(self) -> None:
        """Disconnect once the last call has ended."""
        with self._lock:
            self._closed = True
            session, self._session = self._session, None
            idle = session is not None and session.users == 0
        if session is not None:
            session.stale = True
            if idle:  # not on the event loop: it may wait for the monitors
                threading.Thread(target=session.handle.shutdown, name="rbd-shutdown").start()

    def _enter(self) -> _Session:
        with self._lock:
            if self._closed:
                raise PoolUnavailable(f"the connection to Ceph with {self.conf} is closed")
            session = self._session
            if session is None or session.stale:
                session = self._session = _Session(self._connect())
            session.users += 1
            return session

    def _leave(self, session: _Session) -> None:
        with self._lock:
            session.users -= 1
            done = session.stale and session.users == 0
            if done and self._session is session:
                self._session = None
        if done:
            session.handle.shutdown()

    def _connect(self) -> Any:
        try:
            handle = connect(
                self.conf,
                self.user,
                op_timeout=self._limits.op,
                connect_timeout=self._limits.monitor,
                settings={"rbd_blocklist_expire_seconds": FENCE_SECONDS},
            )
        except rados.Error as error:
            raise cannot_connect(error, self.conf, self.user) from error
        self.addresses = (*self.addresses, handle.get_addrs())
        return handle


class Clusters:
    """The connections of this process. Those who `get` one `give_back` it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._made: dict[tuple[str, str], tuple[Cluster, int]] = {}
        self._gone: tuple[str, ...] = ()

    def get(self, conf: str, user: str) -> Cluster:
        """The one for this configuration file and user; connects later."""
        cluster, users = self._made.get((conf, user), (None, 0))
        cluster = cluster or Cluster(conf, user, self._limits)
        self._made[(conf, user)] = (cluster, users + 1)
        return cluster

    @property
    def addresses(self) -> tuple[str, ...]:
        """Their clients of Ceph, all so far."""
        made = (cluster for cluster, _ in self._made.values())
        return (*self._gone, *(address for cluster in made for address in cluster.addresses))

    def give_back(self, cluster: Cluster) -> None:
        """Close it when nobody else has it. Blocks for a moment."""
        key = (cluster.conf, cluster.user)
        known, users = self._made[key]
        if users > 1:
            self._made[key] = (known, users - 1)
        else:
            del self._made[key]
            self._gone = (*self._gone, *cluster.addresses)
            cluster.close()


def _address(monitor: Any) -> str:
    """A monitor's older address if it has one: any client speaks that protocol, and QEMU is told no other."""
    vector = monitor["public_addrs"]["addrvec"]
    ranked = sorted(vector, key=lambda address: str(address["type"]))
    return str(ranked[0]["addr"])
