"""The twin of the manifest directory keeps the contract."""

from __future__ import annotations

import pytest

from reconciler.ports.manifests import ManifestDirectory
from reconciler.sim.manifest_directory import MemoryManifestDirectory
from reconciler.testing.manifest_directory_contract import ManifestDirectoryContract


class TestMemoryManifestDirectory(ManifestDirectoryContract):
    @pytest.fixture
    async def directory(self) -> ManifestDirectory:
        return MemoryManifestDirectory()

    def put(self, directory: ManifestDirectory, path: str, data: bytes) -> None:
        assert isinstance(directory, MemoryManifestDirectory)
        directory.files[path] = data
        directory.hint()

    def get(self, directory: ManifestDirectory, path: str) -> bytes | None:
        assert isinstance(directory, MemoryManifestDirectory)
        return directory.files.get(path)

    def drop(self, directory: ManifestDirectory, path: str) -> None:
        assert isinstance(directory, MemoryManifestDirectory)
        del directory.files[path]
        directory.hint()
