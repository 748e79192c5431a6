"""What hands guests over between the hypervisors of a simulated site; it outlives daemons, as libvirtd does.

A migration goes through its stages by itself: the target's copy appears; the memory is copied while the guest
runs on; the source is held; when what it has sent has arrived, the target's copy is complete, and paused; the
source ends. It may break off at any of them, by a lost link, a host that dies, or when it is told to. As with
libvirt, a source that breaks off before the target is complete goes on by itself, and one that does so later
stays held; a copy that is left over on the target goes when the target notices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from reconciler.resources.domains import ExitReason, PauseReason
from reconciler.resources.migrations import Progress
from reconciler.sim.dummy_guests import Arrival, Guest, Life, end, settle
from reconciler.sim.dummy_shelf import MemoryShelf


class Stage(StrEnum):
    """What comes next."""

    CONNECT = "Connect"
    COPY = "Copy"
    HOLD = "Hold"
    COMPLETE = "Complete"
    CONFIRM = "Confirm"


_AFTER = {
    Stage.CONNECT: Stage.COPY,
    Stage.COPY: Stage.HOLD,
    Stage.HOLD: Stage.COMPLETE,
    Stage.COMPLETE: Stage.CONFIRM,
}


@dataclass(slots=True)
class Job:
    """One hand-over. `stage`: what is to happen next; `failure`: why it broke off; `held`: the guest is to
    stand still whatever is left; `done`: it has ended."""

    name: str
    uid: str
    source: str
    target: str
    total: int
    rate: int
    stage: Stage = Stage.CONNECT
    left: int = 0
    failure: str = ""
    held: bool = False
    done: bool = False
    aborted: bool = False


@dataclass(slots=True)
class WireTimes:
    """Seconds: from one stage to the next, of the copying, until a host notices that the other is gone."""

    step: float = 0.05
    copy: float = 1.0
    notice: float = 5.0


@dataclass(slots=True)
class Site:
    """What the wire knows of the world. `shelf`: a host's guests, None while it is off; `now`: by its clock;
    `linked`: whether two hosts reach each other; `sent`: whether a guest's last write is still under way;
    `opens`: the target's copy has opened its images (why not, or nothing); `moved`: it has taken the memory
    over."""

    call_later: Callable[[float, Callable[[], None]], object]
    shelf: Callable[[str], MemoryShelf | None]
    now: Callable[[str], float]
    linked: Callable[[str, str], bool]
    sent: Callable[[str, Guest], bool] = lambda host, guest: False
    opens: Callable[[str, Guest], str] = lambda host, guest: ""
    moved: Callable[[Guest, Guest], None] = lambda before, after: None
    changed: Callable[[str, str], None] = lambda host, text: None


@dataclass(slots=True)
class GuestWire:
    """`breaks`: the stage before which the next hand-over breaks off, by VM; `unfit`: hosts on which no guest
    can run that comes from elsewhere, and why; `restless`: guests that change their memory faster than it is
    copied."""

    site: Site
    times: WireTimes = field(default_factory=WireTimes)
    breaks: dict[str, Stage] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)
    restless: set[str] = field(default_factory=set)
    jobs: dict[tuple[str, str], Job] = field(default_factory=dict)
    _doors: dict[tuple[str, str], MemoryShelf] = field(default_factory=dict)

    def let_in(self, host: str, uid: str) -> None:
        """Until the host loses its power, or shuts it."""
        shelf = self.site.shelf(host)
        if shelf is not None:
            self._doors[host, uid] = shelf

    def shut(self, host: str, uid: str) -> None:
        """It is let in no more."""
        self._doors.pop((host, uid), None)

    def job(self, host: str, name: str) -> Job | None:
        """The one that the host's hypervisor has now."""
        found = self.jobs.get((host, name))
        return found if found is not None and not found.done else None

    def begin(self, source: str, target: str, guest: Guest) -> Job:
        """The hypervisor takes it up."""
        rate = max(1, int(guest.memory / self.times.copy))
        job = Job(name=guest.name, uid=guest.uid, source=source, target=target, total=guest.memory, rate=rate)
        job.left = guest.memory
        self.jobs[source, guest.name] = job
        self._later(job, self.times.step)
        return job

    def hold(self, host: str, name: str) -> None:
        """The guest may stand still for as long as it takes."""
        job = self.job(host, name)
        if job is not None:
            job.held = True

    def abort(self, host: str, name: str) -> None:
        """Somebody ends the job; too late once the target is complete."""
        job = self.job(host, name)
        if job is not None and job.stage is not Stage.CONFIRM:
            job.aborted = True
            self._break(job, "it was aborted")

    # -- the stages ------------------------------------------------------------------------------------

    def _later(self, job: Job, seconds: float) -> None:
        self.site.call_later(seconds, lambda: self._go_on(job))

    def _go_on(self, job: Job) -> None:
        if job.done:
            return
        here = self._guest(job.source, job.name)
        if here is None or here.uid != job.uid:
            return self._break(job, "the guest has ended")
        if not self.site.linked(job.source, job.target):
            return self._break(job, "the connection was lost")
        if self.breaks.get(job.name) is job.stage:
            del self.breaks[job.name]
            return self._break(job, f"it was told to break off before {job.stage}")
        why = self._step(job, here)
        if why is None:
            return None
        if why:
            return self._break(job, why)
        following = _AFTER.get(job.stage)
        if following is None:
            job.done = True
            return None
        job.stage = following
        return self._later(job, self.times.copy if following is Stage.HOLD else self.times.step)

    def _step(self, job: Job, here: Guest) -> str | None:
        """Empty when the stage is done, None when it is looked at again, else why it breaks off."""
        there = self._guest(job.target, job.name)
        if job.stage is Stage.CONNECT:
            return self._connect(job, here, there)
        if there is None or there.uid != job.uid:
            return "the copy on the target has ended"
        match job.stage:
            case Stage.HOLD:
                if job.name in self.restless and not job.held:
                    self._later(job, self.times.copy)
                    return None
                job.left = 0
                if here.pause is PauseReason.NONE:
                    self._put(job.source, replace(here, pause=PauseReason.MIGRATION, ends=None))
                self._say(job, "is held")
            case Stage.COMPLETE:
                if here.pause is PauseReason.NONE:
                    return "somebody has resumed it"
                if self.site.sent(job.source, here):
                    self._later(job, self.times.step)
                    return None
                complete = replace(there, arrival=Arrival.COMPLETE, booted=here.booted and 0.0)
                self.site.moved(here, complete)
                self._put(job.target, complete)
                self._say(job, "is complete on the target")
            case Stage.CONFIRM:
                if here.pause is PauseReason.NONE:
                    return "somebody has resumed it"
                self._put(job.source, end(here, ExitReason.DESTROYED))
                self._say(job, "has left")
            case _:
                job.left = job.total // 2
        return ""

    def _connect(self, job: Job, here: Guest, there: Guest | None) -> str:
        shelf = self.site.shelf(job.target)
        if shelf is None or self._doors.get((job.target, job.uid)) is not shelf:
            return "the target does not let it in"
        if there is not None:
            return f"the target has a domain called {job.name}"
        copy = replace(
            here,
            node=job.target,
            incarnation=f"{here.incarnation}>{job.target}",
            arrival=Arrival.INCOMING,
            pause=PauseReason.MIGRATION,
            ends=None,
        )
        why = self.site.opens(job.target, copy)
        if not why:
            self._put(job.target, copy)
            self._say(job, "begins to be copied")
        return why

    def _break(self, job: Job, why: str) -> None:
        job.failure, job.done = why, True
        self._say(job, f"breaks off: {why}")
        here = self._guest(job.source, job.name)
        held = here is not None and here.uid == job.uid and here.pause is PauseReason.MIGRATION
        if here is not None and held and job.stage is not Stage.CONFIRM:
            self._put(job.source, replace(here, pause=PauseReason.NONE))
        quickly = self.site.linked(job.source, job.target)
        self.site.call_later(0.0 if quickly else self.times.notice, lambda: self._clear(job))

    def _clear(self, job: Job) -> None:
        """The target gives up a copy that has not got everything."""
        there = self._guest(job.target, job.name)
        if there is not None and there.uid == job.uid and there.arrival is Arrival.INCOMING:
            self._put(job.target, end(there, ExitReason.FAILED))

    def progress(self, job: Job) -> Progress:
        """How far it is."""
        return Progress(total=job.total, left=job.left, rate=job.rate)

    def _guest(self, host: str, name: str) -> Guest | None:
        """The living guest on that host."""
        shelf = self.site.shelf(host)
        found = {guest.name: guest for guest in shelf.load()} if shelf is not None else {}
        guest = settle(found[name], self.site.now(host)) if name in found else None
        return guest if guest is not None and guest.life is Life.ALIVE else None

    def _put(self, host: str, guest: Guest) -> None:
        shelf = self.site.shelf(host)
        if shelf is not None:
            shelf.change(guest)

    def _say(self, job: Job, text: str) -> None:
        self.site.changed(job.source, f"the guest {job.name}, on its way to {job.target}, {text}")
