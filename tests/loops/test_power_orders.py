"""What one node knows of orders to shut down: on its disk before it counts, one deadline with the others, and
which of them switch the host off."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.loops.power_orders import OrderKeeper
from reconciler.resources.errors import VclError
from reconciler.resources.shutdowns import PowerOrders, PowerWord, ShutdownOrder
from reconciler.sim.clock import VirtualClock
from reconciler.sim.power import MemoryOrderBook

ORDER = ShutdownOrder(id="a", deadline=300.0, power_off=True)
KNOWN = PowerOrders(orders=(ORDER,))


def keeper(book: MemoryOrderBook, clock: VirtualClock | None = None, boot: str = "boot1") -> OrderKeeper:
    return OrderKeeper(book, clock or VirtualClock(), boot)


async def heard(kept: OrderKeeper, word: PowerWord) -> None:
    """The heartbeat has come, and its loop has had time."""
    kept.hear(word)
    task = asyncio.create_task(kept.run())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_the_disk_refuses_starts_nothing_and_ends_nothing() -> None:
    book = MemoryOrderBook()
    book.refuses = True
    kept = keeper(book)
    with pytest.raises(VclError, match="No space left"):
        await kept.learn(KNOWN, given=True)
    assert kept.order is None
    await heard(kept, PowerWord(known=KNOWN))
    assert kept.order is None
    assert kept.off(), "nothing starts from when it is heard of"


async def test_a_new_order_switches_the_host_off_in_this_boot_alone() -> None:
    book = MemoryOrderBook()
    await keeper(book).learn(KNOWN, given=True)
    assert keeper(book).goes_off, "a daemon that is started again goes on"
    after = keeper(book, boot="boot2")
    assert (after.off(), after.goes_off) == (True, False)


@pytest.mark.parametrize("new", [True, False])
async def test_an_order_that_is_heard_of_switches_the_host_off_if_it_is_new_to_who_tells(new: bool) -> None:
    kept = keeper(MemoryOrderBook())
    await heard(kept, PowerWord(known=KNOWN, under_way=("a",) if new else ()))
    assert kept.order == ORDER
    assert kept.goes_off is new


async def test_what_the_store_says_is_obeyed_and_is_not_new() -> None:
    kept = keeper(MemoryOrderBook())
    await kept.learn(KNOWN)
    assert (kept.order, kept.goes_off) == (ORDER, False)


async def test_all_nodes_have_the_deadline_of_the_first_that_heard_of_it() -> None:
    clock = VirtualClock()
    kept = keeper(MemoryOrderBook(), clock)
    await heard(kept, PowerWord(known=KNOWN, ages={"a": 40.0}))
    assert kept.passed == 40.0
    clock.advance(10.0)
    await heard(kept, PowerWord(known=KNOWN, ages={"a": 20.0}))
    assert kept.passed == 50.0


async def test_an_ended_order_is_told_to_who_listens_and_comes_back_by_nobody() -> None:
    book = MemoryOrderBook()
    kept = keeper(book)
    told: list[bool] = []
    undo = kept.subscribe(lambda: told.append(kept.off()))
    await kept.learn(KNOWN, given=True)
    await kept.learn(PowerOrders(ended=("a",)))
    await heard(kept, PowerWord(known=KNOWN, under_way=("a",)))
    assert (kept.off(), kept.goes_off, told) == (False, False, [True, False])
    undo()
    await kept.learn(PowerOrders(orders=(ShutdownOrder(id="b", deadline=1.0),)))
    assert told == [True, False]
    assert keeper(book).order == ShutdownOrder(id="b", deadline=1.0)
