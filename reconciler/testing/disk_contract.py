"""The promises of a disk backend, as tests: every backend and its twin pass the same ones.

`DiskContract` holds for all; `FileContract` is about images that are files, whose name says their format.

Needs pytest and pytest-asyncio (`asyncio_mode = auto`). A subclass has a `backend` fixture and the hooks.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager

import pytest

from reconciler.ports.disks import DiskBackend
from reconciler.resources.errors import (
    AlreadyExists,
    DiskError,
    ImageInUse,
    ImageInvalid,
    ImageMissing,
    NoSpace,
    PoolUnavailable,
    ShrinkRefused,
)
from reconciler.resources.images import Blank, CloneOf, Content, CopyOf, ImageInfo
from reconciler.resources.virtualmachine import DiskFormat

MIB = 1 << 20


class DiskContract:
    """`patience`: how long the slowest call may take, in seconds; `formats`: those of the pool's images;
    `clone_format`: that of a clone."""

    patience: float = 30.0
    formats: tuple[DiskFormat, ...] = tuple(DiskFormat)
    clone_format: DiskFormat = DiskFormat.QCOW2

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """`format` is one that the pool has, `origin` one that a file can have."""
        for name, formats in (("format", self.formats), ("origin", tuple(DiskFormat))):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, formats)

    # What a subclass provides.

    def make_file(self, backend: DiskBackend, name: str, *, size: int, format: DiskFormat) -> str:
        """An image file with data outside the pool, of `size` bytes for a guest; its absolute path."""
        raise AssertionError("the contract needs files to import")

    def writer(self, backend: DiskBackend, path: str) -> AbstractContextManager[None]:
        """While entered, another process has the file open for writing."""
        raise AssertionError("the contract needs somebody who writes")

    def outage(self, backend: DiskBackend) -> AbstractContextManager[None]:
        """While entered, the pool is not there (unmounted); the images live on."""
        raise AssertionError("the contract needs a way to make the pool unavailable")

    def free_bytes(self, backend: DiskBackend, free: int) -> AbstractContextManager[None]:
        """While entered, the pool has at most `free` bytes left."""
        raise AssertionError("the contract needs a full pool")

    async def make(
        self, backend: DiskBackend, image: str, content: Content, *, format: DiskFormat | None = None
    ) -> ImageInfo:
        """Create it in an operation of its own."""
        return await backend.create(
            image, content, format=format, operation=f"make-{image}", progress=lambda done: None
        )

    async def see(self, backend: DiskBackend, image: str) -> ImageInfo | None:
        return await backend.inspect(image, timeout=self.patience)

    # looking

    async def test_what_is_not_there_is_none(self, backend: DiskBackend) -> None:
        assert await self.see(backend, "absent") is None
        assert await backend.holders("absent", timeout=self.patience) == ()

    @pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a\nb", "a\0b"])
    async def test_a_name_that_leads_out_of_the_pool_is_refused(
        self, backend: DiskBackend, name: str
    ) -> None:
        with pytest.raises(ImageInvalid):
            await self.see(backend, name)
        with pytest.raises(ImageInvalid):
            await self.make(backend, name, Blank(size=MIB))
        with pytest.raises(ImageInvalid):
            await backend.trash(name, timeout=self.patience)

    async def test_a_blank_image_is_seen_as_it_was_made(
        self, backend: DiskBackend, format: DiskFormat
    ) -> None:
        made = await self.make(backend, "web.root", Blank(size=10 * MIB), format=format)
        assert await self.see(backend, "web.root") == made
        assert (made.name, made.size, made.format, made.backing) == ("web.root", 10 * MIB, format, None)
        assert made.allocated < 10 * MIB

    async def test_a_size_is_rounded_up_to_whole_sectors(self, backend: DiskBackend) -> None:
        assert (await self.make(backend, "odd", Blank(size=MIB + 1))).size == MIB + 512

    async def test_an_image_without_a_size_is_refused(self, backend: DiskBackend) -> None:
        with pytest.raises(ImageInvalid):
            await self.make(backend, "nothing", Blank(size=0))
        assert await self.see(backend, "nothing") is None

    # names and identities

    async def test_a_name_is_never_taken_twice(self, backend: DiskBackend) -> None:
        first = await self.make(backend, "web.root", Blank(size=MIB))
        for format in self.formats:
            with pytest.raises(AlreadyExists):
                await self.make(backend, "web.root", Blank(size=2 * MIB), format=format)
        assert await self.see(backend, "web.root") == first

    async def test_two_creators_of_one_name_make_one_image(self, backend: DiskBackend) -> None:
        attempts = [
            backend.create(
                "web.root",
                Blank(size=size * MIB),
                format=None,
                operation=f"attempt-{size}",
                progress=lambda done: None,
            )
            for size in (1, 2)
        ]
        done = await asyncio.gather(*attempts, return_exceptions=True)
        made = [result for result in done if isinstance(result, ImageInfo)]
        assert len(made) == 1
        assert [type(result) for result in done if result not in made] == [AlreadyExists]
        assert await self.see(backend, "web.root") == made[0]

    async def test_each_image_has_an_identity_of_its_own_that_stays(self, backend: DiskBackend) -> None:
        first = await self.make(backend, "a", Blank(size=MIB))
        second = await self.make(backend, "b", Blank(size=MIB))
        assert first.identity != second.identity
        grown = await backend.grow("a", 2 * MIB, timeout=self.patience)
        assert grown.identity == first.identity

    async def test_a_file_is_identified_by_its_path_as_by_its_name(self, backend: DiskBackend) -> None:
        made = await self.make(backend, "a", Blank(size=MIB))
        assert await backend.identify(made.path, timeout=self.patience) == made.identity

    async def test_identifying_a_missing_file_says_so(self, backend: DiskBackend) -> None:
        made = await self.make(backend, "a", Blank(size=MIB))
        with pytest.raises(ImageMissing):
            await backend.identify(f"{made.path}.missing", timeout=self.patience)

    # growing

    async def test_growing_to_the_same_size_changes_nothing(
        self, backend: DiskBackend, format: DiskFormat
    ) -> None:
        await self.make(backend, "a", Blank(size=MIB), format=format)
        grown = await backend.grow("a", 3 * MIB, timeout=self.patience)
        assert grown.size == 3 * MIB
        assert await backend.grow("a", 3 * MIB, timeout=self.patience) == grown

    async def test_shrinking_is_refused(self, backend: DiskBackend, format: DiskFormat) -> None:
        made = await self.make(backend, "a", Blank(size=2 * MIB), format=format)
        with pytest.raises(ShrinkRefused, match=r"2Mi.*1Mi"):
            await backend.grow("a", MIB, timeout=self.patience)
        assert await self.see(backend, "a") == made

    async def test_growing_what_is_missing_makes_nothing(self, backend: DiskBackend) -> None:
        with pytest.raises(ImageMissing):
            await backend.grow("a", MIB, timeout=self.patience)
        assert await self.see(backend, "a") is None

    async def test_an_open_image_is_not_grown(self, backend: DiskBackend) -> None:
        made = await self.make(backend, "a", Blank(size=MIB))
        with self.writer(backend, made.path):
            (holder,) = await backend.holders("a", timeout=self.patience)
            assert holder.client
            assert holder.description
            with pytest.raises(ImageInUse):
                await backend.grow("a", 2 * MIB, timeout=self.patience)
        assert await backend.holders("a", timeout=self.patience) == ()
        assert (await backend.grow("a", 2 * MIB, timeout=self.patience)).size == 2 * MIB

    # copies and clones

    async def test_an_import_is_a_whole_image_of_its_own(
        self, backend: DiskBackend, origin: DiskFormat, format: DiskFormat
    ) -> None:
        path = self.make_file(backend, "origin", size=4 * MIB, format=origin)
        copy = await self.make(backend, "a", CopyOf(path=path), format=format)
        assert (copy.size, copy.format, copy.backing) == (4 * MIB, format, None)
        assert copy.identity != await backend.identify(path, timeout=self.patience)

    async def test_an_import_is_grown_and_never_shrunk(self, backend: DiskBackend) -> None:
        path = self.make_file(backend, "origin", size=4 * MIB, format=DiskFormat.QCOW2)
        assert (await self.make(backend, "a", CopyOf(path=path, size=8 * MIB))).size == 8 * MIB
        assert (await self.make(backend, "b", CopyOf(path=path, size=MIB))).size == 4 * MIB

    async def test_progress_only_rises_and_ends_with_all(self, backend: DiskBackend) -> None:
        path = self.make_file(backend, "origin", size=4 * MIB, format=DiskFormat.RAW)
        seen: list[float] = []
        await backend.create("a", CopyOf(path=path), format=None, operation="import", progress=seen.append)
        assert seen == sorted(seen)
        assert seen[-1] == 1.0
        assert all(0.0 <= share <= 1.0 for share in seen)

    async def test_a_clone_refers_to_its_template(self, backend: DiskBackend, format: DiskFormat) -> None:
        template = await self.make(backend, "template", Blank(size=4 * MIB), format=format)
        clone = await self.make(backend, "a", CloneOf(path=template.path, format=format, size=8 * MIB))
        assert (clone.size, clone.format, clone.backing) == (8 * MIB, self.clone_format, template.path)
        smaller = await self.make(backend, "b", CloneOf(path=template.path, format=format, size=MIB))
        assert smaller.size == 4 * MIB

    async def test_a_raw_clone_of_a_file_is_a_full_copy(self, backend: DiskBackend) -> None:
        path = self.make_file(backend, "origin", size=4 * MIB, format=DiskFormat.QCOW2)
        clone = await self.make(
            backend, "a", CloneOf(path=path, format=DiskFormat.QCOW2), format=DiskFormat.RAW
        )
        assert (clone.format, clone.backing) == (DiskFormat.RAW, None)

    async def test_a_template_is_not_what_it_was_said_to_be(self, backend: DiskBackend) -> None:
        path = self.make_file(backend, "origin", size=4 * MIB, format=DiskFormat.QCOW2)
        with pytest.raises(ImageInvalid):
            await self.make(backend, "a", CloneOf(path=path, format=DiskFormat.RAW))
        assert await self.see(backend, "a") is None

    async def test_the_image_of_a_pool_is_copied_in_full(self, backend: DiskBackend) -> None:
        first = await self.make(backend, "a", Blank(size=4 * MIB))
        copy = await self.make(backend, "b", CopyOf(path=first.path, size=8 * MIB))
        assert (copy.size, copy.backing) == (8 * MIB, None)
        assert copy.identity != first.identity

    async def test_a_missing_source_is_named(self, backend: DiskBackend) -> None:
        for content in (
            CopyOf(path="/nowhere/origin.raw"),
            CloneOf(path="/nowhere/origin.raw", format=DiskFormat.RAW),
        ):
            with pytest.raises(ImageMissing, match=r"/nowhere/origin\.raw"):
                await self.make(backend, "a", content)
        assert await self.see(backend, "a") is None

    async def test_a_source_that_somebody_writes_is_not_copied(self, backend: DiskBackend) -> None:
        path = self.make_file(backend, "origin", size=4 * MIB, format=DiskFormat.RAW)
        with self.writer(backend, path), pytest.raises(ImageInUse):
            await self.make(backend, "a", CopyOf(path=path))
        assert await self.see(backend, "a") is None

    async def test_a_full_pool_refuses_a_copy_and_keeps_the_name_free(self, backend: DiskBackend) -> None:
        path = self.make_file(backend, "origin", size=16 * MIB, format=DiskFormat.RAW)
        with self.free_bytes(backend, MIB):
            with pytest.raises(NoSpace):
                await self.make(backend, "a", CopyOf(path=path))
            assert await self.see(backend, "a") is None

    async def test_a_cancelled_import_leaves_nothing_and_can_be_repeated(self, backend: DiskBackend) -> None:
        path = self.make_file(backend, "origin", size=16 * MIB, format=DiskFormat.RAW)
        under_way = asyncio.create_task(self.make(backend, "a", CopyOf(path=path)))
        await asyncio.sleep(0)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        assert await self.see(backend, "a") is None
        assert (await self.make(backend, "a", CopyOf(path=path))).size == 16 * MIB

    # putting aside

    async def test_what_is_put_aside_frees_its_name(self, backend: DiskBackend) -> None:
        first = await self.make(backend, "a", Blank(size=MIB))
        await backend.trash("a", timeout=self.patience)
        assert await self.see(backend, "a") is None
        await backend.trash("a", timeout=self.patience)
        again = await self.make(backend, "a", Blank(size=MIB))
        assert again.identity != first.identity
        await backend.trash("a", timeout=self.patience)
        assert await self.see(backend, "a") is None

    async def test_an_open_image_is_not_put_aside(self, backend: DiskBackend) -> None:
        made = await self.make(backend, "a", Blank(size=MIB))
        with self.writer(backend, made.path), pytest.raises(ImageInUse):
            await backend.trash("a", timeout=self.patience)
        assert await self.see(backend, "a") == made

    async def test_a_template_is_not_put_aside_while_it_has_clones(self, backend: DiskBackend) -> None:
        template = await self.make(backend, "template", Blank(size=MIB))
        await self.make(backend, "a", CloneOf(path=template.path, format=template.format))
        with pytest.raises(ImageInUse, match="a"):
            await backend.trash("template", timeout=self.patience)
        await backend.trash("a", timeout=self.patience)
        await backend.trash("template", timeout=self.patience)
        assert await self.see(backend, "template") is None

    # the pool

    async def test_a_pool_says_how_much_fits(self, backend: DiskBackend) -> None:
        capacity = await backend.capacity(timeout=self.patience)
        assert 0 <= capacity.free <= capacity.total

    async def test_a_pool_that_is_away_says_nothing_of_its_images(self, backend: DiskBackend) -> None:
        made = await self.make(backend, "a", Blank(size=MIB))
        with self.outage(backend):
            for image in ("a", "absent"):
                with pytest.raises(PoolUnavailable):
                    await self.see(backend, image)
                with pytest.raises(PoolUnavailable):
                    await backend.trash(image, timeout=self.patience)
                with pytest.raises(PoolUnavailable):
                    await backend.holders(image, timeout=self.patience)
            with pytest.raises(PoolUnavailable):
                await self.make(backend, "b", Blank(size=MIB))
            with pytest.raises(PoolUnavailable):
                await backend.grow("a", 2 * MIB, timeout=self.patience)
            with pytest.raises(PoolUnavailable):
                await backend.capacity(timeout=self.patience)
        assert await self.see(backend, "a") == made
        assert await self.see(backend, "b") is None

    async def test_every_error_tells_its_reason_in_a_word(self, backend: DiskBackend) -> None:
        with pytest.raises(DiskError) as failed:
            await backend.grow("a", MIB, timeout=self.patience)
        assert failed.value.reason.isalnum()


class FileContract(DiskContract):
    """Of images that are files of a directory."""

    async def test_an_image_has_an_absolute_path(self, backend: DiskBackend) -> None:
        assert (await self.make(backend, "a", Blank(size=MIB))).path.startswith("/")

    async def test_a_suffix_decides_the_format(self, backend: DiskBackend) -> None:
        assert (await self.make(backend, "a.raw", Blank(size=MIB))).format is DiskFormat.RAW
        assert (await self.make(backend, "b.qcow2", Blank(size=MIB))).format is DiskFormat.QCOW2
        with pytest.raises(ImageInvalid):
            await self.make(backend, "c.raw", Blank(size=MIB), format=DiskFormat.QCOW2)
