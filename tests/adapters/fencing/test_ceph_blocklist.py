"""Fencing out of a real Ceph cluster: what a fenced client wrote last is the last that it ever writes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import rados
import rbd

from reconciler.adapters.fencing.ceph_blocklist import CephBlocklistFencer
from reconciler.adapters.fencing.entries import ENOUGH, Entries, parse
from reconciler.adapters.fencing.mon_commands import MonCommands
from reconciler.ports.fencer import Fencer
from reconciler.resources.errors import ConflictError, FenceFailed
from reconciler.resources.fencing import Blocklisted, FenceOrder
from reconciler.testing.fencer_contract import CountingGuard, FencerContract

pytestmark = pytest.mark.ceph

NOWHERE = "10.99.0.3"
"""The fenced node's own address; its clients of this test have the loopback one, like everybody here."""
T = 30.0


def order(*clients: str, images: tuple[str, ...] = (), address: str = NOWHERE) -> FenceOrder:
    return FenceOrder(
        id="id",
        node="r3",
        incident="r3-5",
        boot_id="boot-1",
        addresses=(address,),
        clients=clients,
        images=images,
    )


class Zombie:
    """A client of the fenced node with an image open, which it has locked by writing to it."""

    def __init__(self, conf: str, name: str) -> None:
        self.cluster = rados.Rados(conffile=conf, name="client.qemu")
        for limit in ("rados_osd_op_timeout", "rados_mon_op_timeout", "client_mount_timeout"):
            self.cluster.conf_set(limit, "10")
        self.cluster.connect()
        self.ioctx = self.cluster.open_ioctx("vms")
        with contextlib.suppress(rbd.ImageExists):
            rbd.RBD().create(self.ioctx, name, 1 << 22)
        self.image = rbd.Image(self.ioctx, name)
        self.write(b"first")
        self.address: str = self.cluster.get_addrs()
        self.identity = f"{self.cluster.get_fsid()}/vms//{self.image.id()}"

    def write(self, data: bytes) -> None:
        self.image.write(data.ljust(512, b"."), 0)
        self.image.flush()

    def close(self) -> None:
        with contextlib.suppress(rbd.Error):
            self.image.close()
        self.ioctx.close()
        self.cluster.shutdown()


@pytest.fixture
def zombie(private_ceph: Any, request: pytest.FixtureRequest) -> Iterator[Zombie]:
    made = Zombie(str(private_ceph.conf), f"z-{abs(hash(request.node.name)) % 10**8}")
    yield made
    made.close()


@pytest.fixture
async def fencer(private_ceph: Any) -> AsyncIterator[CephBlocklistFencer]:
    made = await CephBlocklistFencer.open(str(private_ceph.conf), "vcl")
    yield made
    await made.close()
    wipe(private_ceph)


def wipe(ceph: Any) -> None:
    """No entries are left for the next test."""
    for line in ceph.command("osd", "blocklist", "ls").splitlines():
        with contextlib.suppress(Exception):
            ceph.command("osd", "blocklist", "rm", line.split()[0])


async def entries(ceph: Any) -> Entries:
    commands = MonCommands(str(ceph.conf), "vcl")
    try:
        return parse(await commands.ask(time.monotonic() + T, "osd blocklist ls"), time.time())
    finally:
        commands.close()


def content(ceph: Any, image_id: str) -> bytes:
    with (
        rados.Rados(conffile=str(ceph.conf), name="client.qemu") as cluster,
        cluster.open_ioctx("vms") as ioctx,
        rbd.Image(ioctx, image_id=image_id, read_only=True) as image,
    ):
        found: bytes = image.read(0, 512)
        return found.rstrip(b".")


async def fence(fencer: Fencer, what: FenceOrder) -> Blocklisted:
    proof = await fencer.fence(what, CountingGuard(), timeout=T)
    assert isinstance(proof, Blocklisted)
    await fencer.settle(what, proof, timeout=T)
    return proof


