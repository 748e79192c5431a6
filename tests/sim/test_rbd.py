"""The twin of the rbd backend keeps the contract, and its clients behave like those of a Ceph cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from reconciler.ports.disks import DiskBackend
from reconciler.resources.images import Blank, Holder, RbdName
from reconciler.resources.virtualmachine import DiskFormat
from reconciler.sim.ceph import Blocklisted, SimCeph
from reconciler.sim.rbd import SimRbd
from reconciler.testing.disk_contract import MIB, DiskContract


def twin(backend: DiskBackend) -> SimRbd:
    assert isinstance(backend, SimRbd)
    return backend


class TestTwin(DiskContract):
    formats = (DiskFormat.RAW,)
    clone_format = DiskFormat.RAW

    @pytest.fixture
    def backend(self) -> DiskBackend:
        return SimRbd(SimCeph())

    def make_file(self, backend: DiskBackend, name: str, *, size: int, format: DiskFormat) -> str:
        path = f"/elsewhere/{name}.{format}"
        twin(backend).files.add(path, size=size, format=format)
        return path

    @contextmanager
    def _client(self, backend: DiskBackend, name: RbdName) -> Iterator[None]:
        client = twin(backend).ceph.client()
        client.write(name, "x")
        yield
        client.close()

    def writer(self, backend: DiskBackend, path: str) -> AbstractContextManager[None]:
        name = RbdName.parse(path)
        if name is not None:
            return self._client(backend, name)
        return twin(backend).files.held(path, Holder(client="pid:7:1", description="qemu (pid 7)"))

    @contextmanager
    def outage(self, backend: DiskBackend) -> Iterator[None]:
        twin(backend).ceph.available = False
        yield
        twin(backend).ceph.available = True

    @contextmanager
    def free_bytes(self, backend: DiskBackend, free: int) -> Iterator[None]:
        ceph = twin(backend).ceph
        before, ceph.total = ceph.total, ceph.total - ceph.free + free
        yield
        ceph.total = before


@pytest.fixture
def ceph() -> SimCeph:
    return SimCeph()


async def image(ceph: SimCeph) -> RbdName:
    await SimRbd(ceph).create("a", Blank(size=MIB), format=None, operation="make", progress=lambda done: None)
    return RbdName(pool="vms", image="a")


async def test_two_clients_may_write_to_one_image_and_only_a_fence_stops_one(ceph: SimCeph) -> None:
    name = await image(ceph)
    old, new = ceph.client("10.77.0.1"), ceph.client("10.77.0.2")
    old.write(name, "old")
    new.write(name, "new")
    old.write(name, "old again")
    ceph.block(old.address)
    with pytest.raises(Blocklisted):
        old.write(name, "zombie")
    new.write(name, "new again")
    assert [write.data for write in ceph.writes] == ["old", "new", "old again", "new again"]


async def test_a_dead_client_keeps_its_lock_and_a_fenced_one_loses_its_watch(ceph: SimCeph) -> None:
    name, backend = await image(ceph), SimRbd(ceph)
    dead = ceph.client()
    dead.write(name, "x")
    (holder,) = await backend.holders("a", timeout=1.0)
    assert (holder.watching, bool(holder.lock), holder.fenced) == (True, True, False)
    ceph.expire(dead)
    (holder,) = await backend.holders("a", timeout=1.0)
    assert (holder.watching, bool(holder.lock)) == (False, True)
    info = await backend.inspect("a", timeout=1.0)
    assert info is not None
    await backend.cut_off((holder,), info.identity, timeout=1.0)
    assert await backend.holders("a", timeout=1.0) == ()
    with pytest.raises(Blocklisted):
        dead.write(name, "late")


async def test_a_host_is_fenced_as_a_whole_and_only_until_its_entry_ends(ceph: SimCeph) -> None:
    name = await image(ceph)
    old = ceph.client("10.77.0.1")
    ceph.block("10.77.0.1:0/0", 60.0)
    ceph.block("10.77.0.1:0/0", 1e9)  # never extends an entry
    later = ceph.client("10.77.0.1")
    for client in (old, later):
        with pytest.raises(Blocklisted):
            client.open(name)
    ceph.client("10.77.0.2").open(name)
    ceph.now = 61.0
    old.write(name, "the trap")
