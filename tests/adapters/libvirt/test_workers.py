"""Deadlines on worker threads."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from reconciler.adapters.libvirt.workers import Ticket, Workers
from reconciler.resources.errors import ControllerUnavailable


async def test_a_result_and_an_error_come_back() -> None:
    workers = Workers(name="test", size=2)

    def refuse(_: Ticket) -> None:
        raise ValueError("no")

    assert await workers.run(lambda _: 7, timeout=5, what="count") == 7
    with pytest.raises(ValueError, match="no"):
        await workers.run(refuse, timeout=5, what="count")
    workers.close()


async def test_no_step_begins_after_the_deadline() -> None:
    workers = Workers(name="test", size=1)
    go, steps, over = threading.Event(), [], threading.Event()

    def work(ticket: Ticket) -> None:
        ticket.step()
        steps.append("first")
        go.wait(10)
        ticket.step()
        steps.append("second")

    with pytest.raises(ControllerUnavailable, match="start web1 has not ended"):
        await workers.run(work, timeout=0.05, what="start web1", ended=over.set)
    assert not over.is_set(), "the first step may still take effect"
    go.set()
    assert await asyncio.to_thread(over.wait, 5)
    assert steps == ["first"]
    workers.close()


async def test_hung_work_holds_up_neither_the_loop_nor_more_threads_than_there_are() -> None:
    workers = Workers(name="test", size=3)
    before, go, begun = threading.active_count(), threading.Event(), []

    def hang(ticket: Ticket) -> None:
        begun.append(ticket)
        go.wait(10)

    started = time.monotonic()
    calls = [workers.run(hang, timeout=0.1, what="hang") for _ in range(50)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - started < 5
    assert all(isinstance(answer, ControllerUnavailable) for answer in answers)
    assert sum("has not begun" in str(answer) for answer in answers) == 47
    assert threading.active_count() == before + 3
    go.set()
    assert await workers.run(lambda _: 1, timeout=5, what="go on") == 1
    assert len(begun) == 3, "what nobody waits for any more never begins"
    workers.close()
