"""The loop on a real directory: from a saved file to a record, through whatever happens to the directory."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from reconciler.adapters.clock import SystemClock
from reconciler.adapters.manifest_base import BaseFile
from reconciler.adapters.manifest_directory import LocalManifestDirectory
from reconciler.planning.manifest_marker import MARKER_FILE
from reconciler.ports.manifests import ApplyInput, ApplyOutcome
from reconciler.sim.store import MemoryStore
from reconciler.testing.manifests import ManifestWorld, together, vm


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "manifests"
    made.mkdir()
    return made


@pytest.fixture
async def world(root: Path, tmp_path: Path) -> AsyncIterator[ManifestWorld]:
    directory = LocalManifestDirectory(root, node="r1", check_seconds=0.2)
    made = ManifestWorld(
        MemoryStore(), directory=directory, bases=BaseFile(tmp_path / "base.json"), clock=SystemClock()
    )
    await made.start()
    running = asyncio.create_task(made.sync.run())
    await until(lambda: (root / MARKER_FILE).exists() and directory.watching)
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await made.stop()
    await directory.close()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def memory(world: ManifestWorld, name: str = "web") -> object:
    record = world.record(name)
    return record.spec["memory"] if record else None


async def test_a_saved_file_is_a_record_long_before_the_next_rescan(world: ManifestWorld, root: Path) -> None:
    for size in ("64Mi", "65Mi", "66Mi"):
        (root / "web.yaml").write_bytes(vm("web", memory=size))
        await until(lambda wanted=size: memory(world) == wanted, 5.0)  # type: ignore[misc]


async def test_saving_by_rename_never_looks_like_a_deletion(world: ManifestWorld, root: Path) -> None:
    path = root / "web.yaml"
    path.write_bytes(vm("web"))
    (root / "db.yaml").write_bytes(vm("db"))
    await until(lambda: len(world.living()) == 2)
    before = world.record("web")
    for number in range(65, 75):
        path.rename(root / "web.yaml~")
        await asyncio.sleep(0.05)
        path.write_bytes(vm("web", memory=f"{number}Mi"))
        (root / "web.yaml~").unlink()
    await until(lambda: memory(world) == "74Mi")
    after = world.record("web")
    assert before is not None
    assert after is not None
    assert after.metadata.uid == before.metadata.uid
    assert after.metadata.deletion_timestamp is None


async def test_a_file_that_is_written_slowly_is_taken_when_it_is_whole(
    world: ManifestWorld, root: Path
) -> None:
    whole = together(vm("web"), vm("db"), vm("mail"))
    with (root / "all.yaml").open("wb", buffering=0) as file:
        for start in range(0, len(whole), 40):
            file.write(whole[start : start + 40])
            await asyncio.sleep(0.02)
    await until(lambda: len(world.living()) == 3)
    assert world.condition("web") is None


async def test_removing_a_file_deletes_and_removing_all_is_held(world: ManifestWorld, root: Path) -> None:
    for name in ("web", "db", "mail"):
        (root / f"{name}.yaml").write_bytes(vm(name))
    await until(lambda: len(world.living()) == 3)
    (root / "web.yaml").unlink()
    await until(lambda: world.living() == ["db", "mail"])
    (root / "db.yaml").unlink()
    (root / "mail.yaml").unlink()
    await until(lambda: world.service.held() is not None)
    assert world.living() == ["db", "mail"]


async def test_a_directory_that_is_exchanged_is_not_followed_until_it_is_back(
    world: ManifestWorld, root: Path
) -> None:
    (root / "web.yaml").write_bytes(vm("web"))
    await until(lambda: world.living() == ["web"])
    away = root.with_name("away")
    root.rename(away)
    await until(lambda: "create or mount it" in world.sync.status().problem)
    root.mkdir()
    (root / "stray.yaml").write_bytes(vm("stray"))
    await until(lambda: MARKER_FILE in world.sync.status().problem)
    await asyncio.sleep(1.5)
    assert world.living() == ["web"]
    shutil.rmtree(root)
    away.rename(root)
    (root / "web.yaml").write_bytes(vm("web", memory="1Gi"))
    await until(lambda: memory(world) == "1Gi")
    await until(lambda: world.sync.status().problem == "")


async def test_apply_edit_and_delete_go_through_the_directory(world: ManifestWorld, root: Path) -> None:
    path = root / "virtualmachine-web.yaml"
    content = vm("web", comment="as I wrote it")
    report = await world.service.apply([ApplyInput(name="w.yaml", content=content)], dry_run=False)
    assert report.results[0].result is ApplyOutcome.CREATED
    assert path.read_bytes() == content
    path.chmod(0o600)
    edited = vm("web", memory="1Gi")
    report = await world.service.apply([ApplyInput(name="w.yaml", content=edited)], dry_run=False)
    assert report.results[0].result is ApplyOutcome.CONFIGURED
    assert path.read_bytes() == edited
    assert path.stat().st_mode & 0o777 == 0o600
    await world.service.delete("vm", "web", purge=True)
    assert os.listdir(root) == [MARKER_FILE]
    record = world.record("web")
    assert record is not None
    assert record.purge
