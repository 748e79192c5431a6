"""One simulated host and the process on it: what a program gets, and what a test can do to it.

The host has power, a wall clock, a disk and memory. The process has a loop, and clients of the network and of
the store; each start makes them anew, so that nothing of a dead process can act.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from reconciler.ports.transport import Endpoint
from reconciler.resources.membership import MESH_PORT
from reconciler.sim.clock import SeededIds
from reconciler.sim.world.clock import NodeClock, WallClock
from reconciler.sim.world.errors import SimulationError
from reconciler.sim.world.loop import NodeLoop, NodeTask
from reconciler.sim.world.store import WorldLeases, WorldStore
from reconciler.sim.world.transport import SimTransport

if TYPE_CHECKING:
    from reconciler.sim.world.world import World

BOOT_SECONDS = 20.0
"""A host's monotonic clock shows about so much when its daemon starts after power on."""
START_WITHIN = 0.05
"""Programs that are started at one moment begin within so many seconds, not in lockstep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePorts:
    """What one life of a program has in its hands. `disk` survives everything, `memory` the process only;
    `log` writes a line of its own into the world's log."""

    name: str
    address: str
    boot_id: str
    loop: NodeLoop
    clock: NodeClock
    ids: SeededIds
    transport: SimTransport
    store: WorldStore
    leases: WorldLeases
    disk: dict[str, Any]
    memory: dict[str, Any]
    log: Callable[[str], None]


Program = Callable[[NodePorts], Coroutine[Any, Any, None]]
"""A node's main coroutine: started with the process, which ends when it returns."""


