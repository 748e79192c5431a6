"""How fast is SqliteStore? `python benchmarks/store.py [DIRECTORY]`; the disk of that directory decides.

Prints transactions per second (each on disk when acknowledged) of one writer alone and of 64 at once, the
time of a full list, and what an idle store with a watcher costs.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
import uuid
from pathlib import Path

from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.resources.transactions import Compare, Put, Txn

VALUE = bytes(1000)
ALONE = 500
TOGETHER = 64
EACH = 100
IDLE_SECONDS = 10.0


async def chain(store: SqliteStore, key: str, count: int) -> None:
    """`count` compare-and-set writes of one key, one after the other."""
    item = (await store.get([key])).get(key)
    revision = item.revision if item else 0
    for _ in range(count):
        txn = Txn(
            id=str(uuid.uuid4()),
            compares=(Compare(key=key, revision=revision),),
            puts=(Put(key=key, value=VALUE),),
        )
        result = await store.txn(txn, timeout=30)
        revision = getattr(result, "revision", revision)


async def measure(directory: Path) -> None:
    store = await SqliteStore.open(directory / "store.db")
    started = time.perf_counter()
    await chain(store, "alone", ALONE)
    print(f"one writer:   {ALONE / (time.perf_counter() - started):8.0f} transactions/s")

    started = time.perf_counter()
    await asyncio.gather(*(chain(store, f"status/node/VirtualMachine/vm{n}", EACH) for n in range(TOGETHER)))
    print(f"{TOGETHER} writers:   {TOGETHER * EACH / (time.perf_counter() - started):8.0f} transactions/s")

    await asyncio.gather(*(chain(store, f"spec/VirtualMachine/vm{n}", 1) for n in range(5000)))
    started = time.perf_counter()
    listing = await store.list("")
    print(f"list of {len(listing.items)}: {(time.perf_counter() - started) * 1000:8.1f} ms")

    used = time.process_time()
    await store.watch(listing.revision, timeout=IDLE_SECONDS)
    print(f"idle watch:   {(time.process_time() - used) / IDLE_SECONDS * 100:8.2f} % of one core")
    await store.close()


def main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="vcl-benchmark-", dir=parent) as directory:
        asyncio.run(measure(Path(directory)))


if __name__ == "__main__":
    main()
