"""Writing into a directory that others write to as well: whole files, and nobody's bytes lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.adapters.files import (
    TEMPORARY,
    Changed,
    create,
    digest,
    exchange,
    remove_checked,
    replace_checked,
    write_durably,
)
from reconciler.adapters.manifest_base import BaseFile
from reconciler.adapters.manifest_directory import LocalManifestDirectory
from reconciler.resources.errors import ConflictError, ManifestDirectoryError
from reconciler.resources.scans import Base

OLD, NEW, THEIRS, LATER = b"old\n", b"new\n", b"theirs\n", b"later\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "web.yaml"
    made.write_bytes(OLD)
    return made


@pytest.fixture
async def directory(tmp_path: Path) -> AsyncIterator[LocalManifestDirectory]:
    made = LocalManifestDirectory(tmp_path, node="r1")
    yield made
    await made.close()


def aside(path: Path) -> Path:
    return path.with_name("web.conflict-r1.yaml")


def cannot_exchange(one: Path, other: Path) -> bool:
    return False


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.mark.parametrize("swap", [exchange, cannot_exchange])
def test_mode_and_owner_stay_and_nothing_is_left_over(path: Path, swap: object) -> None:
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    assert callable(swap)
    replace_checked(path, NEW, expect=digest(OLD), aside=lambda: aside(path), swap=swap)
    after = path.stat()
    assert path.read_bytes() == NEW
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o604, before.st_uid, before.st_gid)
    assert names(path) == ["web.yaml"]


def test_bytes_that_appear_just_before_the_exchange_stay_in_place(path: Path) -> None:
    calls = []

    def late(one: Path, other: Path) -> bool:
        if not calls:
            path.write_bytes(THEIRS)
        calls.append(one)
        return exchange(one, other)

    with pytest.raises(Changed) as caught:
        replace_checked(path, NEW, expect=digest(OLD), aside=lambda: aside(path), swap=late)
    assert caught.value.kept is None
    assert path.read_bytes() == THEIRS
    assert names(path) == ["web.yaml"]


def test_bytes_of_two_others_are_both_kept(path: Path) -> None:
    calls = []

    def busy(one: Path, other: Path) -> bool:
        path.write_bytes(LATER if calls else THEIRS)
        calls.append(one)
        return exchange(one, other)

    with pytest.raises(Changed) as caught:
        replace_checked(path, NEW, expect=digest(OLD), aside=lambda: aside(path), swap=busy)
    assert caught.value.kept == aside(path)
    assert {path.read_bytes(), aside(path).read_bytes()} == {THEIRS, LATER}
    assert names(path) == ["web.conflict-r1.yaml", "web.yaml"]


def test_without_exchange_other_bytes_are_still_not_overwritten(path: Path) -> None:
    def late(one: Path, other: Path) -> bool:
        path.write_bytes(THEIRS)
        return False

    with pytest.raises(Changed):
        replace_checked(path, NEW, expect=digest(OLD), aside=lambda: aside(path), swap=late)
    assert path.read_bytes() == THEIRS
    assert names(path) == ["web.yaml"]


def test_a_new_file_is_private_to_owner_and_group(tmp_path: Path) -> None:
    create(tmp_path / "web.yaml", NEW, mode=0o640)
    assert stat.S_IMODE((tmp_path / "web.yaml").stat().st_mode) & ~0o640 == 0
    with pytest.raises(Changed):
        create(tmp_path / "web.yaml", OLD, mode=0o640)
    assert (tmp_path / "web.yaml").read_bytes() == NEW
    assert names(tmp_path / "web.yaml") == ["web.yaml"]


def test_removal_is_checked_too(path: Path) -> None:
    with pytest.raises(Changed):
        remove_checked(path, expect=digest(NEW), aside=lambda: aside(path))
    assert path.read_bytes() == OLD
    remove_checked(path, expect=digest(OLD), aside=lambda: aside(path))
    assert names(path) == []
    with pytest.raises(Changed):
        remove_checked(path, expect=digest(OLD), aside=lambda: aside(path))


@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
async def test_what_is_no_file_is_never_replaced_or_waited_for(
    directory: LocalManifestDirectory, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "web.yaml"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("/etc/hostname")
    else:
        path.mkdir()
    before = path.lstat()
    for expect in (None, digest(OLD)):
        with pytest.raises((ConflictError, ManifestDirectoryError)):
            await directory.write("web.yaml", NEW, expect=expect)
    with pytest.raises((ConflictError, ManifestDirectoryError)):
        await directory.remove("web.yaml", expect=digest(OLD))
    assert path.lstat().st_ino == before.st_ino
    assert names(path) == ["web.yaml"]


async def test_a_conflict_names_the_file_and_the_cure(directory: LocalManifestDirectory, path: Path) -> None:
    with pytest.raises(ConflictError) as caught:
        await directory.write("web.yaml", NEW, expect=digest(THEIRS))
    assert str(caught.value) == ("web.yaml was changed by somebody else just now; look at it, and try again")


async def test_what_an_interrupted_write_left_is_shown_and_not_taken(
    directory: LocalManifestDirectory, tmp_path: Path
) -> None:
    (tmp_path / f".web.yaml.00ff{TEMPORARY}").write_bytes(NEW)
    scan = await directory.scan(timeout=5)
    assert scan.files == ()
    assert scan.complete
    assert ["left behind by an interrupted write" in why for why in scan.ignored.values()] == [True]


def on_a_small_disk(tmp_path: Path, code: str) -> str:
    """Run Python in a mount namespace of its own, with a file system of 64 KiB at `disk`."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "run.py").write_text(textwrap.dedent(code))
    command = 'mount -t tmpfs -o size=64k small "$1" && exec "$2" "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", str(disk), sys.executable, str(tmp_path / "run.py")],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path) -> None:
    out = on_a_small_disk(
        tmp_path,
        """
        import asyncio, json, sys
        from pathlib import Path
        from reconciler.adapters.files import digest
        from reconciler.adapters.manifest_base import BaseFile
        from reconciler.adapters.manifest_directory import LocalManifestDirectory
        from reconciler.resources.errors import ManifestDirectoryError
        from reconciler.resources.scans import Base

        async def main(root):
            directory = LocalManifestDirectory(root, node="r1")
            old = b"#" * 30000
            await directory.write("web.yaml", old, expect=None)
            base = BaseFile(root / "base.json")
            await base.save(Base(marker="m"))
            errors = []
            for path, expect in (("web.yaml", digest(old)), ("db.yaml", None)):
                try:
                    await directory.write(path, b"+" * 60000, expect=expect)
                except ManifestDirectoryError as error:
                    errors.append(str(error))
            try:
                await base.save(Base(marker="m", files={"f" * 60000: ("d",)}))
            except ManifestDirectoryError as error:
                errors.append(str(error))
            whole = (root / "web.yaml").read_bytes() == old and await base.load() == Base(marker="m")
            await directory.close()
            print(json.dumps([errors, whole, sorted(p.name for p in root.iterdir())]))

        asyncio.run(main(Path(sys.argv[1])))
        """,
    )
    errors, whole, left = json.loads(out)
    assert whole
    assert left == ["base.json", "web.yaml"]
    assert len(errors) == 3
    assert errors[0].startswith("web.yaml was not written, and is as it was: No space left on device")


