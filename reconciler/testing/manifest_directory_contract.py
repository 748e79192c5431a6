"""The promises of a ManifestDirectory, as tests: the real one and its twin pass them, and yours must too.

class TestMyDirectory(ManifestDirectoryContract):
    @pytest.fixture
    async def directory(self): ...

    ...and the three hooks below, which change the directory as a user would.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from hashlib import sha256

import pytest

from reconciler.ports.manifests import ManifestDirectory
from reconciler.resources.errors import ConflictError, ManifestDirectoryError

FIRST = b"# first\n"
SECOND = b"# second\n"


def digest(data: bytes) -> str:
    """The digest that the port speaks of."""
    return sha256(data).hexdigest()


class ManifestDirectoryContract:
    """Subclass it, give it a `directory` fixture (existing, empty, without a marker) and the hooks."""

    def put(self, directory: ManifestDirectory, path: str, data: bytes) -> None:
        """Write a file as a user does, with its parents; the directory may give a hint."""
        raise AssertionError("the contract needs a way to write a file")

    def get(self, directory: ManifestDirectory, path: str) -> bytes | None:
        """The bytes of a file, None when there is none."""
        raise AssertionError("the contract needs a way to read a file")

    def drop(self, directory: ManifestDirectory, path: str) -> None:
        """Remove a file as a user does."""
        raise AssertionError("the contract needs a way to remove a file")

    async def test_an_empty_directory_is_complete_and_has_no_marker(
        self, directory: ManifestDirectory
    ) -> None:
        scan = await directory.scan(timeout=5)
        assert scan.complete
        assert scan.files == ()
        assert scan.marker == ""

    async def test_a_scan_shows_every_manifest_sorted_by_path(self, directory: ManifestDirectory) -> None:
        for path in ("z.json", "a.yaml", "sub/b.yml"):
            self.put(directory, path, path.encode())
        scan = await directory.scan(timeout=5)
        assert [(file.path, file.data, file.digest) for file in scan.files] == [
            (path, path.encode(), digest(path.encode())) for path in ("a.yaml", "sub/b.yml", "z.json")
        ]

    @pytest.mark.parametrize(
        "path",
        [
            ".web.yaml",
            "web.yaml~",
            "web.yaml.tmp",
            "web.yaml.bak",
            ".web.yaml.swp",
            "#web.yaml#",
            "web.conflict-r2.yaml",
            "README.md",
            "web.yaml.orig",
            "web",
            ".git/web.yaml",
            ".hidden/deep/web.yaml",
        ],
    )
    async def test_other_names_do_not_count(self, directory: ManifestDirectory, path: str) -> None:
        self.put(directory, path, FIRST)
        scan = await directory.scan(timeout=5)
        assert scan.files == ()
        assert scan.complete

    async def test_changes_and_removals_are_seen(self, directory: ManifestDirectory) -> None:
        self.put(directory, "a.yaml", FIRST)
        self.put(directory, "b.yaml", FIRST)
        await directory.scan(timeout=5)
        self.put(directory, "a.yaml", SECOND[: len(FIRST)])
        self.drop(directory, "b.yaml")
        scan = await directory.scan(timeout=5)
        assert [(file.path, file.data) for file in scan.files] == [("a.yaml", SECOND[: len(FIRST)])]

    async def test_the_marker_is_read_back(self, directory: ManifestDirectory) -> None:
        await directory.initialise("some-id")
        scan = await directory.scan(timeout=5)
        assert scan.marker == "some-id"
        assert scan.files == ()
        assert scan.complete

    async def test_a_new_file_is_written_byte_for_byte(self, directory: ManifestDirectory) -> None:
        await directory.write("web.yaml", b"\xef\xbb\xbf\r\n\x00", expect=None)
        assert self.get(directory, "web.yaml") == b"\xef\xbb\xbf\r\n\x00"

    async def test_a_new_file_never_replaces_one(self, directory: ManifestDirectory) -> None:
        self.put(directory, "web.yaml", FIRST)
        with pytest.raises(ConflictError, match=r"web\.yaml"):
            await directory.write("web.yaml", SECOND, expect=None)
        assert self.get(directory, "web.yaml") == FIRST

    async def test_a_file_is_replaced_when_it_is_as_expected(self, directory: ManifestDirectory) -> None:
        self.put(directory, "web.yaml", FIRST)
        await directory.write("web.yaml", SECOND, expect=digest(FIRST))
        assert self.get(directory, "web.yaml") == SECOND

    async def test_other_bytes_are_not_overwritten(self, directory: ManifestDirectory) -> None:
        self.put(directory, "web.yaml", SECOND)
        with pytest.raises(ConflictError, match=r"web\.yaml"):
            await directory.write("web.yaml", FIRST, expect=digest(FIRST))
        assert self.get(directory, "web.yaml") == SECOND

    async def test_a_file_that_is_gone_is_not_replaced(self, directory: ManifestDirectory) -> None:
        with pytest.raises(ConflictError):
            await directory.write("web.yaml", SECOND, expect=digest(FIRST))
        assert self.get(directory, "web.yaml") is None

    async def test_a_file_is_removed_when_it_is_as_expected(self, directory: ManifestDirectory) -> None:
        self.put(directory, "web.yaml", FIRST)
        await directory.remove("web.yaml", expect=digest(FIRST))
        assert self.get(directory, "web.yaml") is None
        assert (await directory.scan(timeout=5)).files == ()

    async def test_other_bytes_are_not_removed(self, directory: ManifestDirectory) -> None:
        self.put(directory, "web.yaml", SECOND)
        with pytest.raises(ConflictError):
            await directory.remove("web.yaml", expect=digest(FIRST))
        with pytest.raises(ConflictError):
            await directory.remove("db.yaml", expect=digest(FIRST))
        assert self.get(directory, "web.yaml") == SECOND

    @pytest.mark.parametrize("path", ["../web.yaml", "/tmp/web.yaml", ".hidden.yaml", "a/../../web.yaml"])
    async def test_nothing_is_written_outside_or_out_of_sight(
        self, directory: ManifestDirectory, path: str
    ) -> None:
        with pytest.raises(ManifestDirectoryError):
            await directory.write(path, FIRST, expect=None)

    async def test_directories_on_the_way_to_a_new_file_are_made(self, directory: ManifestDirectory) -> None:
        await directory.write("deep/er/web.yaml", FIRST, expect=None)
        assert self.get(directory, "deep/er/web.yaml") == FIRST
        await directory.remove("deep/er/web.yaml", expect=digest(FIRST))
        assert (await directory.scan(timeout=5)).files == ()

    async def test_a_file_in_the_way_is_told_and_stays(self, directory: ManifestDirectory) -> None:
        self.put(directory, "web.yaml", FIRST)
        with pytest.raises((ManifestDirectoryError, ConflictError)):
            await directory.write("web.yaml/deeper.yaml", SECOND, expect=None)
        assert self.get(directory, "web.yaml") == FIRST

    async def test_a_directory_in_the_way_is_told_and_stays(self, directory: ManifestDirectory) -> None:
        self.put(directory, "web.yaml/deeper.yaml", FIRST)
        with pytest.raises((ManifestDirectoryError, ConflictError)):
            await directory.write("web.yaml", SECOND, expect=None)
        assert self.get(directory, "web.yaml/deeper.yaml") == FIRST

    async def test_bytes_that_lost_are_kept_beside_the_file_and_not_followed(
        self, directory: ManifestDirectory
    ) -> None:
        self.put(directory, "sub/web.yaml", FIRST)
        kept = await directory.keep("sub/web.yaml", SECOND)
        assert kept == "sub/web.conflict-r1.yaml"
        assert self.get(directory, kept) == SECOND
        scan = await directory.scan(timeout=5)
        assert [file.path for file in scan.files] == ["sub/web.yaml"]
        assert scan.conflicts == (kept,)

    async def test_a_conflict_file_never_replaces_another_and_the_same_bytes_are_kept_once(
        self, directory: ManifestDirectory
    ) -> None:
        self.put(directory, "web.conflict-r1.yaml", FIRST)
        assert await directory.keep("web.yaml", SECOND) == "web.conflict-r1-2.yaml"
        assert await directory.keep("web.yaml", SECOND) == "web.conflict-r1-2.yaml"
        assert await directory.keep("web.yaml", FIRST) == "web.conflict-r1.yaml"
        assert self.get(directory, "web.conflict-r1.yaml") == FIRST
        assert self.get(directory, "web.conflict-r1-2.yaml") == SECOND

    async def test_changes_give_hints_and_bursts_are_one(self, directory: ManifestDirectory) -> None:
        hints = directory.changes()
        first = asyncio.ensure_future(anext(hints))
        await asyncio.sleep(0.3)
        for number in range(20):
            self.put(directory, f"vm-{number}.yaml", FIRST)
        async with asyncio.timeout(5):
            await first
        seen = await _count(hints, 0.5)
        assert seen <= 2

    async def test_a_rescan_of_a_thousand_files_is_cheap(self, directory: ManifestDirectory) -> None:
        for number in range(1000):
            self.put(directory, f"vm-{number}.yaml", FIRST)
        await directory.scan(timeout=10)
        began = time.process_time()
        scan = await directory.scan(timeout=10)
        assert len(scan.files) == 1000
        assert time.process_time() - began < 1.0


async def _count(hints: AsyncIterator[None], seconds: float) -> int:
    """How many hints come within so many seconds."""
    count = 0
    try:
        async with asyncio.timeout(seconds):
            async for _ in hints:
                count += 1
    except TimeoutError:
        pass
    return count
