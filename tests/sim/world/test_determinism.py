"""The same seed gives the same run, in every process; another seed another one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, contextlib, hashlib, logging, sys
from reconciler.ports.transport import Message, Topic
from reconciler.resources.errors import StoreError
from reconciler.resources.transactions import Put, Txn
from reconciler.sim.world import RandomFaults, World

log = logging.getLogger("reconciler.example")

async def member(ports):
    async def speak(number):
        while True:
            for name in sorted({"a", "b", "c"} - {ports.name}):
                ports.transport.send(name, Message(topic=Topic.HEARTBEAT, body={"n": number}))
            with contextlib.suppress(StoreError):
                put = Put(key=f"{ports.name}/{number}", value=b"")
                result = await ports.store.txn(Txn(id=ports.ids.uuid(), puts=(put,)))
                log.info("%s: %s", ports.clock.wall(), result)
            await asyncio.sleep(1 + number / 10)

    ports.transport.listen(lambda sender, message: log.info("%s: %s", sender, message.body))
    ports.transport.connect({node.name: node.endpoint for node in world.nodes if node.name != ports.name})
    tasks = {asyncio.create_task(speak(number), name=str(number)) for number in range(5)}
    tasks.add(asyncio.create_task(ports.transport.run(), name="mesh"))
    for task in tasks:
        task.add_done_callback(lambda task: log.info("%s ended", task.get_name()))
    try:
        await asyncio.sleep(1000)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)

with World(seed=int(sys.argv[1])) as world:
    for name in "abc":
        world.add(name, member)
    world.power_on()
    plan = RandomFaults(seed=int(sys.argv[1]), density=1.0, seconds=60)
    world.faults.play(plan.schedule(world.names))
    world.run_for(70)
    print(len(world.log), hashlib.sha256(str(world.log).encode()).hexdigest())
"""


def outcome(seed: int, hash_seed: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_is_the_same_whatever_the_hash_seed(seed: int) -> None:
    outcomes = [outcome(seed, hash_seed) for hash_seed in ("0", "1", "77")]
    assert len(set(outcomes)) == 1
    assert int(outcomes[0].split()[0]) > 1000


def test_another_seed_is_another_run() -> None:
    assert outcome(1, "0") != outcome(2, "0")
