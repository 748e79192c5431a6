"""The one Ceph of a simulated world: its images are reached over each host's way to the store, and every QEMU
is a client of its own that goes on writing whatever becomes of the daemon.

A guest counts up in its image. What it has sent while its host's way was cut or stalled arrives late, when
the way is open again, and even when its QEMU has been killed meanwhile: the host's kernel still has it
(SAFETY rule 7). Only the host's power, or the blocklist, ends it. A watch whose client is not heard is gone
after 30 s.
Invariant: what is recorded of a client outlives every daemon; a write arrives once or never.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from reconciler.resources.domains import ExitReason, PauseReason
from reconciler.resources.fencing import canonical
from reconciler.resources.images import RbdIdentity, RbdName
from reconciler.sim.ceph import SimCeph, SimImage
from reconciler.sim.dummy_guests import Guest, Life
from reconciler.sim.fencer import YEARS, SimBlocklist
from reconciler.sim.world.storage import Reach

if TYPE_CHECKING:
    from reconciler.sim.world import World

POOL = "vms"
TICK = 0.5
"""Seconds between two writes of a guest."""
WATCH = 30.0
"""Seconds after which Ceph gives up the watch of a client that it does not hear."""
LATE = 0.4
"""A write that waited arrives within so many seconds after its host's way is open again."""