class Node:
    """A host with one process. What makes no sense in its state (to resume what runs) does nothing."""

    def __init__(self, world: World, name: str, program: Program, *, address: str) -> None:
        self.name = name
        self.address = address
        self.boot_id = ""
        self.on = False
        self.paused = False
        self.rate = 1.0
        self.disk: dict[str, Any] = {}
        self.memory: dict[str, Any] = {}
        self.starts = 0
        self.wall = WallClock(world.schedule)
        self._world = world
        self._program = program
        self._random = Random(f"{world.seed}/{name}")
        self._booted = (0.0, 0.0)
        self._ports: NodePorts | None = None
        self._main: NodeTask | None = None
        self._stopping = self._again = False
        world.network.add(name, address)
        world.storage.add(name)

    # -- what it is made of ----------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether its process exists (it may be paused)."""
        return self._ports is not None

    @property
    def ports(self) -> NodePorts:
        """Those of the running process. SimulationError when there is none."""
        if self._ports is None:
            raise SimulationError(f"{self.name} runs no process at {self._world.now:.3f} s")
        return self._ports

    @property
    def loop(self) -> NodeLoop:
        """The process's event loop."""
        return self.ports.loop

    @property
    def clock(self) -> NodeClock:
        """The process's clocks."""
        return self.ports.clock

    @property
    def transport(self) -> SimTransport:
        """The process's end of the mesh."""
        return self.ports.transport

    @property
    def store(self) -> WorldStore:
        """The process's way to the store."""
        return self.ports.store

    @property
    def leases(self) -> WorldLeases:
        """The process's way to the leases."""
        return self.ports.leases

    @property
    def endpoint(self) -> Endpoint:
        """Where others reach it."""
        return Endpoint(address=self.address, port=MESH_PORT)

    def spawn(self, factory: Callable[[NodePorts], Coroutine[Any, Any, Any]]) -> NodeTask:
        """Run one more coroutine in its process."""
        return self.loop.create_task(factory(self.ports), name=f"{self.name}/spawned")

    # -- power -----------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Boot: a new boot id, empty memory, the disk as it was; the program starts."""
        if self.on:
            return
        self._world.say(f"power on: {self.name}")
        self.on = True
        self.memory = {}
        self.boot_id = f"boot-{self._random.getrandbits(32):08x}"
        self._booted = (BOOT_SECONDS * (1 + self._random.random()), self._world.now)
        self._world.network.switch(self.name, on=True)
        self._start()

    def power_off(self) -> None:
        """At once, as when the cable is pulled: nobody is told."""
        if not self.on:
            return
        self._world.say(f"power off: {self.name}")
        self.on = False
        self._world.network.switch(self.name, on=False)
        self._end()

    # -- the process -----------------------------------------------------------------------------------

    def kill(self) -> None:
        """SIGKILL: nothing of it runs any more; the host closes its connections and refuses new ones."""
        if self.running:
            self._world.say(f"kill: {self.name}")
            self._end()

    def stop(self) -> None:
        """SIGTERM: the program's main coroutine is cancelled, and the process ends when that returns."""
        if not self.running:
            return
        self._world.say(f"stop: {self.name}")
        self._stopping, self._again = True, False
        if self._main is not None:
            self._main.cancel()
        else:
            self._end()

    def start(self) -> None:
        """Start the program again, after `kill`, its own end or `stop` (then once that has ended)."""
        if self._stopping:
            self._again = True
        elif self.on and not self.running:
            self._world.say(f"start: {self.name}")
            self._start()

    def pause(self) -> None:
        """SIGSTOP: it stands still; its clock and its connections do not."""
        if self.running and not self.paused:
            self._world.say(f"pause: {self.name}")
            self.paused = True
            self.loop.pause()
            self._world.network.review_host(self.name)

    def resume(self) -> None:
        """SIGCONT: what arrived meanwhile comes at once, and every timer is late."""
        if self.running and self.paused:
            self._world.say(f"resume: {self.name}")
            self.paused = False
            self.loop.resume()
            self._world.network.review_host(self.name)

    # -- clocks ----------------------------------------------------------------------------------------

    def jump(self, seconds: float) -> None:
        """Somebody sets its wall clock, forward or back; monotonic time goes on."""
        self._world.say(f"jump: the wall clock of {self.name} by {seconds:+g} s")
        self.wall.jump(seconds)

    def drift(self, rate: float) -> None:
        """Both its clocks run fast (more than 1) or slow from now on; also after the next start."""
        self._world.say(f"drift: the clocks of {self.name} run at {rate:g}")
        self._booted = (self._monotonic(), self._world.now)
        self.rate = rate
        self.wall.set_rate(rate)
        if self.running:
            self.loop.set_rate(rate)

    @property
    def monotonic(self) -> float:
        """What its monotonic clock shows, in seconds; the host's, whether or not a process runs."""
        return self._monotonic()

    # -- inside ----------------------------------------------------------------------------------------

    def _monotonic(self) -> float:
        shown, then = self._booted
        return shown + (self._world.now - then) * self.rate

    def _start(self) -> None:
        world = self._world
        self.starts += 1
        loop = world.make_loop(self.name, origin=self._monotonic(), rate=self.rate)
        self._ports = NodePorts(
            name=self.name,
            address=self.address,
            boot_id=self.boot_id,
            loop=loop,
            clock=NodeClock(loop, self.wall),
            ids=SeededIds(self._random.getrandbits(64)),
            transport=SimTransport(world.network, loop, self.name),
            store=WorldStore(world.storage, self.name, loop),
            leases=WorldLeases(world.storage, self.name, loop),
            disk=self.disk,
            memory=self.memory,
            log=lambda text: world.log.write(self.name, text),
        )
        loop.call_later(self._random.random() * START_WITHIN, self._begin, self._ports)

    def _begin(self, ports: NodePorts) -> None:
        self._main = ports.loop.create_task(self._program(ports), name=f"{self.name}/main")
        self._main.add_done_callback(lambda task: self._returned(ports, task))

    def _returned(self, ports: NodePorts, task: Any) -> None:
        """The process ends with its main coroutine."""
        if ports is not self._ports:
            return
        if not task.cancelled() and task.exception() is not None:
            self._world.fail(self.name, "the program failed", task.exception())
        self._world.say(f"ended: {self.name}")
        again = self._again
        self._end()
        if again:
            self.start()

    def _end(self) -> None:
        ports, self._ports, self._main = self._ports, None, None
        self.paused = self._stopping = self._again = False
        if ports is not None:
            ports.loop.drop()
            self._world.network.leave(ports.transport)
