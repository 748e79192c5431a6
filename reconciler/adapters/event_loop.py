"""Between an event loop and its threads: daemon threads, so that a hung disk cannot hang the exit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def post(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    """Run `callback` in the loop's thread soon; nothing when the loop is gone, since nobody waits then."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def in_thread(function: Callable[[], T], *, name: str) -> T:
    """Run a blocking call on a daemon thread of its own; its exception is raised here."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[], None]) -> None:
        if not done.done():
            set_outcome()

    def body() -> None:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - carried to the caller, whatever it is
            failure = error
            post(loop, lambda: settle(lambda: done.set_exception(failure)))
        else:
            post(loop, lambda: settle(lambda: done.set_result(result)))

    threading.Thread(target=body, name=name, daemon=True).start()
    return await done
