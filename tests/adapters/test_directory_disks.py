"""The directory backend keeps the contract on real files with real qemu-img."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reconciler.adapters.directory_disks import DirectoryBackend
from reconciler.ports.disks import DiskBackend
from reconciler.resources.virtualmachine import DiskFormat
from reconciler.testing.disk_contract import FileContract

HOLD = "import sys, time; file = open(sys.argv[1], 'r+b'); print('open', flush=True); sys.stdin.read()"


class TestDirectory(FileContract):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> Iterator[DiskBackend]:
        self.directory = tmp_path / "pool"
        self.directory.mkdir()
        backend = DirectoryBackend(self.directory, remembered=tmp_path / "state" / "pool")
        yield backend
        backend.close()

    def make_file(self, backend: DiskBackend, name: str, *, size: int, format: DiskFormat) -> str:
        raw = self.directory.with_name(f"{name}.raw")
        with raw.open("wb") as file:
            file.write(b"data" * (size // 4))
        if format is DiskFormat.RAW:
            return str(raw)
        path = raw.with_suffix(".qcow2")
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
        return str(path)

    @contextmanager
    def writer(self, backend: DiskBackend, path: str) -> Iterator[None]:
        command = [sys.executable, "-c", HOLD, path]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield
            process.communicate()

    @contextmanager
    def outage(self, backend: DiskBackend) -> Iterator[None]:
        """What an unmounted pool leaves: an empty directory."""
        away = self.directory.with_name("away")
        self.directory.rename(away)
        self.directory.mkdir()
        yield
        self.directory.rmdir()
        away.rename(self.directory)

    @contextmanager
    def free_bytes(self, backend: DiskBackend, free: int) -> Iterator[None]:
        """A real, small file system in the pool's place, with the pool's marker."""
        marker = self.directory / ".vcl-pool"
        kept = marker.read_bytes() if marker.exists() else b"a-small-pool\n"
        options = f"size={free},mode=0755"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.directory], check=True)
        try:
            marker.write_bytes(kept)
            yield
        finally:
            subprocess.run(["umount", self.directory], check=True)
