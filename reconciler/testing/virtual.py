"""Contract suites on virtual time: `on_virtual_time` runs a class's coroutine tests inside a World.

    @on_virtual_time
    class TestSimTransport(TransportContract):
        def mesh(self, names):
            ...self.world...

Each test gets a world of its own (`self.world`) and runs as a process on the node `test`. What takes minutes
in its waits takes milliseconds, and takes the same course every time.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from reconciler.sim.world import NodePorts, World

LIMIT = 3_600.0
"""Virtual seconds after which a test counts as hanging."""

_Class = TypeVar("_Class", bound=type)


def on_virtual_time(cls: _Class) -> _Class:
    """The same class; every `async def test_...` that it has or inherits now runs in a world."""
    for name in dir(cls):
        method = getattr(cls, name)
        if name.startswith("test_") and inspect.iscoroutinefunction(method):
            setattr(cls, name, _in_a_world(method))
    return cls


def _in_a_world(method: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(method)
    def test(self: Any, *args: Any, **kwargs: Any) -> None:
        with World(seed=1) as world:
            self.world = world
            world.add("test", _nothing)
            world.power_on()
            world.call("test", lambda ports: method(self, *args, **kwargs), LIMIT)

    return test


async def _nothing(ports: NodePorts) -> None:
    await asyncio.Event().wait()
