"""The rbd backend keeps the contract on a real Ceph cluster."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters.rbd import Clusters
from reconciler.ports.disks import DiskBackend
from reconciler.resources.images import RbdName
from reconciler.resources.infrastructure import RbdPool
from reconciler.resources.virtualmachine import DiskFormat
from reconciler.testing.disk_contract import DiskContract

pytestmark = pytest.mark.ceph

CHILD = str(Path(__file__).with_name("rbd_child.py"))
HOLD = "import sys; file = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"


class TestRbd(DiskContract):
    patience = 60.0
    formats = (DiskFormat.RAW,)
    clone_format = DiskFormat.RAW

    @pytest.fixture(autouse=True)
    def place(
        self, ceph: Any, admin: Any, clusters: Clusters, pool: RbdPool, tmp_path: Path
    ) -> Iterator[None]:
        self.ceph, self.admin, self.directory = ceph, admin, tmp_path
        self.cluster = clusters.get(pool.conf, pool.user)
        yield
        clusters.give_back(self.cluster)

    def make_file(self, backend: DiskBackend, name: str, *, size: int, format: DiskFormat) -> str:
        raw = self.directory / f"{name}.raw"
        with raw.open("wb") as file:
            file.write(b"data" * (size // 4))
        if format is DiskFormat.RAW:
            return str(raw)
        path = raw.with_suffix(".qcow2")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
        return str(path)

    @contextmanager
    def writer(self, backend: DiskBackend, path: str) -> Iterator[None]:
        name = RbdName.parse(path)
        command = [sys.executable, "-c", HOLD, path]
        if name is not None:
            where = [str(self.ceph.conf), "qemu", name.pool, name.namespace, name.image]
            command = [sys.executable, CHILD, *where]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield
            process.communicate()

    @contextmanager
    def outage(self, backend: DiskBackend) -> Iterator[None]:
        with self.cluster.handle() as handle:
            usual = handle.conf_get("rados_osd_op_timeout")
            handle.conf_set("rados_osd_op_timeout", "1")
        self.ceph.freeze(0, 1, 2)
        try:
            yield
        finally:
            self.ceph.thaw(0, 1, 2)
            with self.cluster.handle() as handle:
                handle.conf_set("rados_osd_op_timeout", usual)
            with self.admin.open_ioctx("vms") as context:
                context.write_full("probe", b"")  # waits until they serve again

    @contextmanager
    def free_bytes(self, backend: DiskBackend, free: int) -> Iterator[None]:
        self.ceph.command("osd", "pool", "set-quota", "vms", "max_bytes", str(free))
        try:
            yield
        finally:
            self.ceph.command("osd", "pool", "set-quota", "vms", "max_bytes", "0")
