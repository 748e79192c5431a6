"""A blocklisted client: every call says so, nothing of it lands, and it goes on once that is over."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from reconciler.adapters.rados import Place, RadosStore
from reconciler.resources.errors import StoreError, StoreUnavailable
from reconciler.resources.transactions import Changes, Committed, NotApplied
from reconciler.testing.store_harness import commit, new_id, read, txn

pytestmark = pytest.mark.ceph

HANG = 60.0


async def until_refused(store: RadosStore) -> str:
    """The first error; before that the store may still answer, until its OSD has heard of the blocklist."""
    async with asyncio.timeout(HANG):
        while True:
            try:
                await store.list("")
            except StoreUnavailable as error:
                return str(error)
            await asyncio.sleep(0.01)


async def until_served(store: RadosStore) -> None:
    async with asyncio.timeout(HANG):
        while True:
            try:
                await store.list("")
            except StoreUnavailable:
                await asyncio.sleep(0.02)
                continue
            return


async def write_for_ever(store: RadosStore, sent: list[str]) -> None:
    """One after the other, each with its id as value."""
    while True:
        sent.append(new_id())
        await store.txn(txn({"a": sent[-1].encode()}, id=sent[-1]))


async def test_a_fenced_client_is_told_so_and_writes_nothing_while_others_go_on(
    place: Place, ceph: Any
) -> None:
    fenced = await RadosStore.open(place, op_timeout=1)
    other = await RadosStore.open(place, op_timeout=1)
    revision = await commit(fenced, txn({"a": b"1"}))
    watch = asyncio.create_task(fenced.watch(revision, timeout=HANG))
    await asyncio.sleep(0.1)
    ceph.command("osd", "blocklist", "add", fenced.address, "3600")
    try:
        said = await until_refused(fenced)
        assert "this host is blocklisted: the cluster has fenced it" in said
        assert "blocklist ls" in said
        with pytest.raises(StoreUnavailable, match="blocklisted"):
            await fenced.txn(txn({"b": b"1"}))
        with pytest.raises(StoreUnavailable, match="blocklisted"):
            await fenced.watch(revision, timeout=HANG)
        async with asyncio.timeout(HANG):
            await asyncio.wait([watch])
        assert isinstance(watch.exception(), StoreUnavailable)
        await commit(other, txn({"c": b"1"}))
        assert [item.key for item in (await other.list("")).items] == ["a", "c"]
    finally:
        ceph.command("osd", "blocklist", "rm", fenced.address)
    await until_served(fenced)
    since = await commit(fenced, txn({"b": b"2"}))
    watch = asyncio.create_task(fenced.watch(since, timeout=HANG))
    await asyncio.sleep(0.1)
    await commit(other, txn({"b": b"3"}))
    async with asyncio.timeout(HANG):
        result = await watch
    assert isinstance(result, Changes)
    assert [event.value for event in result.events] == [b"3"]
    await fenced.close()
    await other.close()


async def test_the_writes_around_a_fence_are_settled_by_another(place: Place, ceph: Any) -> None:
    fenced = await RadosStore.open(place, op_timeout=1)
    other = await RadosStore.open(place, op_timeout=1)
    sent: list[str] = []
    writing = asyncio.create_task(write_for_ever(fenced, sent))
    try:
        await asyncio.to_thread(ceph.command, "osd", "blocklist", "add", fenced.address, "3600")
        async with asyncio.timeout(HANG):
            with pytest.raises(StoreError, match="blocklisted") as caught:
                await writing
        resolution = await other.resolve(sent[-1])
        assert isinstance(resolution, Committed | NotApplied)
        if isinstance(caught.value, StoreUnavailable):
            assert resolution == NotApplied()
        item = await read(other, "a")
        assert item is not None
        assert (item.value == sent[-1].encode()) == isinstance(resolution, Committed)
        assert isinstance(await other.resolve(sent[-2]), Committed)
    finally:
        await asyncio.to_thread(ceph.command, "osd", "blocklist", "rm", fenced.address)
        await fenced.close()
        await other.close()
