"""What the contract does not say, on a real Ceph cluster: who holds an image, how it is shut out, what is
left behind, and what is said when Ceph refuses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import rbd

from reconciler.adapters.rbd import Clusters, RbdBackend
from reconciler.ports.disks import DiskBackend
from reconciler.resources.errors import ImageInUse, PoolUnavailable
from reconciler.resources.images import Blank, CloneOf, CopyOf, Holder, ImageInfo, PoolCapacity
from reconciler.resources.infrastructure import RbdPool

pytestmark = pytest.mark.ceph

CHILD = str(Path(__file__).with_name("rbd_child.py"))
MIB = 1 << 20
SECONDS = 20.0


async def make(backend: DiskBackend, image: str, content: Any = None, operation: str = "make") -> ImageInfo:
    wanted = content or Blank(size=8 * MIB)
    return await backend.create(image, wanted, format=None, operation=operation, progress=lambda done: None)


@contextmanager
def qemu(pool: RbdPool, image: str) -> Iterator[subprocess.Popen[str]]:
    """A client of its own that has the image open and locked."""
    where = [pool.conf, pool.qemu_user, pool.pool, pool.namespace, image]
    with subprocess.Popen(
        [sys.executable, CHILD, *where], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline()
        yield child
        child.communicate()


async def holder(backend: RbdBackend, image: str) -> Holder:
    (found,) = await backend.holders(image, timeout=SECONDS)
    return found


async def test_a_holder_is_told_with_its_address_lock_and_tag(backend: RbdBackend, pool: RbdPool) -> None:
    made = await make(backend, "a")
    with qemu(pool, "a"):
        found = await holder(backend, "a")
        assert await backend.holders_of(made.identity, timeout=SECONDS) == (found,)
    assert found.client.startswith("127.0.0.1:0/")
    assert found.entity.startswith("client.")
    assert found.lock.startswith("auto ")
    assert (found.tag, found.watching, found.shared, found.fenced) == ("internal", True, False, False)
    assert found.client in found.description


async def test_a_persons_lock_is_a_holder_too(backend: RbdBackend, context: Any) -> None:
    await make(backend, "a")
    with rbd.Image(context, "a") as opened:
        opened.lock_exclusive("by hand")
    found = await holder(backend, "a")
    assert (found.lock, found.watching) == ("by hand", False)
    with pytest.raises(ImageInUse, match="by hand"):
        await backend.grow("a", 16 * MIB, timeout=SECONDS)
    with pytest.raises(ImageInUse, match="by hand"):
        await backend.trash("a", timeout=SECONDS)


async def test_a_killed_client_is_shut_out_for_years_and_its_lock_broken(
    backend: RbdBackend, pool: RbdPool, ceph: Any
) -> None:
    made = await make(backend, "a")
    with qemu(pool, "a") as child:
        found = await holder(backend, "a")
        child.kill()
        child.wait()
        assert await backend.holders("a", timeout=SECONDS) == (found,)
        await backend.cut_off((found,), made.identity, timeout=SECONDS)
    assert await backend.holders("a", timeout=SECONDS) == ()
    told = ceph.command("osd", "blocklist", "ls", "--format", "json").strip()
    listed = json.JSONDecoder().raw_decode(told)[0]
    (until,) = [entry["until"] for entry in listed if entry["addr"] == found.client]
    assert int(until[:4]) >= 2034
    await backend.cut_off((found,), made.identity, timeout=SECONDS)


async def test_a_client_that_lives_cannot_write_once_it_is_shut_out(
    backend: RbdBackend, pool: RbdPool, context: Any
) -> None:
    made = await make(backend, "a")
    with qemu(pool, "a"):
        await backend.cut_off((await holder(backend, "a"),), made.identity, timeout=SECONDS)
        assert await backend.holders("a", timeout=SECONDS) == ()
        with rbd.Image(context, "a") as opened:
            opened.write(b"new", 0)


async def test_an_entry_that_ends_soon_does_not_count(backend: RbdBackend, pool: RbdPool, ceph: Any) -> None:
    made = await make(backend, "a")
    with qemu(pool, "a") as child:
        found = await holder(backend, "a")
        child.kill()
        child.wait()
    ceph.command("osd", "blocklist", "add", found.client, "3600")
    try:
        with pytest.raises(PoolUnavailable, match=f"{found.client} is blocklisted, but only until"):
            await backend.cut_off((found,), made.identity, timeout=SECONDS)
    finally:
        ceph.command("osd", "blocklist", "rm", found.client)


async def test_what_is_put_aside_can_be_brought_back(backend: RbdBackend, context: Any) -> None:
    made = await make(backend, "a")
    await backend.trash("a", timeout=SECONDS)
    (kept,) = rbd.RBD().trash_list(context)
    assert kept["name"] == "a"
    rbd.RBD().trash_restore(context, kept["id"], "a")
    assert await backend.inspect("a", timeout=SECONDS) == made


async def test_clones_share_a_snapshot_until_the_template_changes(backend: RbdBackend, context: Any) -> None:
    template = await make(backend, "template")
    for name in ("a", "b"):
        await make(backend, name, CloneOf(path=template.path))
    with rbd.Image(context, "template") as opened:
        assert [snap["name"] for snap in opened.list_snaps()] == ["vcl-base-1"]
        assert opened.is_protected_snap("vcl-base-1")
        opened.write(b"newer", 0)
    await make(backend, "c", CloneOf(path=template.path))
    with rbd.Image(context, "template") as opened:
        assert [snap["name"] for snap in opened.list_snaps()] == ["vcl-base-1", "vcl-base-2"]
    with rbd.Image(context, "c", read_only=True) as clone:
        assert clone.read(0, 5) == b"newer"
    with rbd.Image(context, "a", read_only=True) as clone:
        assert clone.read(0, 5) == bytes(5)


def touched(opened: Any) -> list[int]:
    """The offsets of the objects that an image takes up."""
    found: list[int] = []
    opened.diff_iterate(0, opened.size(), None, lambda at, *_: found.append(at), whole_object=True)
    return found


async def test_a_copy_has_the_data_and_only_that(backend: RbdBackend, context: Any, tmp_path: Path) -> None:
    raw = tmp_path / "origin.raw"
    with raw.open("wb") as file:
        file.truncate(64 * MIB)
        file.seek(9 * MIB + 512)
        file.write(b"data" * 1000)
    packed = tmp_path / "origin.qcow2"
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", raw, packed], check=True)
    first = await make(backend, "a", CopyOf(path=str(packed)))
    await make(backend, "b", CopyOf(path=first.path))
    for name in ("a", "b"):
        with rbd.Image(context, name, read_only=True) as opened:
            assert opened.read(9 * MIB, 8192) == raw.read_bytes()[9 * MIB : 9 * MIB + 8192]
            assert touched(opened) == [8 * MIB]


async def test_what_an_operation_left_behind_is_removed_when_it_begins_again(
    backend: RbdBackend, context: Any, tmp_path: Path
) -> None:
    raw = tmp_path / "origin.raw"
    raw.write_bytes(b"data" * (16 * MIB // 4))
    seen: list[float] = []
    under_way = asyncio.create_task(
        backend.create("a", CopyOf(path=str(raw)), format=None, operation="op", progress=seen.append)
    )
    while not seen:
        await asyncio.sleep(0.005)
    (left,) = rbd.RBD().list(context)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert rbd.RBD().list(context) == []
    rbd.RBD().create(context, left, MIB)  # as a killed daemon leaves it
    await make(backend, "a", operation="op")
    assert rbd.RBD().list(context) == ["a"]


async def test_missing_rights_are_told_as_such(
    ceph: Any, clusters: Clusters, pool: RbdPool, tmp_path: Path
) -> None:
    keyring = f"{ceph.dir}/ceph.client.poor.keyring"
    ceph.command("auth", "get-or-create", "client.poor", "mon", "allow r", "-o", keyring)
    poor = RbdPool(pool=pool.pool, namespace=pool.namespace, conf=pool.conf, user="poor")
    backend = RbdBackend(poor, clusters=clusters, cluster_uid="c1", state=tmp_path)
    try:
        with pytest.raises(PoolUnavailable) as refused:
            await backend.inspect("a", timeout=SECONDS)
        assert "client.poor" in refused.value.message
        assert "caps are missing" in refused.value.message
        assert "osd 'profile rbd pool=vms'" in refused.value.cure
    finally:
        backend.close()
        ceph.command("auth", "rm", "client.poor")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("pool", "nowhere", "there is no Ceph pool 'nowhere'"),
        ("namespace", "nobody", "there is no RBD namespace 'nobody'"),
        ("user", "stranger", "client.stranger"),
        ("conf", "/nowhere/ceph.conf", "/nowhere/ceph.conf"),
    ],
)
async def test_a_wrong_setting_is_never_an_empty_pool(
    clusters: Clusters, pool: RbdPool, tmp_path: Path, field: str, value: str, said: str
) -> None:
    fields = {"pool": pool.pool, "namespace": pool.namespace, "conf": pool.conf, field: value}
    backend = RbdBackend(RbdPool(**fields), clusters=clusters, cluster_uid="c1", state=tmp_path)
    try:
        with pytest.raises(PoolUnavailable, match=said):
            await backend.inspect("a", timeout=SECONDS)
    finally:
        backend.close()


async def test_guests_get_the_key_of_their_own_user_and_a_configuration_without_it(
    backend: RbdBackend, ceph: Any
) -> None:
    key = await backend.guest_key(timeout=SECONDS)
    assert key is not None
    assert key.value == ceph.command("auth", "get-key", "client.qemu").strip()
    assert key.value not in repr(key)
    access = (await make(backend, "a")).access
    assert access is not None
    assert (access.user, access.secret) == ("qemu", key.secret)
    conf = Path(access.config).read_text()
    assert key.value not in conf
    assert "[client.qemu]" in conf
    assert "rbd blocklist expire seconds = 315360000" in conf
    (monitor,) = access.monitors
    assert f"v1:{monitor}" in Path(ceph.conf).read_text()


async def test_pools_of_one_user_share_a_connection_that_outlives_the_first(
    backend: RbdBackend, clusters: Clusters, pool: RbdPool, tmp_path: Path
) -> None:
    other = RbdBackend(pool, clusters=clusters, cluster_uid="c1", state=tmp_path)
    await make(other, "a")
    other.close()
    other.close()
    assert await backend.inspect("a", timeout=SECONDS) is not None
    with pytest.raises(PoolUnavailable, match="closed"):
        await other.inspect("a", timeout=SECONDS)


async def test_a_blocklisted_connection_is_told_and_made_anew(
    backend: RbdBackend, clusters: Clusters, pool: RbdPool, ceph: Any
) -> None:
    await make(backend, "a")
    cluster = clusters.get(pool.conf, pool.user)
    with cluster.handle() as handle:
        address = handle.get_addrs()
    ceph.command("osd", "blocklist", "add", address, "60")
    with cluster.handle() as handle:
        handle.wait_for_latest_osdmap()
    with pytest.raises(PoolUnavailable, match="blocklisted"):
        await backend.inspect("a", timeout=SECONDS)
    assert await backend.inspect("a", timeout=SECONDS) is not None
    clusters.give_back(cluster)


async def test_a_pool_whose_osds_are_nearly_full_says_so(ceph: Any, backend: RbdBackend) -> None:
    async def until(full: str) -> PoolCapacity:
        async with asyncio.timeout(90.0):
            while (found := await backend.capacity(timeout=60.0)).full != full:
                await asyncio.sleep(0.2)
        return found

    await until("")
    ceph.command("osd", "set-nearfull-ratio", "0.0000001")
    try:
        assert not (await until("nearfull")).refuses
    finally:
        ceph.command("osd", "set-nearfull-ratio", "0.85")
    await until("")
