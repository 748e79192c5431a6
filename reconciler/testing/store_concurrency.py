"""The store's contract under concurrent writers: no update is lost, and every history has an order."""

from __future__ import annotations

import asyncio
from pathlib import Path

from reconciler.ports.store import Store
from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import Committed, Conflict, NotApplied, Txn
from reconciler.testing.linearizability import Operation, explain
from reconciler.testing.store_harness import Recorder, StoreHarness, commit, read, txn

WRITERS = 8
ROUNDS = 12


class ConcurrentStoreContract(StoreHarness):
    """Part of StoreContract; see there."""

    async def test_concurrent_increments_by_compare_and_set_lose_none(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            await asyncio.gather(
                *(_increment(store, "counter", ROUNDS) for store in [one, two] * (WRITERS // 2))
            )
            item = await read(one, "counter")
            assert item is not None
            assert int(item.value) == WRITERS * ROUNDS

    async def test_every_snapshot_shows_whole_transactions(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            await commit(one, txn({"left": b"100", "right": b"0"}))
            moving = asyncio.gather(*(_move(store, "left", "right", ROUNDS) for store in (one, two)))
            while not moving.done():
                values = {item.key: int(item.value) for item in (await two.list("")).items}
                assert sum(values.values()) == 100
            await moving
            item = await read(one, "right")
            assert item is not None
            assert int(item.value) == 2 * ROUNDS

    async def test_a_recorded_concurrent_history_is_linearizable(self, tmp_path: Path) -> None:
        history: list[Operation] = []
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            await asyncio.gather(
                *(
                    _mixed(Recorder(store, f"client{number}", history), number)
                    for number, store in enumerate([one, two] * 3)
                )
            )
        assert len(history) > 50
        assert explain(history) == ""

    async def test_of_concurrent_creators_of_one_key_exactly_one_wins(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as one, self.opened(tmp_path) as two:
            results = await asyncio.gather(
                *(
                    store.txn(txn({"claim": str(number).encode()}, compares={"claim": 0}), timeout=10)
                    for number, store in enumerate([one, two] * 8)
                )
            )
            winners = [number for number, result in enumerate(results) if isinstance(result, Committed)]
            assert len(winners) == 1
            item = await read(one, "claim")
            assert item is not None
            assert item.value == str(winners[0]).encode()
            assert results.count(Conflict(keys=("claim",))) == len(results) - 1

    async def test_a_transaction_out_of_time_is_undone_or_resolvable(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for number in range(60):
                key, transaction = f"key{number}", txn({f"key{number}": b"x"})
                happened = await _settle(store, transaction, timeout=number * 0.00005)
                assert (await read(store, key) is not None) == happened

    async def test_a_cancelled_transaction_is_resolvable(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for turns in range(12):
                transaction = txn({f"key{turns}": b"x"})
                task = asyncio.create_task(store.txn(transaction))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                resolution = await store.resolve(transaction.id)
                assert isinstance(resolution, Committed | NotApplied)
                assert (await read(store, f"key{turns}") is not None) == isinstance(resolution, Committed)


async def _settle(store: Store, transaction: Txn, *, timeout: float) -> bool:
    """True when it happened, False when it did not and will not."""
    try:
        result = await store.txn(transaction, timeout=timeout)
    except StoreUnavailable:
        return False
    except OutcomeUnknown as error:
        resolution = await store.resolve(error.txn_id)
        assert isinstance(resolution, Committed | NotApplied)
        return isinstance(resolution, Committed)
    return isinstance(result, Committed)


async def _increment(store: Store, key: str, rounds: int) -> None:
    done = 0
    while done < rounds:
        item = await read(store, key)
        value, revision = (int(item.value), item.revision) if item else (0, 0)
        result = await store.txn(txn({key: str(value + 1).encode()}, compares={key: revision}), timeout=10)
        done += isinstance(result, Committed)


async def _move(store: Store, source: str, target: str, rounds: int) -> None:
    done = 0
    while done < rounds:
        items = await store.get([source, target])
        moved = {source: int(items[source].value) - 1, target: int(items[target].value) + 1}
        result = await store.txn(
            txn(
                {key: str(value).encode() for key, value in moved.items()},
                compares={key: items[key].revision for key in moved},
            ),
            timeout=10,
        )
        done += isinstance(result, Committed)


async def _mixed(client: Recorder, number: int) -> None:
    """Reads, blind writes, compare-and-set over two keys and deletions, different for each client."""
    for turn in range(ROUNDS):
        listing = await client.list("")
        revisions = {item.key: item.revision for item in listing.items}
        mine, other = f"key{(number + turn) % 3}", f"key{(number + turn + 1) % 3}"
        value = f"{number}.{turn}".encode()
        match turn % 4:
            case 0:
                await client.txn(txn({mine: value}))
            case 1 | 2:
                compares = {key: revisions.get(key, 0) for key in (mine, other)}
                await client.txn(txn({mine: value, other: value}, compares=compares))
            case _:
                await client.txn(txn(deletes=(mine,), compares={mine: revisions.get(mine, 0)}))
