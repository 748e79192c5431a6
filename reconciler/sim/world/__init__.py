"""A cluster in one process, on virtual time: whole nodes with the loops of production, and faults on request.

    async def program(ports: NodePorts) -> None:            # a node's main coroutine; one life of a daemon
        ports.disk["boots"] = ports.disk.get("boots", 0) + 1
        ports.transport.connect(peers)
        await ports.transport.run()

    with World(seed=7) as world:
        for name in ("a", "b", "c"):
            world.add(name, program)                        # a host that is off
        world.power_on()
        world.run_for(10.0)                                 # virtual seconds; takes milliseconds
        world.network.halves(["a"], ["b", "c"])             # or world.faults.do("halves a b,c")
        world.node("b").pause()                             # resume, power_off, kill, stop ...
        world.storage.stall("c")                            # cut, heal
        took = world.run_until(lambda: settled(world), limit=30.0)
        items = world.call("b", lambda ports: ports.store.list(""))
        print(world.log)                                    # the same for the same seed

What a `World` has: `add`, `node(name)`, `nodes`, `names`, `power_on`; `run_for(seconds)`,
`run_until(condition, limit)`, `call(name, factory)`, `at(when, callback)`, `always(check)` (an invariant,
looked at after every event), `now`; `network`, `storage`, `faults`, `log`, `seed`, `reproducer`.

What a `Node` (from `world.node`) has: `ports`, and for short its `loop`, `clock`, `transport`, `store` and
`leases`; `disk` (survives everything), `memory` (survives the process, not the power), `spawn(factory)`,
`power_on`, `power_off`, `kill`, `start`, `stop`, `pause`, `resume`, `jump(seconds)`, `drift(rate)`,
`endpoint`, `boot_id`, `on`, `running`, `paused`, `starts`.

Random faults: `world.faults.play(plan.schedule(world.names), reproducer=str(plan))` with
`plan = RandomFaults(seed=7, density=0.5, seconds=60.0)`. A script: `world.faults.play(parse(text))`.

An exception that no task and no callback of a node handles makes `run_for` and `run_until` raise NodeFailed.
"""

from reconciler.sim.world.clock import NodeClock
from reconciler.sim.world.errors import BadScript, NodeFailed, NotInTime, SimulationError
from reconciler.sim.world.faults import VERBS, Fault, Faults, parse
from reconciler.sim.world.loop import NodeLoop
from reconciler.sim.world.network import Network, NetworkTimes
from reconciler.sim.world.node import Node, NodePorts, Program
from reconciler.sim.world.random_faults import RandomFaults
from reconciler.sim.world.record import Line, Log
from reconciler.sim.world.storage import Reach, Storage
from reconciler.sim.world.store import WorldLeases, WorldStore
from reconciler.sim.world.transport import SimTransport
from reconciler.sim.world.world import World

__all__ = [
    "VERBS",
    "BadScript",
    "Fault",
    "Faults",
    "Line",
    "Log",
    "Network",
    "NetworkTimes",
    "Node",
    "NodeClock",
    "NodeFailed",
    "NodeLoop",
    "NodePorts",
    "NotInTime",
    "Program",
    "RandomFaults",
    "Reach",
    "SimTransport",
    "SimulationError",
    "Storage",
    "World",
    "WorldLeases",
    "WorldStore",
    "parse",
]