def test_a_read_only_disk_says_so(tmp_path: Path) -> None:
    out = on_a_small_disk(
        tmp_path,
        """
        import asyncio, subprocess, sys
        from pathlib import Path
        from reconciler.adapters.manifest_directory import LocalManifestDirectory
        from reconciler.resources.errors import ManifestDirectoryError

        async def main(root):
            subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
            directory = LocalManifestDirectory(root, node="r1")
            try:
                await directory.write("web.yaml", b"a", expect=None)
            except ManifestDirectoryError as error:
                print(error)
            await directory.close()

        asyncio.run(main(Path(sys.argv[1])))
        """,
    )
    assert "the file system is read-only" in out


def test_a_writer_killed_at_any_instant_leaves_a_whole_file(path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from reconciler.adapters.files import digest, replace_checked
        path, texts = Path(sys.argv[1]), (b"a" * 40000, b"b" * 40000)
        now = path.read_bytes()
        print("go", flush=True)
        while True:
            then = texts[now == texts[0]]
            replace_checked(path, then, expect=digest(now), aside=lambda: path.with_name("never.yaml"))
            now = then
        """
    )
    path.write_bytes(b"a" * 40000)
    chance = random.Random(1)
    for _ in range(12):
        writer = subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout:
            assert writer.stdout.readline() == "go\n"
            time.sleep(chance.random() * 0.05)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert path.read_bytes() in (b"a" * 40000, b"b" * 40000)
    leftovers = [name for name in names(path) if name != "web.yaml"]
    assert all(name.startswith(".") and name.endswith(TEMPORARY) for name in leftovers)


# What the node remembers.


async def test_the_base_survives_a_restart(tmp_path: Path) -> None:
    base = Base(marker="m", files={"web.yaml": ("a", "b"), "sub/db.yaml": ("c",)})
    await BaseFile(tmp_path / "base.json").save(base)
    assert await BaseFile(tmp_path / "base.json").load() == base


@pytest.mark.parametrize("text", ["", "{", "[]", '{"marker": 5}', '{"files": {"a": 1}}', "\x00\xff"])
async def test_a_base_that_cannot_be_read_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "base.json").write_text(text, encoding="latin-1")
    assert await BaseFile(tmp_path / "base.json").load() == Base()


async def test_no_base_is_an_empty_one(tmp_path: Path) -> None:
    assert await BaseFile(tmp_path / "base.json").load() == Base()
    with pytest.raises(ManifestDirectoryError, match="cannot be written"):
        await BaseFile(tmp_path / "missing" / "base.json").save(Base(marker="m"))


def test_a_durable_write_replaces_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_durably(path, OLD)
    write_durably(path, NEW)
    assert path.read_bytes() == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# What other nodes saved.


async def test_a_directory_that_is_not_there_is_not_made(directory: LocalManifestDirectory) -> None:
    shutil.rmtree(directory.root)
    with pytest.raises(ManifestDirectoryError):
        await directory.write("deep/web.yaml", NEW, expect=None)
    assert not directory.root.exists()


async def test_new_directories_and_files_are_not_for_everybody(directory: LocalManifestDirectory) -> None:
    await directory.write("deep/web.yaml", NEW, expect=None)
    await directory.keep("deep/web.yaml", OLD)
    assert stat.S_IMODE((directory.root / "deep").stat().st_mode) & 0o027 == 0
    for name in ("web.yaml", "web.conflict-r1.yaml"):
        assert stat.S_IMODE((directory.root / "deep" / name).stat().st_mode) & 0o037 == 0


async def test_nothing_is_made_through_a_link_that_leads_out(
    directory: LocalManifestDirectory, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (directory.root / "out").symlink_to(outside)
    with pytest.raises(ManifestDirectoryError, match="leads out"):
        await directory.write("out/deep/web.yaml", NEW, expect=None)
    with pytest.raises(ManifestDirectoryError, match="leads out"):
        await directory.keep("out/web.yaml", NEW)
    assert list(outside.iterdir()) == []


async def test_nothing_is_written_through_a_link_that_the_scan_does_not_follow(
    directory: LocalManifestDirectory,
) -> None:
    (directory.root / "real").mkdir()
    (directory.root / "link").symlink_to("real")
    with pytest.raises(ManifestDirectoryError, match="through a link"):
        await directory.write("link/web.yaml", NEW, expect=None)
    assert list((directory.root / "real").iterdir()) == []


async def test_a_link_under_a_conflict_files_name_is_left_alone(
    directory: LocalManifestDirectory, tmp_path: Path
) -> None:
    (directory.root / "web.conflict-r1.yaml").symlink_to(tmp_path / "elsewhere")
    assert await directory.keep("web.yaml", NEW) == "web.conflict-r1-2.yaml"
    assert not (tmp_path / "elsewhere").exists()
