"""How long the API takes to answer with many VMs: full list, table, one object, over a real UNIX socket.

    python benchmarks/api_list.py [--vms 1000] [--rounds 50]

Prints the median and the slowest of the rounds, in milliseconds: "cold" is the first answer after a start,
"changed" the first after every VM's status changed, "one changed" after one did, "cached" when none did.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp

from reconciler.adapters.http_api import ApiServices, build_app, serve
from reconciler.resources import keys
from reconciler.resources.kinds import Kind
from reconciler.resources.status import NodeStatus, Phase
from reconciler.sim.desk import Desk, running, vm_record

ROOT = "http://vcld/apis/vcl/v1/virtualmachines"

Call = Callable[[], Awaitable[int]]


class NoManifests:
    """The manifest service is not measured."""

    def held(self) -> None:
        return None


async def fill(desk: Desk, names: list[str], phase: Phase) -> None:
    records: dict[str, Any] = {keys.node_status(Kind.NODE, "r1"): NodeStatus(uid="r1", ready=True)}
    for name in names:
        records |= running(name, phase=phase)
    await desk.put(records)


async def timed(call: Call) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    await call()
    return (time.perf_counter() - start) * 1000


def report(what: str, took: list[float], size: int) -> None:
    median = statistics.median(took)
    print(f"{what:28} median {median:8.2f} ms   slowest {max(took):8.2f} ms   {size / 1024:8.0f} KiB")


async def measure(desk: Desk, session: aiohttp.ClientSession, names: list[str], rounds: int) -> None:
    async def get(path: str) -> int:
        async with session.get(ROOT + path) as response:
            assert response.status == 200, await response.text()
            return len(await response.read())

    async def after(change: Callable[[int], Awaitable[None]], path: str, times: int) -> list[float]:
        took = []
        for number in range(times):
            await change(number)
            took.append(await timed(lambda: get(path)))
        return took

    async def nothing(_: int) -> None:
        return None

    async def one(number: int) -> None:
        await fill(desk, [names[number % len(names)]], (Phase.RUNNING, Phase.PAUSED)[number % 2])

    async def everything(number: int) -> None:
        await fill(desk, names, (Phase.RUNNING, Phase.PAUSED)[number % 2])

    for what, path in (("table", "?as=Table"), ("list", ""), ("one object", f"/{names[0]}")):
        size = await get(path) if what != "table" else 0
        if what == "table":
            report("table, cold", [await timed(lambda: get("?as=Table"))], await get(path))
            size = await get(path)
        report(f"{what}, cached", await after(nothing, path, rounds), size)
        report(f"{what}, one changed", await after(one, path, rounds), size)
        if what != "one object":
            report(f"{what}, all changed", await after(everything, path, min(rounds, 5)), size)


async def main(vms: int, rounds: int) -> None:
    desk = Desk()
    await desk.start()
    names = [f"vm{number:05}" for number in range(vms)]
    spec = {"disks": [{"name": "root", "size": "10Gi", "source": {"image": "debian"}}]}
    await desk.put({keys.spec(Kind.VIRTUAL_MACHINE, name): vm_record(name, **spec) for name in names})
    await fill(desk, names, Phase.RUNNING)
    services = ApiServices(
        objects=desk.objects,
        manifests=NoManifests(),  # type: ignore[arg-type]
        intents=desk.intents,
        events=desk.events,
        console_for=lambda _: None,
        guest_for=lambda _: None,
        version=dict,
        live=tuple,
        ready=tuple,
        status=dict,
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s"
        runner = await serve(build_app(services), path)
        try:
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
                await measure(desk, session, names, rounds)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.vms, arguments.rounds))
