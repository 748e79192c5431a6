"""What the directory backend does with names, links, hostile images, half-made files and absent mounts."""

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.adapters.directory_disks import DirectoryBackend
from reconciler.resources.errors import (
    AlreadyExists,
    ImageInvalid,
    ImageMissing,
    InvalidInput,
    NoSpace,
    PoolUnavailable,
)
from reconciler.resources.images import Blank, CloneOf, Content, CopyOf, ImageInfo
from reconciler.resources.virtualmachine import DiskFormat

MIB = 1 << 20
SECONDS = 30.0


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    directory = tmp_path / "pool"
    directory.mkdir()
    return directory


@pytest.fixture
def backend(pool: Path, tmp_path: Path) -> Iterator[DirectoryBackend]:
    backend = DirectoryBackend(pool, remembered=tmp_path / "state" / "pools" / "default")
    yield backend
    backend.close()


async def make(
    backend: DirectoryBackend, image: str, content: Content, format: DiskFormat | None = None
) -> ImageInfo:
    return await backend.create(image, content, format=format, operation="test", progress=lambda done: None)


async def see(backend: DirectoryBackend, image: str) -> ImageInfo | None:
    return await backend.inspect(image, timeout=SECONDS)


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def data(path: Path, size: int = MIB) -> Path:
    path.write_bytes(b"data" * (size // 4))
    return path


class TestNames:
    async def test_a_new_image_is_a_file_with_its_format_as_suffix(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        await make(backend, "web.root", Blank(size=MIB))
        await make(backend, "db.root", Blank(size=MIB), DiskFormat.RAW)
        assert (pool / "web.root.qcow2").is_file()
        assert (pool / "db.root.raw").stat().st_mode & 0o777 == 0o600

    async def test_an_existing_file_is_found_by_its_exact_name(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        data(pool / "old")
        found = await see(backend, "old")
        assert found is not None
        assert (found.path, found.format, found.size) == (str(pool / "old"), DiskFormat.RAW, MIB)
        with pytest.raises(AlreadyExists):
            await make(backend, "old", Blank(size=MIB))

    async def test_two_files_for_one_name_are_refused(self, backend: DirectoryBackend, pool: Path) -> None:
        data(pool / "a.raw")
        qemu_img("create", "-q", "-f", "qcow2", pool / "a.qcow2", MIB)
        with pytest.raises(ImageInvalid, match=r"a\.qcow2 and a\.raw"):
            await see(backend, "a")
        assert (await see(backend, "a.raw")) is not None

    async def test_directories_fifos_and_dangling_links_are_no_images(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        (pool / "directory").mkdir()
        os.mkfifo(pool / "fifo")
        (pool / "dangling").symlink_to("/nowhere/disk.raw")
        (pool / "loop").symlink_to("loop")
        for name in ("directory", "fifo", "dangling", "loop"):
            with pytest.raises(ImageInvalid):
                await see(backend, name)
        with pytest.raises(ImageInvalid, match=r"/nowhere/disk\.raw"):
            await make(backend, "dangling", Blank(size=MIB))

    async def test_a_long_name_is_refused_before_anything_is_made(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        with pytest.raises(ImageInvalid, match="longer than"):
            await make(backend, "x" * 300, Blank(size=MIB))
        assert list(pool.glob("*.tmp")) == []

    def test_a_relative_pool_is_refused(self) -> None:
        with pytest.raises(InvalidInput, match="absolute"):
            DirectoryBackend(Path("images"))


class TestIdentity:
    async def test_links_lead_to_one_identity(
        self, backend: DirectoryBackend, pool: Path, tmp_path: Path
    ) -> None:
        made = await make(backend, "a", Blank(size=MIB), DiskFormat.RAW)
        os.link(made.path, pool / "hard.raw")
        (tmp_path / "soft").symlink_to(made.path)
        hard = await see(backend, "hard")
        assert hard is not None
        assert hard.identity == made.identity
        assert await backend.identify(str(tmp_path / "soft"), timeout=SECONDS) == made.identity

    async def test_an_identity_names_the_file_system_and_the_inode(self, backend: DirectoryBackend) -> None:
        made = await make(backend, "a", Blank(size=MIB))
        filesystem, _, inode = made.identity.partition("/")
        assert inode == str(os.stat(made.path).st_ino)
        assert str(os.stat(made.path).st_dev) != filesystem

    async def test_two_file_systems_differ_although_inodes_repeat(
        self, backend: DirectoryBackend, tmp_path: Path
    ) -> None:
        mounts = [tmp_path / "one", tmp_path / "two"]
        try:
            for mount in mounts:
                mount.mkdir()
                subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], check=True)
                (mount / "disk.raw").write_bytes(bytes(512))
            paths = [mount / "disk.raw" for mount in mounts]
            assert len({os.stat(path).st_ino for path in paths}) == 1
            found = {await backend.identify(str(path), timeout=SECONDS) for path in paths}
            assert len(found) == 2
        finally:
            for mount in mounts:
                subprocess.run(["umount", mount], check=True)

    async def test_what_is_no_disk_has_no_identity(self, backend: DirectoryBackend, tmp_path: Path) -> None:
        with pytest.raises(ImageInvalid, match="no file and no block device"):
            await backend.identify(str(tmp_path), timeout=SECONDS)
        with pytest.raises(ImageInvalid, match="absolute"):
            await backend.identify("disk.raw", timeout=SECONDS)


class TestHostileImages:
    async def test_a_guest_that_writes_a_qcow2_header_gains_nothing(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        made = await make(backend, "a", Blank(size=4 * MIB), DiskFormat.RAW)
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/shadow", "-F", "raw", pool / "evil", MIB)
        with open(made.path, "r+b") as disk:
            disk.write((pool / "evil").read_bytes())
        seen = await see(backend, "a")
        assert seen is not None
        assert (seen.format, seen.backing, seen.size) == (DiskFormat.RAW, None, 4 * MIB)

    async def test_a_file_without_a_suffix_that_looks_like_qcow2_is_ambiguous(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        qemu_img("create", "-q", "-f", "qcow2", pool / "cloud.img", MIB)
        with pytest.raises(ImageInvalid, match=r"rename it to .*cloud\.img\.qcow2"):
            await see(backend, "cloud.img")

    @pytest.mark.parametrize("backing", ["/etc/passwd", "passwd"])
    async def test_an_import_that_refers_to_another_file_is_refused(
        self, backend: DirectoryBackend, tmp_path: Path, backing: str
    ) -> None:
        evil = tmp_path / "evil.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", "raw", evil, MIB)
        for content in (CopyOf(path=str(evil)), CloneOf(path=str(evil), format=DiskFormat.QCOW2)):
            with pytest.raises(ImageInvalid, match="refers to another file"):
                await make(backend, "a", content)
        assert await see(backend, "a") is None

    async def test_an_image_on_top_of_a_protocol_is_refused_also_in_the_pool(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        backing = 'json:{"driver":"file","filename":"/etc/passwd"}'
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", backing, "-F", "raw", pool / "a.qcow2", MIB)
        with pytest.raises(ImageInvalid, match="not a file"):
            await see(backend, "a")

    async def test_a_backing_file_of_unsaid_format_is_never_probed(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        made = await make(backend, "base", Blank(size=MIB))
        path = pool / "a.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", path, MIB)
        header = bytearray(path.read_bytes())
        name = made.path.encode()
        header[8:20] = (0x8000).to_bytes(8, "big") + len(name).to_bytes(4, "big")
        header[0x8000 : 0x8000 + len(name)] = name
        path.write_bytes(header)
        with pytest.raises(ImageInvalid, match=r"does not say the format.*rebase"):
            await see(backend, "a")

    async def test_data_in_another_file_is_refused(self, backend: DirectoryBackend, pool: Path) -> None:
        qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={pool}/d", pool / "a.qcow2", MIB)
        with pytest.raises(ImageInvalid, match="keeps its data in another file"):
            await see(backend, "a")

    async def test_a_missing_backing_file_is_named(self, backend: DirectoryBackend, pool: Path) -> None:
        base = await make(backend, "base", Blank(size=MIB))
        await make(backend, "a", CloneOf(path=base.path, format=DiskFormat.QCOW2))
        os.rename(base.path, f"{base.path}.away")
        with pytest.raises(ImageInvalid, match=r"base\.qcow2, which is not there"):
            await see(backend, "a")

    async def test_cut_off_and_damaged_images_are_refused(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        path = pool / "a.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", path, MIB)
        whole = path.read_bytes()
        for damaged in (b"", whole[:3], whole[:40], whole[:80], whole[:4096], b"QFI\xfb" + b"\xff" * 4096):
            path.write_bytes(damaged)
            with pytest.raises(ImageInvalid, match=r"a\.qcow2"):
                await see(backend, "a")

    @pytest.mark.parametrize("format", ["vmdk", "vdi", "vhdx"])
    async def test_other_hypervisors_images_are_named(
        self, backend: DirectoryBackend, tmp_path: Path, format: str
    ) -> None:
        path = tmp_path / "appliance"
        qemu_img("create", "-q", "-f", format, path, 8 * MIB)
        with pytest.raises(ImageInvalid, match=f"{format.upper()} image.*qemu-img convert"):
            await make(backend, "a", CopyOf(path=str(path)))

    async def test_a_cloud_image_may_be_imported_under_any_name(
        self, backend: DirectoryBackend, tmp_path: Path
    ) -> None:
        path = tmp_path / "cloud.img"
        qemu_img("create", "-q", "-f", "qcow2", path, 8 * MIB)
        made = await make(backend, "a", CopyOf(path=str(path)))
        assert made.size == 8 * MIB


class TestHalfMadeFiles:
    @pytest.mark.slow
    async def test_an_import_killed_half_way_leaves_no_image(self, pool: Path, tmp_path: Path) -> None:
        source = data(tmp_path / "origin.raw", 256 * MIB)
        program = (
            "import asyncio, sys, time\n"
            "from pathlib import Path\n"
            "from reconciler.adapters.directory_disks import DirectoryBackend\n"
            "from reconciler.resources.images import CopyOf\n"
            "backend = DirectoryBackend(Path(sys.argv[1]))\n"
            "def half_way(done):\n"
            "    if done:  # qemu-img has made the file by then\n"
            "        print(done, flush=True)\n"
            "        time.sleep(60)  # a slow test would otherwise find the import done\n"
            "asyncio.run(backend.create('a', CopyOf(path=sys.argv[2]), format=None, operation='import',\n"
            "    progress=half_way))\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(pool), str(source)], stdout=subprocess.PIPE
        ) as daemon:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            daemon.kill()
        backend = DirectoryBackend(pool)
        assert await see(backend, "a") is None
        (half,) = pool.glob(".a.*.tmp")
        other = data(pool / ".a.0123456789abcdef.000000000000.tmp")
        made = await backend.create(
            "a", CopyOf(path=str(source)), format=None, operation="import", progress=lambda done: None
        )
        assert made.size == 256 * MIB
        assert not half.exists()
        assert other.exists(), "another operation's file is not ours to remove"
        qemu_img("compare", "-q", "-f", "raw", "-F", "qcow2", source, made.path)
        backend.close()

    async def test_a_failed_copy_leaves_nothing_behind(
        self, backend: DirectoryBackend, pool: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ImageMissing):
            await make(backend, "a", CopyOf(path=str(tmp_path / "absent.raw")))
        assert [p.name for p in pool.iterdir()] == [".vcl-pool"]

    async def test_a_cancelled_import_ends_qemu_img(
        self, backend: DirectoryBackend, pool: Path, tmp_path: Path
    ) -> None:
        source = data(tmp_path / "origin.raw", 256 * MIB)
        begun = asyncio.Event()
        task = asyncio.create_task(
            backend.create(
                "a",
                CopyOf(path=str(source)),
                format=None,
                operation="import",
                progress=lambda done: begun.set(),
            )
        )
        await asyncio.wait_for(begun.wait(), SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [p.name for p in pool.iterdir()] == [".vcl-pool"]
        working = subprocess.run(["pgrep", "-f", str(pool)], capture_output=True, text=True, check=False)
        assert working.stdout == ""

    async def test_a_disk_that_fills_up_during_the_copy_is_no_space(self, tmp_path: Path) -> None:
        small = tmp_path / "small"
        small.mkdir()
        program = tmp_path / "qemu-img"
        program.write_text(
            "#!/bin/sh\n# Measures like a source that is almost empty, so that only the copy notices.\n"
            'if [ "$1" = measure ]; then echo \'{"required": 1}\'; else exec qemu-img "$@"; fi\n'
        )
        program.chmod(0o755)
        source = data(tmp_path / "origin.raw", 16 * MIB)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
        backend = DirectoryBackend(small, qemu_img=str(program))
        try:
            with pytest.raises(NoSpace, match="No space left"):
                await make(backend, "a", CopyOf(path=str(source)))
            assert await see(backend, "a") is None
            assert [p.name for p in small.iterdir()] == [".vcl-pool"]
            (small / "filler").write_bytes(bytes(3 * MIB))
            (small / "rest").write_bytes(bytes((await backend.capacity(timeout=SECONDS)).free))
            with pytest.raises(NoSpace):
                await make(backend, "b", Blank(size=MIB))
            assert await see(backend, "b") is None
        finally:
            backend.close()
            subprocess.run(["umount", small], check=True)


class TestTrash:
    async def test_what_is_put_aside_is_kept_under_a_number(
        self, backend: DirectoryBackend, pool: Path
    ) -> None:
        for _ in range(2):
            await make(backend, "a", Blank(size=MIB))
            await backend.trash("a", timeout=SECONDS)
        assert sorted(p.name for p in (pool / ".trash").iterdir()) == ["a.1.qcow2", "a.2.qcow2"]

    async def test_a_link_is_put_aside_and_its_target_stays(
        self, backend: DirectoryBackend, pool: Path, tmp_path: Path
    ) -> None:
        target = data(tmp_path / "elsewhere.raw")
        (pool / "a.raw").symlink_to(target)
        await backend.trash("a", timeout=SECONDS)
        assert target.exists()
        assert (pool / ".trash" / "a.1.raw").is_symlink()


class TestThePoolItself:
    async def test_a_missing_directory_says_what_to_do(self, tmp_path: Path) -> None:
        backend = DirectoryBackend(tmp_path / "absent")
        with pytest.raises(PoolUnavailable, match="mkdir -p"):
            await see(backend, "a")
        backend.close()

    async def test_an_unmounted_pool_is_noticed_after_a_restart_too(
        self, backend: DirectoryBackend, pool: Path, tmp_path: Path
    ) -> None:
        await make(backend, "a", Blank(size=MIB))
        pool.rename(tmp_path / "away")
        pool.mkdir()
        again = DirectoryBackend(pool, remembered=tmp_path / "state" / "pools" / "default")
        for pool_of_before in (backend, again):
            with pytest.raises(PoolUnavailable, match=r"not the pool that it was.*mount"):
                await see(pool_of_before, "a")
        assert list(pool.iterdir()) == [], "nothing is written into a mount point without its mount"
        again.close()

    async def test_a_pool_whose_path_was_changed_is_a_new_one(
        self, backend: DirectoryBackend, tmp_path: Path
    ) -> None:
        await make(backend, "a", Blank(size=MIB))
        (tmp_path / "new").mkdir()
        moved = DirectoryBackend(tmp_path / "new", remembered=tmp_path / "state" / "pools" / "default")
        assert await see(moved, "a") is None
        moved.close()

    async def test_another_pool_in_its_place_is_noticed(self, backend: DirectoryBackend, pool: Path) -> None:
        await make(backend, "a", Blank(size=MIB))
        (pool / ".vcl-pool").write_text("another\n")
        with pytest.raises(PoolUnavailable, match="another one"):
            await see(backend, "a")

    async def test_nodes_that_share_a_directory_agree_on_it(self, pool: Path, tmp_path: Path) -> None:
        nodes = [DirectoryBackend(pool, remembered=tmp_path / str(node)) for node in range(4)]
        made = await make(nodes[0], "a", Blank(size=MIB))
        assert await asyncio.gather(*(see(node, "a") for node in nodes)) == [made] * 4
        for node in nodes:
            node.close()

    async def test_a_broken_qemu_img_is_named(self, pool: Path) -> None:
        backend = DirectoryBackend(pool, qemu_img="no-such-qemu-img")
        with pytest.raises(Exception, match="no-such-qemu-img is not installed; install it"):
            await make(backend, "a", Blank(size=MIB))
        assert list(pool.glob(".*.tmp")) == []
        backend.close()

    async def test_a_directory_that_hangs_is_unavailable(self, backend: DirectoryBackend) -> None:
        with pytest.raises(PoolUnavailable, match="did not answer within 0 s"):
            await backend.inspect("a", timeout=0.0)

    async def test_looking_at_a_thousand_images_costs_little(self, backend: DirectoryBackend) -> None:
        await make(backend, "a", Blank(size=MIB))
        before = time.process_time()
        for _ in range(1000):
            await see(backend, "a")
        assert time.process_time() - before < 1.0, "a resync of 1,000 VMs has one second of CPU"


class TestHolders:
    async def test_a_real_qemu_is_named_with_its_guest(self, backend: DirectoryBackend) -> None:
        made = await make(backend, "a", Blank(size=MIB))
        command = ["qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-accel", "tcg", "-m", "64"]
        command += ["-S", "-display", "none", "-nodefaults", "-monitor", "stdio"]
        command += ["-drive", f"file={made.path},format=qcow2,if=virtio"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
            assert qemu.stdout is not None
            qemu.stdout.read1(1)
            holders = await backend.holders("a", timeout=SECONDS)
            qemu.send_signal(signal.SIGKILL)
            qemu.communicate()
        assert [holder.description for holder in holders] == [f"qemu-system-x86_64 of 'web' (pid {qemu.pid})"]
        assert holders[0].client.startswith(f"pid:{qemu.pid}:")

    async def test_a_reader_does_not_hold_an_image(self, backend: DirectoryBackend) -> None:
        made = await make(backend, "a", Blank(size=MIB))
        with open(made.path, "rb") as image, subprocess.Popen(["sleep", "30"], stdin=image) as reader:
            assert await backend.holders("a", timeout=SECONDS) == ()
            reader.kill()

    async def test_a_lock_of_a_qemu_that_proc_does_not_show_counts(self, backend: DirectoryBackend) -> None:
        made = await make(backend, "a", Blank(size=MIB))
        with open(made.path, "rb") as image:  # as QEMU on another host of an NFS server would hold it
            lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0)
            fcntl.fcntl(image.fileno(), 37, lock)  # F_OFD_SETLK
            (holder,) = await backend.holders("a", timeout=SECONDS)
        assert holder.client == "lock"
        assert await backend.holders("a", timeout=SECONDS) == ()
