"""The agent's decisions, one by one, and then all of them in a model of the world with faults."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.lifecycle import Decision, Memory, Prepared, Step, VmView, decide
from reconciler.resources.domains import DomainPhase, ExitReason, Gone, Observed, PauseReason
from reconciler.resources.records import Binding, Claim, ClaimPhase, Intent
from reconciler.resources.status import Phase

RUN = Desired(wish=Wish.RUN, reason="runStrategy is Always")
STOP = Desired(wish=Wish.STOP, reason="stopped by `vcl stop`")
DELETED = Desired(wish=Wish.DELETED, reason="its manifest was deleted")
BOUND = Binding(node="r1", uid="u1", epoch=1, bound="")
MINE = Claim(node="r1", uid="u1", phase=ClaimPhase.RUNNING, clients=("pid:1:1",), generation=1)
READY = Memory(prepared=Prepared(generation=1))


def domain(phase: DomainPhase = DomainPhase.RUNNING, **changes: object) -> Observed:
    fields: dict[str, object] = {
        "name": "web",
        "uid": "u1",
        "cluster_uid": "c1",
        "node": "r1",
        "phase": phase,
        "incarnation": "i1",
        "clients": ("pid:1:1",),
    }
    fields.update(changes)
    return Observed(**fields)  # type: ignore[arg-type]


FRESH = domain(DomainPhase.PAUSED, pause_reason=PauseReason.STARTING)


def view(**changes: object) -> VmView:
    fields: dict[str, object] = {
        "name": "web",
        "node": "r1",
        "cluster_uid": "c1",
        "uid": "u1",
        "generation": 1,
        "desired": RUN,
        "intent": Intent(),
        "binding": BOUND,
        "claim": None,
        "session": 1,
        "observed": Gone(),
        "memory": Memory(),
        "now": 100.0,
    }
    fields.update(changes)
    return VmView(**fields)  # type: ignore[arg-type]


def test_unknown_is_never_taken_for_stopped() -> None:
    decision = decide(view(claim=MINE, observed=None, unknown="libvirtd does not answer"))
    assert decision.step is Step.WAIT
    assert decision.phase is Phase.UNKNOWN
    assert "libvirtd" in decision.message


def test_a_frozen_node_does_nothing_whatever_it_sees() -> None:
    for observed in (Gone(), domain(), FRESH, None):
        assert decide(view(frozen="the store is older", claim=MINE, observed=observed)).step is Step.WAIT


def test_a_domain_that_vcl_did_not_make_is_left_alone_and_named() -> None:
    decision = decide(view(observed=domain(uid="", cluster_uid="", node="")))
    assert decision.step is Step.WAIT
    assert decision.phase is Phase.FAILED
    assert "left alone" in decision.message


def test_a_domain_of_another_cluster_is_left_alone() -> None:
    assert decide(view(claim=MINE, observed=domain(cluster_uid="c2"))).step is Step.WAIT


def test_a_running_copy_is_ended_only_when_the_record_names_somebody_else() -> None:
    other = replace(MINE, node="r2")
    assert decide(view(claim=other, observed=domain())).step is Step.DESTROY_FOREIGN
    emptied = replace(MINE, node="")
    assert decide(view(claim=emptied, observed=domain())).step is Step.DESTROY_FOREIGN


def test_a_running_copy_without_any_record_is_adopted_or_left_alone_never_ended() -> None:
    assert decide(view(observed=domain())).step is Step.ADOPT
    assert decide(view(observed=domain(), binding=None)).step is Step.WAIT
    assert decide(view(observed=domain(), desired=None, uid="")).step is Step.WAIT


def test_clients_are_recorded_before_the_guest_runs() -> None:
    starting = replace(MINE, phase=ClaimPhase.STARTING, clients=())
    assert decide(view(claim=starting, observed=FRESH)).step is Step.COMMIT
    committed = Memory(committed="i1")
    assert decide(view(claim=MINE, observed=FRESH, memory=committed)).step is Step.RESUME


def test_a_late_creation_is_ended() -> None:
    starting = replace(MINE, phase=ClaimPhase.STARTING, clients=())
    late = Memory(create_unknown=True)
    assert decide(view(claim=starting, observed=FRESH, memory=late)).step is Step.DESTROY


def test_a_guest_that_may_have_been_told_to_run_is_not_told_again() -> None:
    assert decide(view(claim=MINE, observed=FRESH)).step is Step.DESTROY
    told = Memory(committed="i1", resumed="i1")
    assert decide(view(claim=MINE, observed=FRESH, memory=told)).step is Step.DESTROY


def test_a_guest_that_runs_without_its_clients_recorded_is_ended() -> None:
    starting = replace(MINE, phase=ClaimPhase.STARTING)
    assert decide(view(claim=starting, observed=domain())).step is Step.DESTROY


def test_a_stop_asks_first_and_ends_after_the_grace_period() -> None:
    asked = view(desired=STOP, claim=MINE, observed=domain(), grace=10.0)
    assert decide(asked).step is Step.SHUTDOWN
    waiting = decide(replace(asked, memory=Memory(stop_since=95.0, stop_asked=95.0)))
    assert waiting.step is Step.WAIT
    assert "5 s left" in waiting.message
    assert decide(replace(asked, memory=Memory(stop_since=90.0))).step is Step.DESTROY


def test_a_guest_that_did_not_hear_the_power_button_is_asked_again() -> None:
    asked = view(desired=STOP, claim=MINE, observed=domain(), grace=60.0)
    assert decide(replace(asked, memory=Memory(stop_since=80.0, stop_asked=95.0))).step is Step.WAIT
    assert decide(replace(asked, memory=Memory(stop_since=80.0, stop_asked=90.0))).step is Step.SHUTDOWN


def test_a_forced_stop_does_not_wait() -> None:
    assert decide(view(desired=replace(STOP, force=True), claim=MINE, observed=domain())).step is Step.DESTROY


def test_a_destroy_that_takes_its_time_is_not_repeated_at_once() -> None:
    dying = view(desired=replace(STOP, force=True), claim=MINE, observed=domain())
    assert decide(replace(dying, memory=Memory(destroyed=99.5))).step is Step.WAIT
    assert decide(replace(dying, memory=Memory(destroyed=99.0))).step is Step.DESTROY


def test_a_claim_is_kept_until_the_making_of_its_disks_has_ended() -> None:
    making = replace(MINE, phase=ClaimPhase.PROVISIONING)
    busy = Memory(provisioning=True)
    assert decide(view(claim=making, memory=busy)).step is Step.WAIT
    assert decide(view(claim=making, memory=busy, desired=STOP)).step is Step.CANCEL
    assert decide(view(claim=making, desired=STOP)).step is Step.RELEASE


def test_a_claim_is_emptied_only_when_the_domain_is_gone() -> None:
    assert decide(view(desired=STOP, claim=MINE)).step is Step.RELEASE
    for present in (domain(), FRESH, domain(DomainPhase.STOPPING)):
        assert decide(view(desired=STOP, claim=MINE, observed=present)).step is not Step.RELEASE


def test_a_claim_is_kept_while_a_client_of_the_gone_domain_may_still_write() -> None:
    claims = (MINE, replace(MINE, phase=ClaimPhase.STARTING), replace(MINE, uid="u0"))
    for claim in claims:
        decision = decide(view(claim=claim, lingering=("10.77.0.1:0/5",), memory=READY))
        assert decision.step is Step.CUT_OFF
        assert "10.77.0.1:0/5" in decision.message


def test_a_domain_whose_image_somebody_else_opened_meanwhile_never_runs() -> None:
    starting = replace(MINE, phase=ClaimPhase.STARTING, clients=())
    for claim in (starting, MINE):
        decision = decide(view(claim=claim, observed=FRESH, intruder="10.77.0.9:0/7 holds it"))
        assert decision.step is Step.DESTROY
        assert "10.77.0.9:0/7" in decision.message


def test_a_restart_stops_the_run_that_does_not_carry_its_id() -> None:
    wanted = Intent(restart="id1")
    assert decide(view(claim=MINE, observed=domain(), intent=wanted)).step is Step.SHUTDOWN
    honoured = replace(MINE, restart="id1")
    assert decide(view(claim=honoured, observed=domain(), intent=wanted)).step is Step.WAIT


def test_only_pauses_of_vcl_are_undone() -> None:
    paused = domain(DomainPhase.PAUSED, pause_reason=PauseReason.USER)
    assert decide(view(claim=MINE, observed=paused)).step is Step.WAIT
    assert decide(view(claim=replace(MINE, paused=True), observed=paused)).step is Step.RESUME


def test_a_guest_paused_by_an_io_error_is_resumed_when_its_time_has_come() -> None:
    paused = domain(DomainPhase.PAUSED, pause_reason=PauseReason.IO_ERROR)
    assert decide(view(claim=MINE, observed=paused)).step is Step.RESUME
    waiting = decide(view(claim=MINE, observed=paused, memory=Memory(io_retry_at=105.0)))
    assert waiting.step is Step.WAIT
    assert waiting.wake == 105.0


def test_a_spec_that_cannot_be_read_stops_nothing() -> None:
    assert decide(view(claim=MINE, observed=domain(), desired=None)).step is Step.WAIT


def test_a_claim_of_another_node_is_not_touched() -> None:
    assert decide(view(claim=replace(MINE, node="r2"))).step is Step.WAIT


def test_a_fenced_node_starts_nothing() -> None:
    assert decide(view(memory=READY, fenced=True)).step is Step.WAIT


def test_a_fenced_node_ends_its_guests_at_once_and_without_asking_them() -> None:
    found = decide(view(observed=domain(), claim=MINE, fenced=True))
    assert (found.step, found.message) == (Step.DESTROY, "this node was fenced")
    found = decide(view(observed=domain(), claim=MINE, fenced=True, lost=True))
    assert found.step is Step.DESTROY


def test_a_fenced_node_whose_session_is_over_leaves_its_claims_to_the_master() -> None:
    assert decide(view(claim=MINE, fenced=True)).step is Step.RELEASE
    found = decide(view(claim=MINE, fenced=True, lost=True))
    assert found.step is Step.WAIT
    assert "fenced" in found.message


def test_a_purge_happens_under_a_claim_and_once() -> None:
    deleting = view(desired=DELETED, purge=True)
    assert decide(deleting).step is Step.CLAIM
    held = replace(MINE, phase=ClaimPhase.PROVISIONING)
    assert decide(replace(deleting, claim=held)).step is Step.PURGE
    assert decide(replace(deleting, claim=replace(held, purged=True))).step is Step.RELEASE


# --- the model -----------------------------------------------------------------------------------------


@dataclass
class World:
    """One VM, its records and its domain; `do` applies a decision as the agent's actions would."""

    random: random.Random
    claim: Claim | None = None
    domain: Observed | None = None
    late: bool = False
    memory: Memory = field(default_factory=Memory)
    desired: Desired = RUN
    intent: Intent = field(default_factory=Intent)
    now: float = 0.0
    starts: int = 0
    exit: ExitReason = ExitReason.UNKNOWN
    blind: bool = False

    def view(self) -> VmView:
        observed: Observed | Gone | None = self.domain or Gone(exit=self.exit)
        if self.blind or self.late:
            observed = None
        return view(
            claim=self.claim,
            observed=observed,
            desired=self.desired,
            intent=self.intent,
            memory=self.memory,
            now=self.now,
            grace=5.0,
        )

    def check(self) -> None:
        if self.domain is None:
            return
        assert self.claim is not None, "a domain without a claim"
        assert self.claim.node == "r1", "a domain under an emptied claim"
        assert self.claim.phase is not ClaimPhase.PROVISIONING, "created before its disks were claimed"
        if self.domain.phase is DomainPhase.RUNNING:
            assert self.claim.phase is ClaimPhase.RUNNING, "it runs before its clients were recorded"
            assert set(self.domain.clients) <= set(self.claim.clients), "an unrecorded writer"

    def do(self, decision: Decision) -> None:
        name = f"_do_{decision.step.value.lower()}"
        getattr(self, name)()
        self.check()

    def _do_wait(self) -> None:
        self.now += 1.0

    def _do_prepare(self) -> None:
        missing = ("root",) if self.random.random() < 0.5 and self.starts == 0 else ()
        self.memory = replace(
            self.memory, prepared=Prepared(generation=1, identities=("name/p/web.root",), missing=missing)
        )

    def _do_claim(self) -> None:
        assert self.claim is None or not self.claim.node
        assert self.memory.prepared is not None
        phase = ClaimPhase.PROVISIONING if self.memory.prepared.missing else ClaimPhase.STARTING
        self.claim = Claim(
            node="r1",
            uid="u1",
            phase=phase,
            disks=self.memory.prepared.identities,
            restart=self.intent.restart,
        )

    def _do_provision(self) -> None:
        self.starts += 1
        self.memory = replace(self.memory, prepared=None)

    def _do_extend(self) -> None:
        assert self.claim is not None
        assert self.memory.prepared is not None
        self.claim = replace(self.claim, phase=ClaimPhase.STARTING, disks=self.memory.prepared.identities)

    def _do_create(self) -> None:
        self.starts += 1
        if self.random.random() < 0.2:
            self.late = True
            self.memory = replace(self.memory, create_unknown=True)
            return
        self._appear()

    def _appear(self) -> None:
        number = self.starts
        self.domain = replace(FRESH, incarnation=f"i{number}", clients=(f"pid:{number}:1",))

    def _do_commit(self) -> None:
        assert self.claim is not None
        assert self.domain is not None
        self.claim = replace(self.claim, phase=ClaimPhase.RUNNING, clients=self.domain.clients)
        self.memory = replace(self.memory, committed=self.domain.incarnation)

    def _do_resume(self) -> None:
        assert self.domain is not None
        assert self.claim is not None
        self.memory = replace(self.memory, resumed=self.domain.incarnation, io_retry_at=self.now + 10)
        if self.random.random() < 0.2:
            return  # the call failed or its answer was lost: the action raises before it touches the claim
        self.domain = replace(self.domain, phase=DomainPhase.RUNNING, pause_reason=PauseReason.NONE)
        self.claim = replace(self.claim, paused=False)

    def _do_pause(self) -> None:
        assert self.domain is not None
        assert self.claim is not None
        self.claim = replace(self.claim, paused=True)
        self.domain = replace(self.domain, phase=DomainPhase.PAUSED, pause_reason=PauseReason.USER)

    def _do_shutdown(self) -> None:
        since = self.now if self.memory.stop_since is None else self.memory.stop_since
        self.memory = replace(self.memory, stop_since=since, stop_asked=self.now)
        if self.random.random() < 0.5:
            self.domain, self.exit = None, ExitReason.SHUTDOWN

    def _do_destroy(self) -> None:
        self.memory = replace(self.memory, create_unknown=False, destroyed=self.now)
        if self.random.random() < 0.8:
            self.domain, self.exit = None, ExitReason.DESTROYED

    def _do_destroyforeign(self) -> None:
        raise AssertionError("in this world nobody else owns the VM")

    def _do_purge(self) -> None:
        raise AssertionError("nothing asked for a purge")

    def _do_adopt(self) -> None:
        raise AssertionError("a domain never comes without a claim here")

    def _do_release(self) -> None:
        assert self.claim is not None
        assert self.domain is None, "released although the domain is there"
        assert not self.late, "released although a creation is outstanding"
        self.claim = Claim(uid="u1", exit=str(self.exit), restart=self.claim.restart)
        self.memory = Memory()

    def disturb(self) -> None:
        """Something happens: the daemon dies, the guest dies, libvirtd freezes, a late creation arrives,
        somebody changes their mind."""
        match self.random.randrange(9):
            case 0:
                self.memory = Memory()
            case 1:
                if self.domain is not None:
                    self.domain, self.exit = None, ExitReason.CRASHED
            case 2:
                self.blind = not self.blind
            case 3:
                self.desired = self.random.choice((RUN, STOP))
            case 4:
                self.intent = replace(self.intent, restart=str(self.random.random()))
            case 5:
                self.intent = replace(self.intent, paused=not self.intent.paused)
            case 6:
                if self.domain is not None and self.domain.phase is DomainPhase.RUNNING:
                    self.domain = replace(
                        self.domain, phase=DomainPhase.PAUSED, pause_reason=PauseReason.IO_ERROR
                    )
            case _:
                if self.late:
                    self.late = False
                    self._appear()
        self.check()


