"""Worker threads answer the loop that asked, and nobody when it is gone."""

from __future__ import annotations

import asyncio
import threading

import pytest

from reconciler.adapters.event_loop import in_thread, post


async def test_a_posted_callback_runs_in_the_loops_thread() -> None:
    ran: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: post(loop, lambda: ran.set_result(threading.get_ident()))).start()
    assert await ran == threading.get_ident()


def test_posting_to_a_closed_loop_is_quiet() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    ran: list[int] = []
    post(loop, lambda: ran.append(1))
    assert ran == []


async def test_a_call_on_its_own_thread_returns_its_result_or_raises_its_error() -> None:
    assert await in_thread(threading.get_ident, name="worker") != threading.get_ident()

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_thread(fail, name="worker")


async def test_a_call_that_nobody_waits_for_any_more_ends_quietly() -> None:
    gate = threading.Event()
    task = asyncio.create_task(in_thread(lambda: gate.wait(10), name="worker"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    assert await in_thread(lambda: "next", name="worker") == "next"
