"""Programs that the RadosStore tests run in processes of their own: `python rados_child.py ROLE PLACE ARG`.

PLACE is `CONF USER POOL NAMESPACE OBJECT` in one word, with commas. They speak in lines on standard output; a
line counts as said once it is in the pipe.
"""

from __future__ import annotations

import asyncio
import base64
import os
import pickle
import random
import sys
import time

from reconciler.adapters.rados import Place, RadosStore
from reconciler.resources.errors import OutcomeUnknown, StoreUnavailable
from reconciler.resources.transactions import Committed, NotApplied, Txn, TxnResult
from reconciler.testing.linearizability import ListCall, Operation, TxnCall
from reconciler.testing.store_harness import txn

WRITERS = 4
PATIENCE = 30.0
DEADLINE = 0.5
TASKS = 2
PAUSE = 0.08


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def pairs(place: Place, run: str) -> None:
    """Write pairs of keys with equal values for ever; say the id of each transaction once acknowledged."""
    store = await RadosStore.open(place)

    async def writer(number: int) -> None:
        for turn in range(1_000_000):
            name, value = f"{number}/{turn % 20}", f"{run}.{turn}".encode()
            pair = txn({f"left/{name}": value, f"right/{name}": value}, id=f"{run}-{number}-{turn}")
            assert isinstance(await store.txn(pair, timeout=PATIENCE), Committed)
            say(pair.id)

    await asyncio.gather(*(writer(number) for number in range(WRITERS)))


async def increment(place: Place, rounds: str) -> None:
    """Add 1 to `counter` by compare-and-set `rounds` times in each of a few tasks."""
    store = await RadosStore.open(place)

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


async def history(place: Place, seed: str) -> None:
    """Reads and writes at random until standard input ends; says each call before it is made (with an open
    end, should this process die), and again once its outcome is known. The first line is the address."""
    store = await RadosStore.open(place, op_timeout=1)
    say(store.address)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    await asyncio.gather(*(_client(store, f"{seed}.{number}", ended) for number in range(TASKS)))
    await store.close()
    say("closed")


async def forget(place: Place, _: str) -> None:
    """Leave without closing."""
    store = await RadosStore.open(place)
    assert isinstance(await store.txn(txn({"left": b"open"})), Committed)
    watch = asyncio.create_task(store.watch(0, timeout=0.1))
    await watch
    say("leaving")


async def _client(store: RadosStore, process: str, ended: asyncio.Event) -> None:
    dice = random.Random(process)
    number = 0
    while not ended.is_set():
        await asyncio.sleep(dice.random() * PAUSE)
        try:
            listing_began = time.monotonic()
            listing = await store.list("", timeout=DEADLINE)
        except StoreUnavailable:
            continue
        number += 1
        call = ListCall(prefix="", result=listing)
        _record(
            f"{process}.{number}",
            Operation(process=process, call=call, invoked=listing_began, returned=now()),
        )
        revisions = {item.key: item.revision for item in listing.items}
        number += 1
        await _write(store, process, f"{process}.{number}", _some_txn(dice, f"{process}.{number}", revisions))


async def _write(store: RadosStore, process: str, id: str, transaction: Txn) -> None:
    invoked = now()
    _record(id, Operation(process=process, call=TxnCall(txn=transaction, result=None), invoked=invoked))
    result: TxnResult | None
    try:
        result = await store.txn(transaction, timeout=DEADLINE)
    except StoreUnavailable:
        result = None
    except OutcomeUnknown:
        settled = await _settle(store, transaction.id)
        if settled is None:
            return
        result = None if isinstance(settled, NotApplied) else settled
    if result is None:
        _record(id, None)
        return
    call = TxnCall(txn=transaction, result=result)
    _record(id, Operation(process=process, call=call, invoked=invoked, returned=now()))


async def _settle(store: RadosStore, id: str) -> Committed | NotApplied | None:
    """None when it cannot be known."""
    deadline = now() + PATIENCE
    while now() < deadline:
        try:
            settled = await store.resolve(id, timeout=DEADLINE)
        except StoreUnavailable as error:
            if "blocklisted" in str(error):
                return None
            await asyncio.sleep(0.02)
            continue
        return settled if isinstance(settled, Committed | NotApplied) else None
    return None


def _some_txn(dice: random.Random, value: str, revisions: dict[str, int]) -> Txn:
    mine, other = dice.sample(["a", "b", "c"], 2)
    match dice.randrange(4):
        case 0:
            return txn({mine: value.encode()})
        case 1 | 2:
            compares = {key: revisions.get(key, 0) for key in (mine, other)}
            return txn({mine: value.encode(), other: value.encode()}, compares=compares)
        case _:
            return txn(deletes=(mine,), compares={mine: revisions.get(mine, 0)})


def _record(id: str, operation: Operation | None) -> None:
    """A later line about the same id replaces an earlier one; None: it did not and will not happen."""
    say("call", id, base64.b64encode(pickle.dumps(operation)).decode())


def now() -> float:
    """Seconds of the clock that all processes of this machine share."""
    return time.monotonic()


ROLES = {"pairs": pairs, "increment": increment, "history": history, "forget": forget}


def main() -> None:
    conf, user, pool, namespace, name = sys.argv[2].split(",")
    place = Place(conf=conf, user=user, pool=pool, namespace=namespace, object=name)
    os.set_blocking(sys.stdout.fileno(), True)
    asyncio.run(ROLES[sys.argv[1]](place, sys.argv[3]))


if __name__ == "__main__":
    main()
