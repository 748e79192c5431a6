"""A node's event loop behaves as asyncio's does, on virtual time, and can stand still or vanish."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from reconciler.sim.world import NodeFailed, NodePorts, NotInTime, World


async def idle(ports: NodePorts) -> None:
    await asyncio.Event().wait()


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    with World(seed=1) as world:
        world.add("a", idle).power_on()
        return world.call("a", lambda ports: work(), limit=1000)


def test_time_passes_only_while_everybody_sleeps() -> None:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(100)
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time() - began

    assert run(work) == pytest.approx(100)


def test_events_queues_locks_groups_and_time_outs_work() -> None:
    async def work() -> list[str]:
        seen: list[str] = []
        event, queue, lock = asyncio.Event(), asyncio.Queue[int](), asyncio.Lock()

        async def one() -> None:
            await event.wait()
            async with lock:
                seen.append(f"one got {await queue.get()}")

        async with asyncio.TaskGroup() as group:
            group.create_task(one())
            await asyncio.sleep(1)
            event.set()
            await queue.put(7)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.sleep(60)
                seen.append("not reached")
        seen += await asyncio.gather(asyncio.sleep(2, "slow"), asyncio.sleep(1, "fast"))
        done, pending = await asyncio.wait([asyncio.create_task(asyncio.sleep(3))], timeout=1)
        seen.append(f"{len(done)} done, {len(pending)} pending")
        for task in pending:
            task.cancel()
        return seen

    assert run(work) == ["one got 7", "slow", "fast", "0 done, 1 pending"]


def test_work_for_a_thread_is_done_without_one() -> None:
    async def work() -> tuple[int, str]:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(sum, [1, 2]), asyncio.current_task().get_name()  # type: ignore[union-attr]

    assert run(work) == (3, "a/spawned")


def test_a_context_variable_belongs_to_its_task() -> None:
    from contextvars import ContextVar

    who = ContextVar("who", default="nobody")

    async def work() -> list[str]:
        async def name(text: str) -> str:
            who.set(text)
            await asyncio.sleep(1)
            return who.get()

        return [*await asyncio.gather(name("x"), name("y")), who.get()]

    assert run(work) == ["x", "y", "nobody"]


def test_a_failure_reaches_whoever_waits_for_it() -> None:
    async def fails() -> None:
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        run(fails)


def test_sets_of_tasks_have_one_order() -> None:
    async def work() -> list[str]:
        tasks = {asyncio.create_task(asyncio.sleep(0), name=str(number)) for number in range(50)}
        await asyncio.wait(tasks)
        return [task.get_name() for task in tasks]

    assert run(work) == run(work)


def test_a_failing_program_ends_the_run_and_says_how_to_see_it_again() -> None:
    async def program(ports: NodePorts) -> None:
        await asyncio.sleep(3)
        raise RuntimeError("broken")

    with World(seed=42) as world:
        world.add("a", program).power_on()
        world.run_for(2)
        with pytest.raises(
            NodeFailed, match=r"a at 3\.\d+ s: the program failed: RuntimeError: broken.*seed=42"
        ):
            world.run_for(10)
        assert world.now < 4
        assert world.log.said("RuntimeError: broken", node="a")


def test_a_failing_callback_ends_the_run() -> None:
    async def program(ports: NodePorts) -> None:
        ports.loop.call_later(1, lambda: int("x"))
        await asyncio.sleep(100)

    with World(seed=1) as world:
        world.add("a", program).power_on()
        with pytest.raises(NodeFailed, match="ValueError"):
            world.run_for(10)


def test_a_task_that_failed_and_that_nobody_looked_at_ends_the_run() -> None:
    async def program(ports: NodePorts) -> None:
        async def fails() -> None:
            raise RuntimeError("unseen")

        ports.memory["task"] = asyncio.create_task(fails(), name="worker")
        await asyncio.sleep(100)

    with World(seed=1) as world:
        world.add("a", program).power_on()
        with pytest.raises(NodeFailed, match="task worker failed and nobody looked: RuntimeError: unseen"):
            world.run_for(10)
    world = World(seed=1)
    world.add("a", program).power_on()
    world.run_for(1)
    with pytest.raises(NodeFailed, match="unseen"):
        world.close()


def test_a_task_whose_failure_somebody_looks_at_later_is_fine() -> None:
    async def program(ports: NodePorts) -> None:
        async def fails() -> None:
            raise RuntimeError("seen")

        task = asyncio.create_task(fails())
        await asyncio.sleep(2)
        assert isinstance(task.exception(), RuntimeError)
        ports.log("looked")
        await asyncio.sleep(100)

    with World(seed=1) as world:
        world.add("a", program).power_on()
        world.run_for(20)
        assert world.log.said("looked")


def test_a_program_that_never_waits_is_found_out() -> None:
    async def program(ports: NodePorts) -> None:
        while True:
            await asyncio.sleep(0)

    with World(seed=1) as world:
        world.add("a", program).power_on()
        with pytest.raises(NodeFailed, match="never waits"):
            world.run_for(10)


def test_what_does_not_come_true_is_not_waited_for_any_longer() -> None:
    with World(seed=3) as world:
        world.add("a", idle).power_on()
        with pytest.raises(NotInTime, match=r"not within 5 s, at 5\.000 s: the moon.*seed=3"):
            world.run_until(lambda: False, limit=5, what="the moon")


def test_an_invariant_is_looked_at_after_every_event() -> None:
    async def program(ports: NodePorts) -> None:
        await asyncio.sleep(4)
        ports.memory["bad"] = True

    def check() -> None:
        assert "bad" not in world.node("a").memory, "bad"

    with World(seed=3) as world:
        world.add("a", program).power_on()
        world.always(check)
        world.run_for(3)
        with pytest.raises(AssertionError, match="bad") as caught:
            world.run_for(3)
        assert "seed=3" in caught.value.__notes__[0]


async def test_a_world_can_be_run_from_inside_a_coroutine() -> None:
    loop = asyncio.get_running_loop()
    with World(seed=1) as world:
        world.add("a", idle).power_on()
        world.run_for(5)
    assert asyncio.get_running_loop() is loop
    await asyncio.sleep(0)


@pytest.mark.slow
def test_nothing_of_a_process_that_is_gone_runs_until_the_world_is_over() -> None:
    ran: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
                await asyncio.sleep(1)
        finally:
            ran.append("generator")

    async def nested() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(1000))
                async for _ in numbers():
                    pass
        finally:
            ran.append("nested")
            await asyncio.sleep(1)
            asyncio.create_task(asyncio.sleep(1))  # noqa: RUF006
            ran.append("after a wait")

    async def program(ports: NodePorts) -> None:
        ports.loop.call_later(5, ran.append, "timer")
        task = asyncio.create_task(nested())
        ports.loop.call_later(2.9, lambda: asyncio.ensure_future(nested()))
        try:
            await task
        finally:
            ran.append("main")

    with World(seed=1) as world:
        node = world.add("a", program)
        node.power_on()
        world.run_for(3)
        node.power_off()
        gc.collect()
        world.run_for(100)
        node.power_on()
        world.run_for(3)
        node.kill()
        gc.collect()
        world.run_for(100)
        assert ran == []
    gc.collect()


def test_a_paused_process_stands_still_and_then_everything_is_late() -> None:
    seen: list[tuple[str, float]] = []

    async def program(ports: NodePorts) -> None:
        began = ports.clock.monotonic()
        while True:
            await asyncio.sleep(1)
            seen.append((ports.name, round(ports.clock.monotonic() - began)))

    with World(seed=1) as world:
        for name in "ab":
            world.add(name, program)
        world.power_on()
        world.run_for(2.5)
        world.node("a").pause()
        world.run_for(10)
        assert [at for name, at in seen if name == "a"] == [1, 2]
        assert [at for name, at in seen if name == "b"] == list(range(1, 13))
        world.node("a").resume()
        world.run_for(2)
        assert [at for name, at in seen if name == "a"] == [1, 2, 12, 13, 14]


def test_the_dead_say_nothing_when_the_world_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("reconciler.example")

    async def program(ports: NodePorts) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.error("unwound")

    with World(seed=1) as world:
        world.add("a", program).power_on()
        world.run_for(1)
    assert not world.log.said("unwound")
    assert not caplog.records
    log.error("somebody else")
    assert [record.getMessage() for record in caplog.records] == ["somebody else"]
