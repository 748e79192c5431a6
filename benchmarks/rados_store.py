"""How fast is RadosStore? `python benchmarks/rados_store.py CONF [USER POOL NAMESPACE]`

CONF is Ceph's configuration file, of a real cluster or of `tests/lab/ceph.py start --dir DIR`. Prints
transactions per second of one writer alone, of 64 at once, and of two clients that compete; the time of a
full list and of opening; how soon a watch hears of another client's commit; and what an idle client costs.
The object that it makes is removed at the end.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
import uuid

import rados

from reconciler.adapters.rados import Place, RadosStore
from reconciler.resources.transactions import Committed, Compare, Put, Txn

VALUE = bytes(1000)
ALONE = 500
TOGETHER = 64
EACH = 50
ITEMS = 5000
LATENCIES = 50
IDLE_SECONDS = 10.0


async def chain(store: RadosStore, key: str, count: int) -> None:
    """`count` compare-and-set writes of one key, one after the other."""
    item = (await store.get([key], timeout=30)).get(key)
    revision = item.revision if item else 0
    for _ in range(count):
        txn = Txn(
            id=str(uuid.uuid4()),
            compares=(Compare(key=key, revision=revision),),
            puts=(Put(key=key, value=VALUE),),
        )
        result = await store.txn(txn, timeout=30)
        assert isinstance(result, Committed), result
        revision = result.revision


async def rate(what: str, *chains: tuple[RadosStore, str, int]) -> None:
    started = time.perf_counter()
    await asyncio.gather(*(chain(*each) for each in chains))
    seconds = time.perf_counter() - started
    print(f"{what:24}{sum(count for _, _, count in chains) / seconds:8.0f} transactions/s")


async def hearing(writer: RadosStore, watcher: RadosStore) -> None:
    delays = []
    revision = (await watcher.list("")).revision
    for number in range(LATENCIES):
        watch = asyncio.create_task(watcher.watch(revision, timeout=30))
        await asyncio.sleep(0.02)
        put = Put(key="heard", value=str(number).encode())
        await writer.txn(Txn(id=str(uuid.uuid4()), puts=(put,)), timeout=30)
        committed = time.perf_counter()
        revision = (await watch).revision
        delays.append(time.perf_counter() - committed)
    print(f"{'heard by a watch after':24}{statistics.median(delays) * 1000:8.1f} ms")


async def measure(place: Place) -> None:
    store, other = await RadosStore.open(place), await RadosStore.open(place)
    await rate("one writer", (store, "alone", ALONE))
    names = [f"status/node/VirtualMachine/vm{n}" for n in range(TOGETHER)]
    await rate(f"{TOGETHER} writers", *((store, name, EACH) for name in names))
    await rate("two competing clients", (store, "one", ALONE), (other, "two", ALONE))
    half = TOGETHER // 2
    await rate(
        f"two clients of {half} each",
        *((store, name, EACH) for name in names[:half]),
        *((other, name, EACH) for name in names[half:]),
    )
    await asyncio.gather(*(chain(store, f"spec/VirtualMachine/vm{n}", 1) for n in range(ITEMS)))
    started = time.perf_counter()
    listing = await store.list("", timeout=30)
    print(f"{f'list of {len(listing.items)}':24}{(time.perf_counter() - started) * 1000:8.1f} ms")
    started = time.perf_counter()
    late = await RadosStore.open(place)
    print(f"{'open and load':24}{(time.perf_counter() - started) * 1000:8.1f} ms")
    await late.close()
    await hearing(store, other)
    await other.close()
    revision = (await store.list("", timeout=30)).revision
    used = time.process_time()
    await store.watch(revision, timeout=IDLE_SECONDS)
    print(f"{'idle watch':24}{(time.process_time() - used) / IDLE_SECONDS * 100:8.2f} % of one core")
    await store.close()


def remove(place: Place) -> None:
    with (
        rados.Rados(conffile=place.conf, name=f"client.{place.user}") as cluster,
        cluster.open_ioctx(place.pool) as ioctx,
    ):
        ioctx.set_namespace(place.namespace)
        ioctx.remove_object(place.object)


def main() -> None:
    if len(sys.argv) not in (2, 5):
        sys.exit(f"error: usage: {sys.argv[0]} CONF [USER POOL NAMESPACE]")
    user, pool, namespace = sys.argv[2:] or ("vcl", "vcl", "vcl")
    name = f"benchmark-{uuid.uuid4()}"
    place = Place(conf=sys.argv[1], user=user, pool=pool, namespace=namespace, object=name)
    try:
        asyncio.run(measure(place))
    finally:
        remove(place)


if __name__ == "__main__":
    main()
