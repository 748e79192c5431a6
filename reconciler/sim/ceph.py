"""A Ceph cluster as far as images and their clients go: watchers, locks, and the blocklist that fences.

The rules are those seen on Ceph 16: a watch appears when an image is opened for writing, the exclusive lock
at the first write; two clients may have one image open and hand the lock to each other; a client that dies
keeps its watch for half a minute (`expire`) and its lock for ever; a blocklisted client loses its watches at
once, keeps its locks until somebody breaks them, and none of its writes arrive, however late they were sent.
Invariant: `writes` records every write that arrived, in order: the audit of "never two writers" reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from reconciler.resources.errors import ImageMissing
from reconciler.resources.images import RbdIdentity, RbdName


class Blocklisted(Exception):
    """Errno 108: the cluster has shut this client out."""


@dataclass(slots=True, kw_only=True)
class SimImage:
    """`size` in bytes; `parent`: the path of the template that it is a clone of; `watchers` and `lock`: the
    addresses of clients; `cookie`: the name of the lock."""

    id: str
    size: int
    allocated: int = 0
    parent: str | None = None
    watchers: set[str] = field(default_factory=set)
    lock: str | None = None
    cookie: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One that arrived."""

    image: str
    client: str
    data: str


class SimClient:
    """One client: a QEMU, a vcld, a backup tool. `address` is HOST:0/NONCE."""

    def __init__(self, ceph: SimCeph, host: str) -> None:
        self._ceph = ceph
        self.address = f"{host}:0/{ceph.next_number()}"

    def open(self, name: RbdName) -> None:
        """For writing: it watches from now on. Raises Blocklisted, ImageMissing."""
        self._check()
        self._ceph.find(name).watchers.add(self.address)

    def write(self, name: RbdName, data: str) -> None:
        """Take the lock from whoever has it, as RBD clients do, and write. Raises Blocklisted, also of a
        write that was sent before."""
        self._check()
        image = self._ceph.find(name)
        image.watchers.add(self.address)
        image.lock, image.cookie = self.address, f"auto {self.address.rpartition('/')[2]}"
        self._ceph.writes.append(Write(image=image.id, client=self.address, data=data))

    def close(self, only: RbdName | None = None) -> None:
        """End in order, or close one image: nothing of it is left there."""
        for image in self._ceph.every() if only is None else [self._ceph.find(only)]:
            image.watchers.discard(self.address)
            if image.lock == self.address:
                image.lock = None

    def _check(self) -> None:
        if self._ceph.blocked(self.address):
            raise Blocklisted(self.address)


@dataclass(slots=True)
class SimCeph:
    """`total` bytes; `blocklist`: until when, by HOST:0/NONCE or HOST:0/0 (a whole host), on `now`."""

    fsid: str = "c5157a11-0000-4000-8000-000000000001"
    total: int = 1 << 40
    available: bool = True
    now: float = 0.0
    images: dict[RbdName, SimImage] = field(default_factory=dict)
    trash: list[tuple[RbdName, SimImage]] = field(default_factory=list)
    blocklist: dict[str, float] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    _numbers: int = 0

    def client(self, host: str = "10.77.0.9") -> SimClient:
        """Somebody new, on that host."""
        return SimClient(self, host)

    def next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    def find(self, name: RbdName) -> SimImage:
        """Raises ImageMissing."""
        if name not in self.images:
            raise ImageMissing(f"there is no image {name.spec}")
        return self.images[name]

    def by_id(self, identity: RbdIdentity) -> SimImage | None:
        """The image of that identity, also from the trash."""
        return next((image for image in self.every() if image.id == identity.id), None)

    def every(self) -> list[SimImage]:
        """All images, those in the trash too."""
        return [*self.images.values(), *(image for _, image in self.trash)]

    @property
    def free(self) -> int:
        return max(0, self.total - sum(image.allocated for image in self.every()))

    def block(self, address: str, seconds: float = math.inf) -> None:
        """`osd blocklist add`: an entry that exists is not extended. Watches of who is covered are gone."""
        self.blocklist.setdefault(address, self.now + seconds)
        for image in self.every():
            image.watchers = {watcher for watcher in image.watchers if not self.blocked(watcher)}

    def blocked(self, client: str) -> bool:
        """Whether the cluster refuses the client now."""
        host = f"{client.rpartition(':')[0]}:0/0"
        return any(self.blocklist.get(entry, -math.inf) > self.now for entry in (client, host))

    def expire(self, client: SimClient) -> None:
        """Half a minute after a client died: its watches are gone, its locks are not."""
        for image in self.every():
            image.watchers.discard(client.address)
