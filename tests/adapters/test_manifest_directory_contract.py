"""The manifest directory on a file system keeps the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.adapters.manifest_directory import LocalManifestDirectory
from reconciler.ports.manifests import ManifestDirectory
from reconciler.testing.manifest_directory_contract import ManifestDirectoryContract


class TestLocalManifestDirectory(ManifestDirectoryContract):
    @pytest.fixture
    async def directory(self, tmp_path: Path) -> AsyncIterator[ManifestDirectory]:
        root = tmp_path / "manifests"
        root.mkdir()
        made = LocalManifestDirectory(root, node="r1")
        yield made
        await made.close()

    def put(self, directory: ManifestDirectory, path: str, data: bytes) -> None:
        target = _root(directory) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def get(self, directory: ManifestDirectory, path: str) -> bytes | None:
        target = _root(directory) / path
        return target.read_bytes() if target.exists() else None

    def drop(self, directory: ManifestDirectory, path: str) -> None:
        (_root(directory) / path).unlink()


def _root(directory: ManifestDirectory) -> Path:
    assert isinstance(directory, LocalManifestDirectory)
    return directory.root
