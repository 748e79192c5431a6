"""The real directory under everything that editors, users and file systems do to it."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from watchdog.observers.api import BaseObserver

from reconciler.adapters.files import digest
from reconciler.adapters.manifest_directory import LocalManifestDirectory
from reconciler.adapters.manifest_watch import inotify_observer
from reconciler.planning.manifest_marker import MARKER_FILE
from reconciler.resources.errors import ManifestDirectoryError
from reconciler.resources.scans import Scan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "manifests"
    made.mkdir()
    return made


@pytest.fixture
async def directory(root: Path) -> AsyncIterator[LocalManifestDirectory]:
    made = LocalManifestDirectory(root, node="r1", check_seconds=0.2)
    yield made
    await made.close()


async def look(directory: LocalManifestDirectory) -> Scan:
    return await directory.scan(timeout=5)


def paths(scan: Scan) -> list[str]:
    return [file.path for file in scan.files]


# What is in it.


async def test_a_fifo_never_blocks_and_is_reported(directory: LocalManifestDirectory, root: Path) -> None:
    os.mkfifo(root / "pipe.yaml")
    (root / "web.yaml").write_text("a")
    scan = await look(directory)
    assert paths(scan) == ["web.yaml"]
    assert scan.ignored == {"pipe.yaml": "is a FIFO, not a regular file"}
    assert scan.complete


async def test_sockets_and_directories_with_a_manifests_name_are_no_manifests(
    directory: LocalManifestDirectory, root: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket.yaml"))
        (root / "sub.yaml").mkdir()
        (root / "sub.yaml" / "web.yaml").write_text("a")
        scan = await look(directory)
    assert paths(scan) == ["sub.yaml/web.yaml"]
    assert scan.ignored == {"socket.yaml": "is a socket, not a regular file"}


async def test_links_that_lead_out_or_nowhere_or_in_circles_are_reported(
    directory: LocalManifestDirectory, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "outside.yaml").write_text("a")
    (root / "out.yaml").symlink_to(tmp_path / "outside.yaml")
    (root / "nowhere.yaml").symlink_to("missing.yaml")
    (root / "loop.yaml").symlink_to("loop.yaml")
    (root / "up").symlink_to("..")
    (root / "shadow").symlink_to("/etc/shadow")
    scan = await look(directory)
    assert paths(scan) == []
    assert scan.complete
    assert set(scan.ignored) == {"out.yaml", "nowhere.yaml", "loop.yaml", "up"}
    assert "leads out of the directory" in scan.ignored["out.yaml"]
    assert "cannot be followed" in scan.ignored["loop.yaml"]


async def test_a_link_to_a_hidden_version_inside_is_followed(
    directory: LocalManifestDirectory, root: Path
) -> None:
    (root / ".versions").mkdir()
    (root / ".versions" / "web.yaml").write_text("one")
    (root / "web.yaml").symlink_to(".versions/web.yaml")
    scan = await look(directory)
    assert [(file.path, file.data) for file in scan.files] == [("web.yaml", b"one")]
    await directory.write("web.yaml", b"two", expect=digest(b"one"))
    assert (root / "web.yaml").is_symlink()
    assert (root / ".versions" / "web.yaml").read_text() == "two"


async def test_a_link_to_another_manifest_is_not_a_second_definition(
    directory: LocalManifestDirectory, root: Path
) -> None:
    (root / "web.yaml").write_text("a")
    (root / "current.yaml").symlink_to("web.yaml")
    scan = await look(directory)
    assert paths(scan) == ["web.yaml"]
    assert scan.ignored == {"current.yaml": "is a link to web.yaml, which is taken itself"}


async def test_a_file_over_the_limit_is_not_read(directory: LocalManifestDirectory, root: Path) -> None:
    (root / "big.yaml").write_bytes(b"#" * (10 * 2**20))
    (root / "full.yaml").write_bytes(b"#" * 2**20)
    scan = await look(directory)
    big, full = scan.files
    assert big.data is None
    assert big.error == "big.yaml: the file is 10.0 MiB; a manifest is 1 MiB at most"
    assert full.data is not None
    assert scan.complete


async def test_names_that_no_store_could_hold_are_reported(
    directory: LocalManifestDirectory, root: Path
) -> None:
    (root / os.fsdecode(b"bad-\xff.yaml")).write_text("a")
    (root / ("ü" * 100 + ".yaml")).write_text("a")
    (root / "with space and ü.yaml").write_text("a")
    scan = await look(directory)
    assert paths(scan) == ["with space and ü.yaml"]
    assert sorted(scan.ignored.values()) == [
        "has a name that is not UTF-8; rename it",
        "has a path that is too long; shorten it",
    ]


async def test_nesting_has_a_limit(directory: LocalManifestDirectory, root: Path) -> None:
    deep = root.joinpath(*["d"] * 40)
    deep.mkdir(parents=True)
    (deep / "web.yaml").write_text("a")
    scan = await look(directory)
    assert paths(scan) == []
    assert ["deeper than 16" in why for why in scan.ignored.values()] == [True]


def test_a_file_that_may_not_be_read_makes_the_scan_incomplete(root: Path) -> None:
    (root / "web.yaml").write_text("a")
    (root / "secret.yaml").write_text("a")
    (root / "secret.yaml").chmod(0)
    (root / "closed").mkdir(mode=0)
    found = without_privileges(
        f"""
        from pathlib import Path
        from reconciler.adapters.manifest_scan import Scanner
        scan = Scanner(Path({str(root)!r})).scan()
        print(json.dumps([scan.complete, scan.problem, [[f.path, f.error] for f in scan.files]]))
        """
    )
    (root / "closed").chmod(0o700)
    complete, problem, files = json.loads(found)
    assert not complete
    assert "closed cannot be read: Permission denied" in problem
    assert files == [
        ["secret.yaml", "secret.yaml cannot be read: Permission denied; give vcld the right to read it"],
        ["web.yaml", ""],
    ]


def without_privileges(code: str) -> str:
    """Run Python as somebody whom file modes bind, root included."""
    bare = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    prefix = bare if os.geteuid() == 0 else []
    script = "import json\n" + textwrap.dedent(code)
    done = subprocess.run(
        [*prefix, sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout


# Is it there, and is it the right one?


async def test_a_missing_directory_is_an_incomplete_scan(
    directory: LocalManifestDirectory, root: Path
) -> None:
    root.rmdir()
    scan = await look(directory)
    assert not scan.complete
    assert "create or mount it" in scan.problem
    with pytest.raises(ManifestDirectoryError, match="create it"):
        await directory.write("web.yaml", b"a", expect=None)


async def test_a_marker_that_is_no_file_is_a_problem(directory: LocalManifestDirectory, root: Path) -> None:
    os.mkfifo(root / MARKER_FILE)
    scan = await look(directory)
    assert not scan.complete
    assert scan.marker == ""


async def test_the_marker_may_be_written_by_hand(directory: LocalManifestDirectory, root: Path) -> None:
    (root / MARKER_FILE).write_text("  some-id \n# a note\n")
    assert (await look(directory)).marker == "some-id"


@pytest.mark.parametrize("where", ["root", "above", "submodule", "worktree"])
async def test_git_at_work_is_seen(
    directory: LocalManifestDirectory, root: Path, tmp_path: Path, where: str
) -> None:
    git = {"above": tmp_path / ".git", "submodule": root / "sub" / ".git"}.get(where, root / ".git")
    if where == "worktree":
        git.write_text("gitdir: ../elsewhere\n")
        git = tmp_path / "elsewhere"
    git.mkdir(parents=True)
    assert not (await look(directory)).git_busy
    (git / "index.lock").touch()
    assert (await look(directory)).git_busy


async def test_a_directory_that_hangs_does_not_stop_the_daemon(
    directory: LocalManifestDirectory, root: Path
) -> None:
    stuck = asyncio.Event()
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang() -> None:
        loop.call_soon_threadsafe(stuck.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()

    writing = asyncio.create_task(directory._change("web.yaml", hang))
    await stuck.wait()
    scan = await directory.scan(timeout=0.1)
    assert not scan.complete
    assert "does not answer" in scan.problem
    release.set()
    await writing
    async with asyncio.timeout(5):
        while not (await look(directory)).complete:
            await asyncio.sleep(0.01)


# What editors do.


async def test_an_unchanged_file_is_not_read_again(directory: LocalManifestDirectory, root: Path) -> None:
    path = root / "web.yaml"
    path.write_text("one")
    old = path.stat().st_mtime - 3600
    os.utime(path, (old, old))
    first = (await look(directory)).files[0]
    second = (await look(directory)).files[0]
    assert first == second


async def test_a_change_within_the_clocks_grain_is_seen(
    directory: LocalManifestDirectory, root: Path
) -> None:
    path = root / "web.yaml"
    path.write_text("one")
    before = path.stat()
    await look(directory)
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await look(directory)).files[0].data == b"two"


def vim(path: Path, text: str) -> None:
    swap, probe, backup = (
        path.with_name(f".{path.name}.swp"),
        path.with_name("4913"),
        path.with_name(path.name + "~"),
    )
    swap.write_bytes(b"b0VIM")
    probe.touch()
    probe.unlink()
    path.rename(backup)
    path.write_text(text)
    backup.unlink()
    swap.unlink()


def nano(path: Path, text: str) -> None:
    with path.open("r+") as file:
        file.truncate()
        file.flush()
        file.write(text)


def emacs(path: Path, text: str) -> None:
    lock, autosave = path.with_name(f".#{path.name}"), path.with_name(f"#{path.name}#")
    lock.symlink_to("user@host.4711:1700000000")
    autosave.write_text(text)
    path.rename(path.with_name(path.name + "~"))
    path.write_text(text)
    autosave.unlink()
    lock.unlink()


def kate(path: Path, text: str) -> None:
    swap, fresh = path.with_name(f".{path.name}.kate-swp"), path.with_name(f"{path.name}.XyZ123")
    swap.write_bytes(b"kate")
    fresh.write_text(text)
    fresh.replace(path)
    swap.unlink()


def sed(path: Path, text: str) -> None:
    subprocess.run(["sed", "-i", f"s/.*/{text}/", str(path)], check=True, timeout=10)


def copy_aside(path: Path, text: str) -> None:
    shutil.copy(path, path.with_name(path.name + ".bak"))
    path.write_text(text)


@pytest.mark.parametrize("edit", [vim, nano, emacs, kate, sed, copy_aside], ids=lambda edit: edit.__name__)
async def test_an_editor_changes_one_file_and_gives_a_hint(
    directory: LocalManifestDirectory, root: Path, edit: object
) -> None:
    path = root / "web.yaml"
    path.write_text("before")
    hints = directory.changes()
    await anext(hints)
    await look(directory)
    assert callable(edit)
    edit(path, "after")
    async with asyncio.timeout(5):
        await anext(hints)
    scan = await look(directory)
    assert [(file.path, file.data and file.data.strip()) for file in scan.files] == [("web.yaml", b"after")]
    assert scan.ignored == {}


async def test_a_file_that_is_being_written_is_not_taken(
    directory: LocalManifestDirectory, root: Path
) -> None:
    path = root / "web.yaml"
    path.write_bytes(b"x" * 1000)
    writer = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nwith open(sys.argv[1], 'ab', 0) as f:\n while f.tell() < 900000: f.write(b'y' * 7)",
            str(path),
        ]
    )
    try:
        seen = []
        while writer.poll() is None:
            scan = await look(directory)
            seen += [file for file in scan.files if file.data is None]
            assert all(scan.complete is (file.data is not None) for file in scan.files)
    finally:
        writer.kill()
        writer.wait()
    assert all("is being written" in file.error for file in seen)
    assert (await look(directory)).complete


# Hints.


async def next_hint(hints: AsyncIterator[None], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        await anext(hints)


async def test_a_hint_comes_quickly(directory: LocalManifestDirectory, root: Path) -> None:
    hints = directory.changes()
    await next_hint(hints)
    loop = asyncio.get_running_loop()
    began = loop.time()
    (root / "web.yaml").write_text("a")
    await next_hint(hints)
    assert loop.time() - began < 1.0


async def test_looking_and_other_files_give_no_hints(directory: LocalManifestDirectory, root: Path) -> None:
    (root / "web.yaml").write_text("a")
    (root / ".git").mkdir()
    hints = directory.changes()
    await next_hint(hints)
    await look(directory)
    (root / "notes.txt").write_text("a")
    (root / ".git" / "web.yaml").write_text("a")
    (root / ".web.yaml.swp").write_text("a")
    with pytest.raises(TimeoutError):
        await next_hint(hints, 0.6)


async def test_files_in_new_directories_give_hints(directory: LocalManifestDirectory, root: Path) -> None:
    hints = directory.changes()
    await next_hint(hints)
    (root / "sub").mkdir()
    await next_hint(hints)
    await asyncio.sleep(0.1)
    (root / "sub" / "web.yaml").write_text("a")
    await next_hint(hints)


async def test_a_directory_that_was_replaced_is_watched_anew(
    directory: LocalManifestDirectory, root: Path
) -> None:
    hints = directory.changes()
    await next_hint(hints)
    root.rename(root.with_name("old"))
    root.mkdir()
    await next_hint(hints)
    while not directory.watching:
        await next_hint(hints)
    (root / "web.yaml").write_text("a")
    await next_hint(hints)
    assert paths(await look(directory)) == ["web.yaml"]


async def test_a_directory_that_appears_later_is_watched(
    directory: LocalManifestDirectory, root: Path
) -> None:
    root.rmdir()
    hints = directory.changes()
    await next_hint(hints)
    root.mkdir()
    while not directory.watching:
        await next_hint(hints)
    (root / "web.yaml").write_text("a")
    await next_hint(hints)


async def test_without_watches_the_directory_is_polled_until_there_are_some(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exhausted = True

    def make() -> BaseObserver:
        if exhausted:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        return inotify_observer()

    directory = LocalManifestDirectory(root, node="r1", check_seconds=0.1, make_observer=make)
    caplog.set_level(logging.WARNING)
    hints = directory.changes()
    for _ in range(3):
        await next_hint(hints)
    assert len(caplog.messages) == 1
    assert "fs.inotify.max_user_watches" in caplog.messages[0]
    exhausted = False
    while not directory.watching:
        await next_hint(hints)
    await directory.close()
