"""How fast does virtual time run? `python benchmarks/simulation.py [NODES] [SECONDS]`, on one core.

Each node does what an idle member of a cluster does: two heartbeats a second to every peer, a lease renewal
and a lease read, a watch on the store, and now and then a write that everybody sees. At first no decisions
are taken: that measures the simulation alone, at rest and with dense faults. Then whole nodes, with the loops
of production and a few VMs. Prints virtual seconds per real second.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Mapping

from reconciler.adapters.schema_files import load_schemas
from reconciler.ports.transport import Endpoint, Message, Topic
from reconciler.resources.errors import StoreError
from reconciler.resources.manifest import parse_manifest
from reconciler.resources.transactions import Changes, Put, Txn
from reconciler.sim.cluster import SimCluster
from reconciler.sim.world import NodePorts, Program, RandomFaults, World
from reconciler.sim.writing import virtual_machine

HEARTBEAT = 0.5
LEASE = 1.0
WRITE = 30.0


def member(peers: Mapping[str, Endpoint]) -> Program:
    """The program of an idle member."""

    async def beat(ports: NodePorts) -> None:
        number = 0
        while True:
            number += 1
            body = {"node": ports.name, "sequence": number, "hears": sorted(peers), "health": {"load": 0.1}}
            message = Message(topic=Topic.HEARTBEAT, body=body)
            for peer in peers:
                if peer != ports.name:
                    ports.transport.send(peer, message)
            await asyncio.sleep(HEARTBEAT)

    async def renew(ports: NodePorts) -> None:
        number = 0
        while True:
            number += 1
            with contextlib.suppress(StoreError):
                await ports.leases.renew(ports.name, b"%d" % number, timeout=2.0)
                await ports.leases.read(timeout=2.0)
            await asyncio.sleep(LEASE)

    async def watch(ports: NodePorts) -> None:
        since = 0
        while True:
            try:
                found = await ports.store.watch(since, timeout=5.0)
                since = found.revision if isinstance(found, Changes) else 0
            except StoreError:
                await asyncio.sleep(0.5)

    async def write(ports: NodePorts) -> None:
        while True:
            await asyncio.sleep(WRITE)
            put = Put(key=f"status/node/{ports.name}", value=b"ready")
            with contextlib.suppress(StoreError):
                await ports.store.txn(Txn(id=ports.ids.uuid(), puts=(put,)))

    async def main(ports: NodePorts) -> None:
        ports.transport.listen(lambda sender, message: None)
        ports.transport.connect({name: where for name, where in peers.items() if name != ports.name})
        async with asyncio.TaskGroup() as group:
            for life in (ports.transport.run(), beat(ports), renew(ports), watch(ports), write(ports)):
                group.create_task(life)

    return main


def measure(nodes: int, seconds: float, density: float) -> float:
    """Virtual seconds per real second."""
    with World(seed=1) as world:
        peers: dict[str, Endpoint] = {}
        program = member(peers)
        for number in range(nodes):
            node = world.add(f"r{number + 1}", program)
            peers[node.name] = node.endpoint
        world.power_on()
        if density:
            plan = RandomFaults(seed=1, density=density, seconds=seconds)
            world.faults.play(plan.schedule(world.names), reproducer=str(plan))
        began = time.process_time()
        world.run_for(seconds)
        return seconds / (time.process_time() - began)


def measure_whole(nodes: int, seconds: float, density: float) -> float:
    """The same with whole nodes: every loop of production, and six guests."""
    schemas = load_schemas()
    names = tuple(f"r{number + 1}" for number in range(nodes))
    with World(seed=1) as world:
        cluster = SimCluster(world, names, lambda path, data: parse_manifest(path, data, schemas))
        cluster.found()
        world.power_on()
        for vm in "abcdef":
            cluster.save(names[-1], f"{vm}.yaml", virtual_machine(vm))
        world.run_until(lambda: cluster.masters(), 60)
        world.run_for(30.0)
        if density:
            plan = RandomFaults(seed=1, density=density, seconds=seconds)
            world.faults.play(plan.schedule(world.names), reproducer=str(plan))
        began = time.process_time()
        world.run_for(seconds)
        return seconds / (time.process_time() - began)


def main() -> None:
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 600.0
    print(f"{nodes} idle members:              {measure(nodes, seconds, 0.0):8.0f} x real time")
    print(f"{nodes} members, dense faults:     {measure(nodes, seconds, 0.5):8.0f} x real time")
    print(f"{nodes} whole nodes:               {measure_whole(nodes, seconds, 0.0):8.0f} x real time")
    print(f"{nodes} whole nodes, dense faults: {measure_whole(nodes, seconds / 2, 0.5):8.0f} x real time")


if __name__ == "__main__":
    main()