class TestCephBlocklist(FencerContract):
    @pytest.fixture(autouse=True)
    def _ceph(self, private_ceph: Any) -> Iterator[None]:
        self.conf = str(private_ceph.conf)
        self.ceph = private_ceph
        yield
        private_ceph.thaw("mon.a")
        wipe(private_ceph)

    def ready(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[tuple[Fencer, FenceOrder]]:
        fencer = await CephBlocklistFencer.open(self.conf, "vcl")
        try:
            yield fencer, order("10.99.0.3:0/4711")
        finally:
            await fencer.close()

    @asynccontextmanager
    async def _frozen(self) -> AsyncIterator[tuple[Fencer, FenceOrder]]:
        async with self._open() as opened:
            self.ceph.freeze("mon.a")
            try:
                yield opened
            finally:
                self.ceph.thaw("mon.a")

    def broken(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        return self._frozen()


async def test_a_fenced_clients_writes_fail_and_stay_failing_and_its_lock_is_broken(
    private_ceph: Any, fencer: CephBlocklistFencer, zombie: Zombie
) -> None:
    what = order(zombie.address, images=(zombie.identity,))
    proof = await fence(fencer, what)
    assert {f"{NOWHERE}:0/0", zombie.address} <= set(proof.entries)
    for _ in range(2):
        with pytest.raises(rbd.Error) as refused:
            await asyncio.to_thread(zombie.write, b"zombie")
        assert abs(refused.value.errno) in (errno.ESHUTDOWN, errno.EROFS)
    broken = await fencer.break_locks(what, CountingGuard(), timeout=T)
    assert all(zombie.address in words for words in broken)
    assert await fencer.break_locks(what, CountingGuard(), timeout=T) == ()
    heir = Zombie(str(private_ceph.conf), zombie.image.get_name())
    try:
        heir.write(b"heir")
        with pytest.raises(rbd.Error):
            await asyncio.to_thread(zombie.write, b"zombie")
        assert content(private_ceph, zombie.image.id()) == b"heir"
    finally:
        heir.close()


async def test_an_entry_that_ends_soon_is_replaced_by_one_that_lasts_because_adding_does_not_extend_it(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    client = f"{NOWHERE}:0/77"
    private_ceph.command("osd", "blocklist", "add", client, "60")
    private_ceph.command("osd", "blocklist", "add", client, "999999999")
    found = await entries(private_ceph)
    assert found.until[client] - found.now < 120, "the trap is not there any more: look at rule 11"
    guard = CountingGuard()
    await fencer.fence(order(client), guard, timeout=T)
    found = await entries(private_ceph)
    assert found.until[client] - found.now > ENOUGH
    assert found.lasts(f"{NOWHERE}:0/0")
    assert guard.asked >= 4, "each round of commands is guarded"


async def test_a_whole_hosts_entry_that_ends_soon_is_replaced_under_cover_of_its_clients(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    host = f"{NOWHERE}:0/0"
    private_ceph.command("osd", "blocklist", "add", host, "60")
    await fencer.fence(order(f"{NOWHERE}:0/77"), CountingGuard(), timeout=T)
    found = await entries(private_ceph)
    assert found.lasts(host)
    assert found.lasts(f"{NOWHERE}:0/77")


async def test_a_short_entry_that_nothing_would_cover_meanwhile_is_not_touched(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    stranger = "10.98.0.1:0/5"  # at an address that the order does not close
    private_ceph.command("osd", "blocklist", "add", stranger, "60")
    with pytest.raises(FenceFailed, match="cannot be extended"):
        await fencer.fence(order(stranger), CountingGuard(), timeout=T)
    assert stranger in (await entries(private_ceph)).until


async def test_a_client_that_nobody_recorded_keeps_the_fence_from_settling(
    private_ceph: Any, fencer: CephBlocklistFencer, zombie: Zombie
) -> None:
    what = order(images=(zombie.identity,))
    proof = await fencer.fence(what, CountingGuard(), timeout=T)
    with pytest.raises(FenceFailed, match="no known client of r3") as refused:
        await fencer.settle(what, proof, timeout=T)
    assert zombie.address in refused.value.message
    with pytest.raises(FenceFailed, match="no known client of r3"):
        await fencer.break_locks(what, CountingGuard(), timeout=T)


async def test_a_proof_whose_entries_were_removed_by_hand_does_not_settle(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    what = order(f"{NOWHERE}:0/77")
    proof = await fence(fencer, what)
    private_ceph.command("osd", "blocklist", "rm", f"{NOWHERE}:0/77")
    with pytest.raises(FenceFailed, match="not in Ceph's blocklist"):
        await fencer.settle(what, proof, timeout=T)


async def test_the_return_lifts_the_host_and_keeps_the_clients_until_the_next_boot(
    private_ceph: Any, fencer: CephBlocklistFencer, zombie: Zombie
) -> None:
    what = order(zombie.address)
    await fence(fencer, what)
    await fencer.lift(what, CountingGuard(), clients=False, timeout=T)
    found = await entries(private_ceph)
    assert f"{NOWHERE}:0/0" not in found.until
    assert found.lasts(zombie.address)
    with pytest.raises(rbd.Error):
        await asyncio.to_thread(zombie.write, b"zombie")
    await fencer.lift(what, CountingGuard(), clients=True, timeout=T)
    assert zombie.address not in (await entries(private_ceph)).until


async def test_the_host_is_not_lifted_before_its_clients_entries_are_sure(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    client = f"{NOWHERE}:0/77"
    await fence(fencer, order(client))
    private_ceph.command("osd", "blocklist", "rm", client)
    private_ceph.command("osd", "blocklist", "add", client, "60")
    await fencer.lift(order(client), CountingGuard(), clients=False, timeout=T)
    found = await entries(private_ceph)
    assert found.lasts(client)
    assert f"{NOWHERE}:0/0" not in found.until


async def test_the_osds_and_monitors_on_a_fenced_address_keep_serving(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    """Everybody of this cluster is at 127.0.0.1: its daemons go on, and its clients do not."""
    what = order(address="127.0.0.1")
    with rados.Rados(conffile=str(private_ceph.conf), name="client.qemu") as client:
        client.conf_set("rados_osd_op_timeout", "5")
        with client.open_ioctx("vms") as ioctx:
            ioctx.write_full("before", b"1")
            try:
                await fencer.fence(what, CountingGuard(), timeout=T)
                assert await until(lambda: _refused(ioctx))
                assert private_ceph.up_osds() == (0, 1, 2)
            finally:
                await fencer.lift(what, CountingGuard(), clients=True, timeout=T)
    assert await until(lambda: _served(str(private_ceph.conf)))


def _refused(ioctx: Any) -> bool:
    try:
        ioctx.write_full("after", b"1")
    except rados.Error as error:
        return abs(error.errno) == errno.ESHUTDOWN
    return False


def _served(conf: str) -> bool:
    with rados.Rados(conffile=conf, name="client.qemu") as client, client.open_ioctx("vms") as ioctx:
        ioctx.write_full("after", b"1")
        return True


async def until(holds: Callable[[], bool]) -> bool:
    async with asyncio.timeout(T):
        while not await asyncio.to_thread(holds):
            await asyncio.sleep(0.05)
    return True


async def test_missing_rights_are_named_with_their_cure(private_ceph: Any) -> None:
    _make_weak(private_ceph)
    weak = await CephBlocklistFencer.open(str(private_ceph.conf), "weak")
    try:
        with pytest.raises(FenceFailed) as refused:
            await weak.fence(order("10.99.0.3:0/1"), CountingGuard(), timeout=T)
        assert "client.weak may not run `osd blocklist" in str(refused.value)
        assert "ceph auth caps client.weak" in str(refused.value)
    finally:
        await weak.close()


def _make_weak(ceph: Any) -> None:
    keyring = str(ceph.dir / "ceph.client.weak.keyring")
    caps = ["mon", "allow r", "osd", "allow r pool=vms"]
    ceph.command("auth", "get-or-create", "client.weak", *caps, "-o", keyring)


async def test_removing_needs_more_than_the_profile_and_that_is_said(private_ceph: Any) -> None:
    """QEMU's own user may add entries, and may not remove them (rule 16)."""
    poor = await CephBlocklistFencer.open(str(private_ceph.conf), "qemu")
    what = order("10.99.0.3:0/1")
    try:
        await poor.fence(what, CountingGuard(), timeout=T)
        with pytest.raises(FenceFailed, match="qemu may not run"):
            await poor.lift(what, CountingGuard(), clients=True, timeout=T)
    finally:
        await poor.close()
        wipe(private_ceph)


async def test_a_command_that_was_not_answered_is_sent_again(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    private_ceph.freeze("mon.a")
    attempt = asyncio.create_task(fencer.fence(order("10.99.0.3:0/9"), CountingGuard(), timeout=60.0))
    await asyncio.sleep(7.0)
    assert not attempt.done()
    private_ceph.thaw("mon.a")
    assert isinstance(await attempt, Blocklisted)


async def test_a_master_that_lost_its_epoch_between_two_commands_sends_no_more(
    private_ceph: Any, fencer: CephBlocklistFencer
) -> None:
    client = f"{NOWHERE}:0/77"
    private_ceph.command("osd", "blocklist", "add", client, "60")
    asked = 0

    async def guard() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise ConflictError("another master has taken over")

    refusing: Callable[[], Awaitable[None]] = guard
    with pytest.raises(ConflictError):
        await fencer.fence(order(client), refusing, timeout=T)
    assert client in (await entries(private_ceph)).until, "the removal was not sent"
