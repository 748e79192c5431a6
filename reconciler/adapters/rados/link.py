"""One connection to Ceph and the one object that holds the state: atomic reads and compared writes.

Every call blocks and belongs on a worker thread; librados' own limits end it (`op_timeout`), since its
defaults wait for ever. A process that ends while connected is aborted by librados: call `shutdown`.
"""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import rados

from reconciler.adapters.rados import records
from reconciler.adapters.rados.connecting import connect
from reconciler.adapters.rados.errors import NO_EFFECT, REFUSED, cannot_connect, number, translate
from reconciler.adapters.rados.records import Entry, Version
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.transactions import KeyValue

T = TypeVar("T")

PAGE = 1024
"""Entries that an OSD returns at most, whatever is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the state lives, and as whom. `conf` is Ceph's configuration file; it leads to the keyring."""

    conf: str
    user: str
    pool: str
    namespace: str
    object: str

    def __str__(self) -> str:
        return f"{self.pool}/{self.namespace}/{self.object}"


class WriteFailed(Exception):
    """A write that may be applied now, later or never; the cause says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """All or nothing: if the version is still `before`, it becomes `after`, with everything else."""

    before: Version
    after: Version
    items: Mapping[str, KeyValue | None]
    entries: tuple[Entry, ...]


class Link:
    """Connected until `shutdown`."""

    def __init__(self, place: Place, cluster: Any, ioctx: Any) -> None:
        """Use `connect`."""
        self.place = place
        self._cluster = cluster
        self._ioctx = ioctx
        self._open = True

    @classmethod
    def connect(cls, place: Place, *, op_timeout: int, connect_timeout: int) -> Link:
        """Whole seconds each (librados takes no others). Raises StoreUnavailable."""
        try:
            cluster = connect(place.conf, place.user, op_timeout=op_timeout, connect_timeout=connect_timeout)
        except rados.Error as error:
            raise cannot_connect(error, place.conf, place.user) from error
        try:
            ioctx = cluster.open_ioctx(place.pool)
            ioctx.set_namespace(place.namespace)
            ioctx.set_osdmap_full_try()
        except rados.Error as error:
            cluster.shutdown()
            raise translate(error, place.pool) from error
        return cls(place, cluster, ioctx)

    @property
    def address(self) -> str:
        """This client's address, as the cluster's blocklist knows it."""
        address: str = self._cluster.get_addrs()
        return address

    def create(self) -> None:
        """Make the object with an empty state, unless it exists."""
        first = Version(uid=str(uuid.uuid4())).encode()
        try:
            with rados.WriteOpCtx() as operation:
                operation.new(rados.LIBRADOS_CREATE_EXCLUSIVE)
                self._ioctx.set_omap(operation, (records.VERSION_KEY,), (first.encode("ascii"),))
                self._ioctx.operate_write_op(operation, self.place.object)
        except rados.ObjectExists:
            return
        except rados.Error as error:
            raise translate(error, str(self.place)) from error

    def read(self, after: int) -> tuple[Version, tuple[Entry, ...]]:
        """The version and the log's entries after a revision (a page of them), both of one instant. Raises
        StoreUnavailable."""
        start = records.log_key(after)
        version, page = self._read(start, records.LOG_PREFIX)
        return version, tuple(self._decoded(records.decode_entry, name, data) for name, data in page)

    def items(self) -> list[KeyValue]:
        """All keys, page by page: the pages may be of different versions. Raises StoreUnavailable."""
        found: list[KeyValue] = []
        after = ""
        while True:
            _, page = self._read(after, records.ITEM_PREFIX)
            if not page:
                return found
            found += [self._decoded(records.decode_item, name, data) for name, data in page]
            after = page[-1][0]

    def write(self, write: Write) -> bool:
        """False: the version was another one, and this attempt changed nothing. Raises WriteFailed, and
        StoreUnavailable when it certainly had no effect."""
        puts = {records.item_key(key): item for key, item in write.items.items()}
        values = {name: records.encode_item(item) for name, item in puts.items() if item is not None}
        for entry in write.entries:
            values[records.log_key(entry.revision)] = records.encode_entry(entry)
        values[records.VERSION_KEY] = write.after.encode().encode("ascii")
        gone = tuple(name for name, item in puts.items() if item is None)
        try:
            with rados.WriteOpCtx() as operation:
                operation.omap_cmp(records.VERSION_KEY, write.before.encode())
                self._ioctx.set_omap(operation, tuple(values), tuple(values.values()))
                if gone:
                    self._ioctx.remove_omap_keys(operation, gone)
                if write.after.compacted > write.before.compacted:
                    last = records.log_key(write.after.compacted + 1)
                    self._ioctx.remove_omap_range2(operation, records.log_key(0), last)
                self._ioctx.operate_write_op(operation, self.place.object)
        except rados.Error as error:
            if number(error) in REFUSED:
                return False
            if number(error) in NO_EFFECT:
                raise translate(error, str(self.place)) from error
            raise WriteFailed(translate(error, str(self.place)).message) from error
        return True

    def put_hint(self, object: str, name: str, value: bytes) -> None:
        """Set one omap value of another object, made if need be, with nothing compared. Raises
        StoreUnavailable; it may be set all the same."""
        try:
            with rados.WriteOpCtx() as operation:
                self._ioctx.set_omap(operation, (name,), (value,))
                self._ioctx.operate_write_op(operation, object)
        except rados.Error as error:
            raise translate(error, f"{self.place.pool}/{self.place.namespace}/{object}") from error

    def read_hints(self, object: str) -> dict[str, bytes]:
        """Its omap values, at most a page of them; none when there is no such object. Raises
        StoreUnavailable."""
        try:
            with rados.ReadOpCtx() as operation:
                page, _ = self._ioctx.get_omap_vals(operation, "", "", PAGE)
                self._ioctx.operate_read_op(operation, object)
                return dict(page)
        except rados.ObjectNotFound:
            return {}
        except rados.Error as error:
            raise translate(error, f"{self.place.pool}/{self.place.namespace}/{object}") from error

    def watch(self, heard: Callable[[bytes], None], broken: Callable[[], None]) -> Any:
        """A watch on the object: `check()` raises when it is dead, `unwatch` ends it. The callbacks run on
        librados' threads. Raises rados.Error."""
        return self._ioctx.watch(
            self.place.object,
            lambda notification, notifier, cookie, data: heard(data),
            lambda *details: broken(),
        )

    def unwatch(self, watch: Any) -> None:
        """End it, dead or alive. Raises rados.Error, and then it is gone too.

        When `close` fails, librados has freed the watch, but the binding calls it once more when the object
        dies, and that crashes the process (tried: a blocklisted client): such an object must never die.
        """
        try:
            watch.close()
        except rados.Error:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(watch))
            raise

    def notify(self, message: str, *, timeout: float, done: Callable[[], None]) -> None:
        """Tell the watchers; `done` when all have heard it, or after `timeout` seconds. Raises
        rados.Error."""
        self._ioctx.aio_notify(
            self.place.object, lambda *details: done(), message, timeout_ms=int(timeout * 1000)
        )

    def shutdown(self) -> None:
        """Disconnect. May be called again."""
        if self._open:
            self._open = False
            self._ioctx.close()
            self._cluster.shutdown()

    def _read(self, after: str, prefix: str) -> tuple[Version, list[tuple[str, bytes]]]:
        try:
            with rados.ReadOpCtx() as operation:
                version, _ = self._ioctx.get_omap_vals_by_keys(operation, (records.VERSION_KEY,))
                page, _ = self._ioctx.get_omap_vals(operation, after, prefix, PAGE)
                self._ioctx.operate_read_op(operation, self.place.object)
                found, pairs = dict(version), list(page)
        except rados.Error as error:
            raise translate(error, str(self.place)) from error
        raw = found.get(records.VERSION_KEY, b"")
        return self._decoded(lambda _, data: records.decode_version(data), "", raw), pairs

    def _decoded(self, decode: Callable[[str, bytes], T], name: str, data: bytes) -> T:
        try:
            return decode(name, data)
        except records.NotAStore as error:
            raise StoreUnavailable(
                f"the object {self.place} is no store that this release can read: {error}",
                cure="look at the configured pool, namespace and object, and at the releases of the nodes",
            ) from error
