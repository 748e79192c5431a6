"""The twin of the directory backend keeps the contract of disk backends."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from reconciler.ports.disks import DiskBackend
from reconciler.resources.images import Blank, CopyOf, Holder
from reconciler.resources.virtualmachine import DiskFormat
from reconciler.sim.disks import SimDisks, SimFiles
from reconciler.testing.disk_contract import MIB, FileContract

QEMU = Holder(client="pid:7:1", description="qemu (pid 7)")


def _files(backend: DiskBackend) -> SimFiles:
    assert isinstance(backend, SimDisks)
    return backend.files


class TestTwin(FileContract):
    @pytest.fixture
    def backend(self) -> DiskBackend:
        return SimDisks(SimFiles())

    def make_file(self, backend: DiskBackend, name: str, *, size: int, format: DiskFormat) -> str:
        path = f"/elsewhere/{name}.{format}"
        _files(backend).add(path, size=size, format=format)
        return path

    def writer(self, backend: DiskBackend, path: str) -> AbstractContextManager[None]:
        return _files(backend).held(path, QEMU)

    @contextmanager
    def outage(self, backend: DiskBackend) -> Iterator[None]:
        _files(backend).available = False
        yield
        _files(backend).available = True

    @contextmanager
    def free_bytes(self, backend: DiskBackend, free: int) -> Iterator[None]:
        files = _files(backend)
        total = files.total
        files.total -= files.free - free
        yield
        files.total = total


async def test_an_image_appears_when_its_copy_is_complete() -> None:
    files = SimFiles(copy_seconds=0.01)
    files.add("/elsewhere/origin.raw", size=MIB)
    pool = SimDisks(files)
    seen: list[object] = []

    def look(done: float) -> None:
        seen.append((done, "/pool/a.qcow2" in files.files))

    await pool.create("a", CopyOf(path="/elsewhere/origin.raw"), format=None, operation="copy", progress=look)
    assert seen == [(0.5, False), (1.0, True)]


async def test_what_is_put_aside_can_be_found_again() -> None:
    pool = SimDisks(SimFiles())
    await pool.create("a", Blank(size=MIB), format=None, operation="a", progress=lambda done: None)
    await pool.trash("a", timeout=1.0)
    assert pool.files.trashed == ["/pool/.trash/a.qcow2.1"]
    assert pool.files.trashed[0] in pool.files.files
