"""One pretend guest, as a value: what it is now follows from its record and the time, and from nothing else.

Invariant: `settle` is the only place where time changes a guest, so a daemon that was killed and comes back
sees exactly what a daemon that stayed alive would have seen. Times are seconds of the event loop's clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reconciler.resources.domains import DomainPhase, ExitReason, Observed, PauseReason


class Life(StrEnum):
    """PENDING: its creation was accepted and has not happened yet (a hypervisor that hangs)."""

    PENDING = "Pending"
    ALIVE = "Alive"
    ENDED = "Ended"


class Arrival(StrEnum):
    """How far the copy is that a live migration has brought. HERE: it ran here, or was started here."""

    HERE = "Here"
    INCOMING = "Incoming"
    COMPLETE = "Complete"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestFaults:
    """What goes wrong with one guest. All times in seconds.

    `start_delay`: create takes this long; past its deadline the guest still appears, paused.
    `start_failures`: so many creates are refused with `failure_reason` and `failure_message` (counted while
    the daemon lives). `vanish_after`: it ends as `vanish_exit`, this long after each resume.
    `refuses_shutdown`, `refuses_destroy`: it goes on running; destroy then gives up at its deadline.
    `hangs_after`: its agent is silent from this long after its boot on.
    `holds_on`: it lets go of no disk, and takes no memory, while it runs. `is_full`: no disk can come to it.
    `boot_delay`: from resume to the guest agent; `shutdown_delay`: from the power button to the end.
    """

    start_delay: float = 0.0
    start_failures: int = 0
    failure_reason: str = "StartFailed"
    failure_message: str = "the dummy controller was told to fail"
    vanish_after: float | None = None
    vanish_exit: ExitReason = ExitReason.CRASHED
    refuses_shutdown: bool = False
    refuses_destroy: bool = False
    hangs_after: float | None = None
    holds_on: bool = False
    is_full: bool = False
    boot_delay: float = 0.02
    shutdown_delay: float = 0.05


ALL = "*"
"""Stands for every VM in `Faults.guests`, and for every call in `Faults.unavailable` and `Faults.hang`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong: per guest (by name, or `*`), and per call ("observe", "create", ..., or `*`).

    `unavailable` calls fail at once; `hang` ones wait for their deadline first. Neither has any effect.
    """

    guests: Mapping[str, GuestFaults] = field(default_factory=dict)
    unavailable: tuple[str, ...] = ()
    hang: tuple[str, ...] = ()

    def of(self, name: str) -> GuestFaults:
        """The faults of the guest called `name`."""
        return self.guests.get(name) or self.guests.get(ALL) or GuestFaults()


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A guest's record. `made_by_vcl` is false for the ones that tests make by hand.

    `appears`, `booted`, `ends`: when that happens, if it will; `pressed`: the power button was pressed while
    it was paused. `writable`: the paths that it may write to; `defined`: of one made by hand, that
    the hypervisor keeps a definition of it. `disks`: the path of each, `sizes` those that were grown while it
    ran; `nics`: what each is connected to. `max_vcpus`, `max_memory`: what it can get while it runs.
    """

    name: str
    uid: str
    cluster_uid: str = ""
    node: str = ""
    generation: int = 0
    vcpus: int = 1
    max_vcpus: int = 1
    memory: int = 0
    max_memory: int = 0
    machine: str = ""
    disks: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    nics: Mapping[str, str] = field(default_factory=dict)
    agent: bool = True
    number: int = 0
    incarnation: str = ""
    life: Life = Life.ALIVE
    pause: PauseReason = PauseReason.STARTING
    appears: float | None = None
    booted: float | None = None
    ends: float | None = None
    ends_as: ExitReason = ExitReason.UNKNOWN
    pressed: bool = False
    exit: ExitReason = ExitReason.UNKNOWN
    made_by_vcl: bool = True
    writable: tuple[str, ...] = ()
    defined: bool = False
    arrival: Arrival = Arrival.HERE

    def observed(self, now: float) -> Observed:
        """How the hypervisor reports it; a hand-made one has no identity."""
        connected = self.pause is PauseReason.NONE and self.booted is not None and self.booted <= now
        return Observed(
            name=self.name,
            uid=self.uid if self.made_by_vcl else "",
            cluster_uid=self.cluster_uid,
            node=self.node,
            generation=self.generation,
            phase=DomainPhase.RUNNING if self.pause is PauseReason.NONE else DomainPhase.PAUSED,
            pause_reason=self.pause,
            incarnation=self.incarnation,
            clients=(f"dummy:{self.incarnation}",),
            vcpus=self.vcpus,
            memory=self.memory,
            machine=self.machine,
            virtualization="dummy",
            agent_connected=connected if self.agent else None,
        )


