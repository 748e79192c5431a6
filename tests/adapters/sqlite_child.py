"""Programs that the SqliteStore tests run in processes of their own: `python sqlite_child.py ROLE PATH ARG`.

They speak in lines on standard output; a line counts as said once it is in the pipe.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from reconciler.adapters.sqlite_store import SqliteStore
from reconciler.resources.errors import StoreError
from reconciler.resources.transactions import Committed
from reconciler.testing.store_harness import txn

WRITERS = 4
BALLAST = 400_000
PATIENCE = 30.0


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def pairs(path: Path, run: str) -> None:
    """Write pairs of keys with equal values for ever; say the id of each transaction once acknowledged."""
    store = await SqliteStore.open(path)

    async def writer(number: int) -> None:
        for turn in range(1_000_000):
            name, value = f"{number}/{turn % 20}", f"{run}.{turn}".encode()
            pair = txn({f"left/{name}": value, f"right/{name}": value}, id=f"{run}-{number}-{turn}")
            assert isinstance(await store.txn(pair, timeout=PATIENCE), Committed)
            say(pair.id)

    await asyncio.gather(*(writer(number) for number in range(WRITERS)))


async def increment(path: Path, rounds: str) -> None:
    """Add 1 to `counter` by compare-and-set `rounds` times in each of a few tasks."""
    store = await SqliteStore.open(path)

    async def task() -> None:
        done = 0
        while done < int(rounds):
            item = (await store.get(["counter"], timeout=PATIENCE)).get("counter")
            value, revision = (int(item.value), item.revision) if item else (0, 0)
            change = txn({"counter": str(value + 1).encode()}, compares={"counter": revision})
            done += isinstance(await store.txn(change, timeout=PATIENCE), Committed)

    await asyncio.gather(*(task() for _ in range(WRITERS)))
    await store.close()
    say("done")


async def fill(path: Path, limit: str) -> None:
    """Write until the disk is full, then do as standard input says.

    `limit`: bytes that a file of this process may grow to; 0 leaves it to the file system.
    """
    store = await SqliteStore.open(path)
    ballast = path.with_name("ballast")
    ballast.write_bytes(bytes(BALLAST))
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    acknowledged = 0
    try:
        while True:
            value = bytes(20_000)
            await store.txn(txn({f"left/{acknowledged}": value, f"right/{acknowledged}": value}), timeout=30)
            acknowledged += 1
    except StoreError as error:
        say("error", type(error).__name__, error)
    say("acknowledged", acknowledged)
    for line in sys.stdin:
        match line.strip():
            case "list":
                say(
                    "left",
                    len((await store.list("left/")).items),
                    "right",
                    len((await store.list("right/")).items),
                )
            case "free":
                ballast.unlink()
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            case _:
                say(type(await store.txn(txn({"again": b"x"}), timeout=PATIENCE)).__name__)
    await store.close()
    say("closed")


async def look(path: Path, _: str) -> None:
    """Open the store and say whether that worked."""
    try:
        store = await SqliteStore.open(path)
    except StoreError as error:
        say("error", type(error).__name__, error)
        return
    await store.close()
    say("opened")


ROLES = {"look": look, "pairs": pairs, "increment": increment, "fill": fill}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](Path(sys.argv[2]), sys.argv[3]))