@pytest.mark.parametrize("seed", range(300))
def test_whatever_happens_no_invariant_breaks_and_it_comes_to_rest(seed: int) -> None:
    world = World(random=random.Random(seed))
    for _ in range(150):
        if world.random.random() < 0.3:
            world.disturb()
        world.do(decide(world.view()))
    world.blind, world.desired, world.intent = False, RUN, replace(world.intent, paused=False)
    for _ in range(200):
        if world.late:
            world.late = False
            world._appear()
        decision = decide(world.view())
        if decision.step is Step.WAIT and decision.phase is Phase.RUNNING:
            break
        world.do(decision)
    assert world.domain is not None
    assert world.domain.phase is DomainPhase.RUNNING


def test_a_hung_guest_is_ended_while_it_runs_and_left_alone_while_it_is_paused() -> None:
    hung = "the guest hangs"
    running = decide(view(claim=MINE, observed=domain(), hung=hung))
    assert (running.step, running.message) == (Step.DESTROY, hung)
    paused = domain(DomainPhase.PAUSED, pause_reason=PauseReason.USER)
    assert decide(view(claim=MINE, observed=paused, hung=hung)).step is Step.WAIT
    assert decide(view(claim=MINE, observed=None, hung=hung)).step is Step.WAIT


def test_a_reset_is_done_once_and_only_while_the_guest_runs() -> None:
    asked = Intent(reset="id1")
    assert decide(view(claim=MINE, intent=asked, observed=domain())).step is Step.RESET
    honoured = replace(MINE, reset="id1")
    assert decide(view(claim=honoured, intent=asked, observed=domain())).step is Step.WAIT
    stalled = domain(DomainPhase.PAUSED, pause_reason=PauseReason.IO_ERROR)
    later = decide(view(claim=MINE, intent=asked, observed=stalled, memory=Memory(io_retry_at=200.0)))
    assert later.step is Step.WAIT


@pytest.mark.parametrize("reason", [PauseReason.USER, PauseReason.ISOLATED])
def test_a_persons_pause_outlasts_the_return_of_contact(reason: PauseReason) -> None:
    paused = domain(DomainPhase.PAUSED, pause_reason=reason)
    mine = replace(MINE, paused=reason is PauseReason.USER)
    kept = decide(view(claim=mine, intent=Intent(paused=True), observed=paused))
    assert (kept.step, kept.phase) == (Step.WAIT, Phase.PAUSED)
    assert decide(view(claim=mine, observed=paused)).step is Step.RESUME


def test_a_pause_waits_until_the_start_is_recorded() -> None:
    starting = replace(MINE, phase=ClaimPhase.STARTING, clients=())
    assert decide(view(claim=starting, intent=Intent(paused=True), observed=FRESH)).step is Step.COMMIT
