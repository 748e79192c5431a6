"""Live migration under every interleaving: two hosts, a hypervisor that may break off anywhere, daemons and
hosts that die, looks that are told late, people who resume what they should not. At every instant at most one
copy runs that nothing cuts off, and none runs with a memory that is older than the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, sampled_from

from reconciler.planning.migration import (
    Abort,
    End,
    Facts,
    Go,
    Hold,
    Open,
    Refuse,
    Settle,
    Wait,
    Wanted,
    hosts_of,
    next_step,
    opened,
    request_migration,
    without,
)
from reconciler.planning.migration_sides import Duty, duty, saying
from reconciler.resources.migrations import (
    ENDED,
    CallResult,
    Look,
    MigrationPhase,
    MigrationRecord,
    MigrationSide,
)
from reconciler.resources.records import Claim, ClaimPhase

NODES = ("r1", "r2")
node = sampled_from(NODES)


@dataclass
class Host:
    """`memory`: what of the disk the guest's memory knows. `cut`: nothing of it reaches the disk any more.
    `captured`: a look that is not committed yet, and the record that it was made for."""

    copy: Look = Look.ABSENT
    memory: int = 0
    up: bool = True
    cut: bool = False
    session: int = 1
    result: CallResult = CallResult.NONE
    calling: bool = False
    captured: tuple[MigrationRecord, MigrationSide] | None = None


class Migrations(RuleBasedStateMachine):
    """r1 runs the guest, and it is to go to r2. The store is what is in the fields; rules are its writers."""

    @initialize(rounds=integers(0, 6))
    def begin(self, rounds: int) -> None:
        self.disk = 0
        self.job = ""
        self.hosts = {name: Host() for name in NODES}
        self.hosts["r1"].copy = Look.RUNNING
        self.claim = Claim(node="r1", uid="u", session=1, phase=ClaimPhase.RUNNING)
        wanted = Wanted(vm="web", target="r2", memory=2**30, reason="test", may_hold=True)
        self.record = request_migration(wanted, self.claim, id="m", requested="")
        self.sides: dict[str, MigrationSide] = {}
        self.leaving, self.overdue = "", False
        self.calls = 0
        for _ in range(rounds):
            self.time_passes()

    # The guest and the hypervisors.

    @rule(name=node)
    def guest_writes(self, name: str) -> None:
        host = self.hosts[name]
        if host.copy is Look.RUNNING and not host.cut:
            assert host.memory == self.disk, f"{name} writes with a memory of {host.memory} to {self.disk}"
            self.disk += 1
            host.memory = self.disk

    @precondition(lambda self: self.job == "copying")
    @rule(whole=booleans())
    def copying_goes_on(self, whole: bool) -> None:
        """The target appears; at the end the source is held, and the target has everything."""
        here, there = self.hosts["r1"], self.hosts["r2"]
        if not self._linked() or here.copy is not Look.RUNNING:
            return self._break_off()
        there.copy = Look.INCOMING
        if whole:
            here.copy, self.job = Look.PAUSED, "handed"

    @precondition(lambda self: self.job == "handed")
    @rule()
    def target_finishes(self) -> None:
        there = self.hosts["r2"]
        if not self._linked() or there.copy is not Look.INCOMING:
            return self._break_off()
        there.copy, there.memory, self.job = Look.READY, self.hosts["r1"].memory, "finished"

    @precondition(lambda self: self.job == "finished")
    @rule()
    def source_confirms(self) -> None:
        here = self.hosts["r1"]
        if here.copy is Look.PAUSED:
            here.copy = Look.ABSENT
            self._returned(CallResult.SUCCEEDED)
        else:
            self._returned(CallResult.FAILED)
        self.job = ""

    @precondition(lambda self: self.job != "")
    @rule(resumes=booleans(), cleans=booleans())
    def job_breaks(self, resumes: bool, cleans: bool) -> None:
        """At any point; the source may be left held, and the target left over. After the target has finished
        the source is never resumed by its hypervisor."""
        here, there = self.hosts["r1"], self.hosts["r2"]
        if resumes and here.copy is Look.PAUSED and self.job != "finished":
            here.copy = Look.RUNNING
        if cleans and there.copy in (Look.INCOMING, Look.READY):
            there.copy = Look.ABSENT
        self._break_off()

    @rule()
    def somebody_resumes_the_source(self) -> None:
        here = self.hosts["r1"]
        if here.copy is Look.PAUSED and self.job == "":
            here.copy = Look.RUNNING

    @rule(name=node)
    def guest_dies(self, name: str) -> None:
        self.hosts[name].copy = Look.ABSENT

    def _linked(self) -> bool:
        return self.hosts["r1"].up and self.hosts["r2"].up

    def _break_off(self) -> None:
        self.job = ""
        self._returned(CallResult.FAILED)

    def _returned(self, result: CallResult) -> None:
        if self.hosts["r1"].calling:
            self.hosts["r1"].result = result
        self.hosts["r1"].calling = False

    # The agents.

    @rule(name=node)
    def agent_looks(self, name: str) -> None:
        """What it sees now; told later, unless its daemon ends before."""
        host = self.hosts[name]
        if not host.up:
            return
        told = self.sides.get(name)
        letting = duty(self.record, name, told, busy=self._busy(name)) is Duty.LET_IN
        seen = MigrationSide(
            id="m",
            node=name,
            session=host.session,
            boot_id="b",
            phase=self.record.phase,
            look=host.copy,
            ready=letting,
            busy=self._busy(name),
        )
        host.captured = (self.record, saying(self.record, told, seen, host.result))

    @rule(name=node)
    def agent_tells(self, name: str) -> None:
        host = self.hosts[name]
        if host.captured is not None and host.up and not host.cut:
            record, side = host.captured
            if record == self.record:
                self.sides[name] = side
        host.captured = None

    @rule(name=node, dies=booleans())
    def agent_acts(self, name: str, dies: bool) -> None:
        host, told = self.hosts[name], self.sides.get(name)
        if not host.up or host.cut:
            return
        match duty(self.record, name, told, busy=self._busy(name)):
            case Duty.CALL if told is not None and told.session == host.session:
                self.sides[name] = replace(told, called=True, busy=True, phase=self.record.phase)
                host.captured = None
                if not dies:
                    self.calls += 1
                    self.job, host.calling = "copying", True
            case Duty.ABORT:
                self._break_off()
            case Duty.DESTROY:
                host.copy = Look.ABSENT
            case _:
                pass

    @rule(name=node)
    def agent_keeps_to_the_claim(self, name: str) -> None:
        """What the agent does with VMs that are not on their way: the ordinary rules."""
        host, moving = self.hosts[name], self.claim.migration is not None
        if not host.up or host.cut or moving:
            return
        if self.claim.node != name and host.copy is not Look.ABSENT and self.job == "":
            host.copy = Look.ABSENT
        if self.claim.node == name and self.claim.paused and host.copy in (Look.PAUSED, Look.READY):
            host.copy = Look.RUNNING

    @rule(name=node)
    def agent_starts_what_nobody_has(self, name: str) -> None:
        host = self.hosts[name]
        if self.claim.node or not host.up or host.cut or host.copy is not Look.ABSENT:
            return
        self.claim = Claim(node=name, uid="u", session=host.session, phase=ClaimPhase.RUNNING)
        host.copy, host.memory = Look.RUNNING, self.disk

    @rule(name=node)
    def daemon_restarts(self, name: str) -> None:
        host = self.hosts[name]
        if host.up and not host.cut:
            host.session += 1
            host.result, host.calling, host.captured = CallResult.NONE, False, None

    def _busy(self, name: str) -> bool:
        return name == "r1" and (self.hosts[name].calling or self.job != "")

    # The master, people, and what befalls hosts.

    @rule()
    def time_passes(self) -> None:
        """Everybody does their work, and the hypervisor goes one step on."""
        self.master_decides()
        for name in NODES:
            self.agent_looks(name)
            self.agent_tells(name)
            self.agent_acts(name, dies=False)
            self.agent_keeps_to_the_claim(name)
            self.agent_starts_what_nobody_has(name)
            self.guest_writes(name)
        match self.job:
            case "copying":
                self.copying_goes_on(whole=True)
            case "handed":
                self.target_finishes()
            case "finished":
                self.source_confirms()

    @rule()
    def master_decides(self) -> None:
        facts = Facts(
            record=self.record,
            claim=self.claim,
            sides=dict(self.sides),
            sessions={name: host.session for name, host in self.hosts.items()},
            obstacle="a node is fenced" if any(host.cut for host in self.hosts.values()) else "",
            overdue=self.overdue,
            leaving=self.leaving,
        )
        match next_step(facts):
            case Open():
                self.claim = opened(facts)
                self.record = replace(self.record, phase=MigrationPhase.OPEN)
            case Go(phase=phase):
                self.record = replace(self.record, phase=phase)
            case Hold():
                self.record, self.overdue = replace(self.record, hold=True), False
            case Abort(reason=reason):
                self.record = replace(self.record, abort=reason)
            case End(nodes=nodes):
                self.record = replace(self.record, ends=nodes)
            case Settle(claim=claim, phase=phase):
                self.claim, self.record = claim, replace(self.record, phase=phase)
            case Refuse():
                self.record = replace(self.record, phase=MigrationPhase.FAILED)
            case Wait():
                pass

    @rule()
    def it_takes_too_long(self) -> None:
        self.overdue = True

    @rule()
    def somebody_cancels(self) -> None:
        self.leaving = "deleted"

    @rule(name=node)
    def host_dies(self, name: str) -> None:
        """At most one of the two: the other is to have the guest in the end."""
        if any(host.cut or not host.up for host in self.hosts.values()):
            return
        self.hosts[name].up = False
        self.hosts[name].copy = Look.ABSENT

    @rule(name=node)
    def host_is_cut_off_and_fenced(self, name: str) -> None:
        host, other = self.hosts[name], self.hosts["r2" if name == "r1" else "r1"]
        if other.cut or not other.up or host.cut:
            return
        host.cut = True
        host.session += 1
        self.claim = without(self.claim, name)
        if not hosts_of(self.claim) or (self.claim.node == name and self.claim.migration is None):
            self.claim = Claim(uid="u")

    @invariant()
    def at_most_one_copy_may_write(self) -> None:
        running = [name for name, h in self.hosts.items() if h.copy is Look.RUNNING and not h.cut]
        assert len(running) <= 1
        assert all(self.hosts[name].memory == self.disk for name in running)

    @invariant()
    def it_is_called_once(self) -> None:
        assert self.calls <= 1

    def teardown(self) -> None:
        """Without further faults it ends, and exactly one copy runs."""
        for name, host in self.hosts.items():
            if not host.up and not host.cut:
                host.up, host.copy = False, Look.ABSENT
                self.host_is_cut_off_and_fenced(name)
        for _ in range(20):
            self.time_passes()
            self.at_most_one_copy_may_write()
        assert self.record.phase in ENDED
        assert self.claim.migration is None
        running = [name for name, h in self.hosts.items() if h.copy is Look.RUNNING and not h.cut]
        mine = self.hosts[self.claim.node] if self.claim.node else None
        assert running == [self.claim.node] or (mine is not None and mine.copy is Look.ABSENT)


TestMigrations = Migrations.TestCase
TestMigrations.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def _nothing(model: Migrations) -> None:
    """No fault."""


def _breaks(model: Migrations, *, resumes: bool, cleans: bool) -> None:
    if model.job:
        model.job_breaks(resumes=resumes, cleans=cleans)


def _runs_on_and_dies(model: Migrations) -> None:
    """A person resumes the source, which writes, and ends."""
    model.somebody_resumes_the_source()
    model.guest_writes("r1")
    model.guest_dies("r1")


FAULTS: dict[str, Callable[[Migrations], None]] = {
    "nothing": _nothing,
    "the job breaks off, both copies stay": lambda m: _breaks(m, resumes=False, cleans=False),
    "the job breaks off, the target's copy goes": lambda m: _breaks(m, resumes=False, cleans=True),
    "the job breaks off, the source goes on": lambda m: _breaks(m, resumes=True, cleans=False),
    "somebody resumes the source": lambda m: m.somebody_resumes_the_source(),
    "the source runs on and dies": _runs_on_and_dies,
    "the source's guest dies": lambda m: m.guest_dies("r1"),
    "the target's copy dies": lambda m: m.guest_dies("r2"),
    "the source's daemon restarts": lambda m: m.daemon_restarts("r1"),
    "the target's daemon restarts": lambda m: m.daemon_restarts("r2"),
    "the source's host dies": lambda m: m.host_dies("r1"),
    "the target's host dies": lambda m: m.host_dies("r2"),
    "the source's host is fenced": lambda m: m.host_is_cut_off_and_fenced("r1"),
    "the target's host is fenced": lambda m: m.host_is_cut_off_and_fenced("r2"),
    "it is cancelled": lambda m: m.somebody_cancels(),
}
ROUNDS = 10
"""More than an undisturbed migration takes."""


def begun(rounds: int) -> Migrations:
    model = Migrations()
    model.begin(rounds=rounds)
    return model


def test_an_undisturbed_migration_ends_on_the_target() -> None:
    model = begun(ROUNDS)
    assert model.record.phase is MigrationPhase.SUCCEEDED
    assert (model.claim.node, model.hosts["r2"].copy) == ("r2", Look.RUNNING)
    assert (model.hosts["r1"].copy, model.calls) == (Look.ABSENT, 1)


@pytest.mark.parametrize("first", FAULTS)
def test_it_ends_with_one_copy_whatever_happens_at_any_two_instants(first: str) -> None:
    for rounds, between, second in product(range(ROUNDS), (0, 1, 2), FAULTS):
        model = begun(rounds)
        FAULTS[first](model)
        for _ in range(between):
            model.time_passes()
        FAULTS[second](model)
        model.at_most_one_copy_may_write()
        model.teardown()
        assert model.calls <= 1