def settle(guest: Guest, now: float) -> Guest:
    """The guest after everything that was due by `now` has happened."""
    if guest.life is Life.PENDING and guest.appears is not None and guest.appears <= now:
        guest = replace(guest, life=Life.ALIVE, appears=None)
    if guest.life is Life.ALIVE and guest.ends is not None and guest.ends <= now:
        guest = end(guest, guest.ends_as)
    return guest


def next_change(guest: Guest) -> float | None:
    """When time alone will change it next."""
    if guest.life is Life.PENDING:
        return guest.appears
    return guest.ends if guest.life is Life.ALIVE else None


def end(guest: Guest, reason: ExitReason) -> Guest:
    """The guest after its end."""
    return replace(guest, life=Life.ENDED, exit=reason, ends=None, appears=None, pressed=False)


def suspend(guest: Guest, reason: PauseReason) -> Guest:
    """The guest, suspended: nothing happens to it until it is resumed."""
    return replace(guest, pause=reason, ends=None)


def resume(guest: Guest, now: float, faults: GuestFaults) -> Guest:
    """The guest, running; it boots at the first resume, and notices a power button pressed before."""
    booted = now + faults.boot_delay if guest.booted is None else guest.booted
    running = replace(guest, pause=PauseReason.NONE, booted=booted, arrival=Arrival.HERE)
    if faults.vanish_after is not None:
        running = replace(running, ends=now + faults.vanish_after, ends_as=faults.vanish_exit)
    return press_power(running, now, faults) if guest.pressed else running


def reset(guest: Guest, now: float, faults: GuestFaults) -> Guest:
    """The guest, booting anew; a power button that was pressed before is forgotten."""
    fresh = replace(guest, booted=now + faults.boot_delay, ends=None, pressed=False)
    if faults.vanish_after is not None:
        fresh = replace(fresh, ends=now + faults.vanish_after, ends_as=faults.vanish_exit)
    return fresh


def press_power(guest: Guest, now: float, faults: GuestFaults) -> Guest:
    """The guest after it was asked to power off."""
    if faults.refuses_shutdown:
        return guest
    if guest.pause is not PauseReason.NONE:
        return replace(guest, pressed=True)
    return replace(guest, ends=now + faults.shutdown_delay, ends_as=ExitReason.SHUTDOWN, pressed=False)


def console_text(guest: Guest, now: float) -> str:
    """What the guest printed until `now`; nothing before it ever ran."""
    if guest.booted is None:
        return ""
    lines = [f"dummy: booting {guest.name} ({guest.vcpus} cpus, {guest.memory >> 20} MiB)"]
    if guest.booted <= now:
        lines += [f"dummy: {guest.name} login:"]
    if guest.life is Life.ENDED:
        lines += ["dummy: power off"] if guest.exit is ExitReason.SHUTDOWN else []
    return "".join(f"{line}\r\n" for line in lines)


def address(guest: Guest) -> str:
    """An address of the documentation ranges 192.0.2.0/24 and 2001:db8::/32."""
    if 1 <= guest.number <= 254:
        return f"192.0.2.{guest.number}"
    return f"2001:db8::{guest.number:x}"