@dataclass(slots=True, kw_only=True, eq=False)
class Qemu:
    """One run of a guest. `counter`: the last value that it knows to be synced, None before its first look;
    `pending`: the value that it has sent; `heard`: when Ceph last heard of it; `ended`: its process."""

    host: str
    vm: str
    boot_id: str
    incarnation: str
    client: str
    images: tuple[RbdName, ...]
    heard: float
    counter: int | None = None
    pending: int | None = None
    travels: bool = False
    ended: bool = False
    refused: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A write that an image has accepted: the `value` after the one that `before` was."""

    qemu: Qemu
    image: RbdName
    identity: str
    before: int
    value: int


@dataclass(slots=True)
class _Images(SimCeph):
    """Images whose fences are those of a SimBlocklist."""

    fences: SimBlocklist = field(default_factory=lambda: SimBlocklist(fsid=""))

    def block(self, address: str, seconds: float = YEARS) -> None:
        """See SimCeph."""
        self.fences.add(canonical(address), seconds)

    def blocked(self, client: str) -> bool:
        """See SimCeph."""
        return self.fences.bars(client)

    def every(self) -> list[SimImage]:
        """See SimCeph. Watches of who is fenced are gone."""
        found = [*self.images.values(), *(image for _, image in self.trash)]
        for image in found:
            image.watchers = {watcher for watcher in image.watchers if not self.fences.bars(watcher)}
        return found


class SiteCeph:
    """`guests(host)`: those in a host's memory now, set by the cluster. A host whose addresses are fenced
    does not reach the store either: both are in this one Ceph."""

    def __init__(self, world: World, fsid: str = "c5157a11-0000-4000-8000-000000000001") -> None:
        self.world = world
        self.blocklist = SimBlocklist(fsid=fsid, now=lambda: world.now)
        self.images = _Images(fsid=fsid, fences=self.blocklist)
        self.qemus: list[Qemu] = []
        self.counters: dict[str, int] = {}
        """By the image's identity, what is in it."""
        self.arrived: list[Callable[[Arrival], None]] = []
        self.guests: Callable[[str], tuple[Guest, ...]] = lambda host: ()
        self._random = Random(f"{world.seed}/ceph")
        world.always(self._bar)
        world.always(self._note)
        self.fenced = 0
        self._barred: set[str] = set()
        world.schedule.call_later(TICK, self._tick)

    def reaches(self, host: str) -> bool:
        """Whether its requests get an answer now: at its OSDs perhaps that it is blocklisted."""
        return self.world.storage.way(host) is Reach.OPEN

    def bars(self, host: str) -> bool:
        """Whether the OSDs refuse whatever comes from its addresses."""
        return self.blocklist.bars(f"{self.world.node(host).address}:0/1")

    def living(self, host: str) -> tuple[Guest, ...]:
        """The guests whose process is there."""
        return tuple(guest for guest in self.guests(host) if guest.life is Life.ALIVE)

    def shuts_out(self, host: str) -> bool:
        """Whether the host can read in the blocklist that it is there as a whole."""
        listed = self.blocklist.until(f"{self.world.node(host).address}:0/0") is not None
        return listed and not self.blocklist.hang and self.reaches(host)

    def let_in(self, address: str) -> None:
        """A host takes its whole-host entry off the blocklist, if it reaches the monitors."""
        here = [node.name for node in self.world.nodes if node.address == address]
        if not all(self.reaches(name) for name in here):
            return
        if self.blocklist.until(f"{address}:0/0") is not None:
            self.blocklist.remove(f"{address}:0/0")

    def identity(self, name: RbdName) -> str:
        """As in the keys of disk claims."""
        image = self.images.find(name)
        return str(RbdIdentity(fsid=self.images.fsid, pool=name.pool, namespace="", id=image.id))

    def started(self, host: str, guest: str, incarnation: str, images: tuple[RbdName, ...]) -> Qemu:
        """A QEMU has opened its images; it watches from now on, paused or not. Raises Blocklisted."""
        node = self.world.node(host)
        client = self.images.client(node.address)
        for name in images:
            client.open(name)
        made = Qemu(
            host=host,
            vm=guest,
            boot_id=node.boot_id,
            incarnation=incarnation,
            client=client.address,
            images=images,
            heard=self.world.now,
        )
        self.qemus.append(made)
        return made

    def let_go(self, incarnation: str, image: RbdName) -> None:
        """The QEMU of this run has closed one of its images, after all that it had sent there."""
        for qemu in [q for q in self.qemus if q.incarnation == incarnation and image in q.images]:
            qemu.images = tuple(name for name in qemu.images if name != image)
            if image in self.images.images:
                found = self.images.find(image)
                found.watchers.discard(qemu.client)
                found.lock = None if found.lock == qemu.client else found.lock
            if not qemu.images:
                self.qemus.remove(qemu)

    def opens(self, host: str, guest: Guest) -> str:
        """The copy that a migration brings opens the guest's images; why it cannot, or nothing."""
        names = tuple(name for path in guest.writable if (name := RbdName.parse(path)) is not None)
        if not names:
            return ""
        if not self.reaches(host):
            return "the target does not reach its images"
        if self.bars(host):
            return "the target may not open its images: it is blocklisted"
        self.started(host, guest.name, guest.incarnation, names)
        return ""

    def sent(self, host: str, guest: Guest) -> bool:
        """Whether something of it is still under way to its images."""
        return any(qemu.pending is not None for qemu in self._of(guest))

    def moved(self, before: Guest, after: Guest) -> None:
        """What the guest knows of its images goes along with its memory."""
        known = [qemu.counter for qemu in self._of(before)]
        for qemu in self._of(after):
            qemu.counter = next(iter(known), None)

    def _of(self, guest: Guest) -> list[Qemu]:
        return [qemu for qemu in self.qemus if qemu.incarnation == guest.incarnation]

    def runs(self, qemu: Qemu) -> bool:
        """Whether its guest's processors run now."""
        guest = self._guest(qemu)
        return guest is not None and guest.pause is PauseReason.NONE

    def can_write(self, qemu: Qemu) -> bool:
        """Whether anything of it may still reach an image: it runs, or has sent what has not arrived, and
        nothing fences it."""
        if self.blocklist.bars(qemu.client) or self._kernel_gone(qemu):
            return False
        return qemu.pending is not None or self.runs(qemu)

    def look(self, host: str) -> None:
        """What has become of the QEMUs of a host."""
        for qemu in [qemu for qemu in self.qemus if qemu.host == host]:
            self._look(qemu)

    # -- inside ----------------------------------------------------------------------------------------

    def _bar(self) -> None:
        """A fenced host's daemon does not reach the store either."""
        for node in self.world.nodes:
            self.world.storage.bar(node.name, barred=self.bars(node.name))

    def _note(self) -> None:
        """Count how often a host is fenced."""
        for node in self.world.nodes:
            if not self.bars(node.name):
                self._barred.discard(node.name)
            elif node.name not in self._barred:
                self._barred.add(node.name)
                self.fenced += 1
                self.world.say(f"fenced: {node.name}")

    def _tick(self) -> None:
        for qemu in list(self.qemus):
            self._look(qemu)
        self.world.schedule.call_later(TICK, self._tick)

    def _guest(self, qemu: Qemu) -> Guest | None:
        """The living guest of this very run."""
        if self._kernel_gone(qemu):
            return None
        found = (guest for guest in self.guests(qemu.host) if guest.incarnation == qemu.incarnation)
        return next((guest for guest in found if guest.life is Life.ALIVE), None)

    def _kernel_gone(self, qemu: Qemu) -> bool:
        node = self.world.node(qemu.host)
        return not node.on or node.boot_id != qemu.boot_id

    def _look(self, qemu: Qemu) -> None:
        if self._kernel_gone(qemu):
            qemu.ended, qemu.pending = True, None
        open_way, alive = self.reaches(qemu.host), self._guest(qemu) is not None
        if not alive and not qemu.ended:
            qemu.ended = True
            if open_way and qemu.pending is None and not self._crashed(qemu):
                self._close(qemu)
        if alive and open_way:
            self._watch(qemu)
        elif self.world.now - qemu.heard >= WATCH:
            self._forget_watch(qemu)
        if alive and qemu.pending is None and self.runs(qemu) and not self.blocklist.bars(qemu.client):
            self._send(qemu)
        if qemu.pending is not None and open_way and not qemu.travels:
            qemu.travels = True
            self.world.schedule.call_later(self._random.random() * LATE, self._arrive, qemu)
        if qemu.ended and qemu.pending is None and self.world.now - qemu.heard >= WATCH:
            self.qemus.remove(qemu)

    def _crashed(self, qemu: Qemu) -> bool:
        found = (guest for guest in self.guests(qemu.host) if guest.incarnation == qemu.incarnation)
        return any(guest.exit is ExitReason.CRASHED for guest in found)

    def _send(self, qemu: Qemu) -> None:
        """Its guest counts; at its first look it reads what is there, when it can."""
        if qemu.counter is None:
            if not self.reaches(qemu.host):
                return
            known = [self.counters.get(self.identity(name), 0) for name in self._existing(qemu)]
            qemu.counter = max(known, default=0)
        qemu.pending = qemu.counter + 1

    def _arrive(self, qemu: Qemu) -> None:
        """The value reaches the images, or is refused, or waits again."""
        qemu.travels = False
        value = qemu.pending
        if value is None or self._kernel_gone(qemu) or not self.reaches(qemu.host):
            return
        qemu.pending = None
        if self.blocklist.bars(qemu.client):
            qemu.refused += 1
            return
        for name in self._existing(qemu):
            image, identity = self.images.find(name), self.identity(name)
            before, self.counters[identity] = self.counters.get(identity, 0), value
            image.lock, image.cookie = qemu.client, f"auto {qemu.client.rpartition('/')[2]}"
            arrival = Arrival(qemu=qemu, image=name, identity=identity, before=before, value=value)
            for told in self.arrived:
                told(arrival)
        qemu.counter = value
        qemu.heard = self.world.now

    def _existing(self, qemu: Qemu) -> list[RbdName]:
        return [name for name in qemu.images if name in self.images.images]

    def _watch(self, qemu: Qemu) -> None:
        qemu.heard = self.world.now
        if not self.blocklist.bars(qemu.client):
            for name in self._existing(qemu):
                self.images.find(name).watchers.add(qemu.client)

    def _forget_watch(self, qemu: Qemu) -> None:
        for image in self.images.every():
            image.watchers.discard(qemu.client)

    def _close(self, qemu: Qemu) -> None:
        """In order: neither a watch nor a lock is left."""
        qemu.heard = self.world.now - WATCH
        for image in self.images.every():
            image.watchers.discard(qemu.client)
            if image.lock == qemu.client:
                image.lock = None
