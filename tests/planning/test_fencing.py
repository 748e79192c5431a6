"""The steps of a fencing: their order, what each needs, and that any master can go on from any point."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.planning.fencing import (
    BreakLocks,
    Clear,
    Done,
    Fence,
    FenceFacts,
    FencerInfo,
    Finish,
    Intend,
    Lift,
    NextStep,
    Release,
    Settle,
    Wait,
    next_step,
    still_missing,
)
from reconciler.planning.fencing_proofs import Need, storage_of
from reconciler.planning.fencing_record import (
    Stamp,
    emptied,
    failed,
    fenced,
    finished,
    intent_record,
    lifted,
    released,
    settled,
    unlocked,
)
from reconciler.planning.judging import Candidate, Spared
from reconciler.resources.fencing import (
    Blocklisted,
    ConfirmedDown,
    FenceCause,
    FenceMethod,
    FenceOrder,
    FenceRecord,
    PoweredOff,
    Proof,
    ReturnRecord,
    host_entry,
)
from reconciler.resources.records import Claim, ClaimPhase, Session, dump, load

A, B = "fsid-a", "fsid-b"
CEPH_A = FencerInfo(id="ceph-a", method=FenceMethod.CEPH_BLOCKLIST, fsid=A)
CEPH_B = FencerInfo(id="ceph-b", method=FenceMethod.CEPH_BLOCKLIST, fsid=B)
AGENT = FencerInfo(id="agent", method=FenceMethod.AGENT)
MANUAL = FencerInfo(id="manual", method=FenceMethod.MANUAL)
SESSION = Session(
    session=4,
    boot_id="boot-1",
    machine_id="machine-3",
    started="",
    addresses=("10.0.0.3",),
    clients=("10.0.0.3:0/1",),
)
NOW = Stamp(at="2026-01-31T12:00:00Z", epoch=7, seconds=0.5)
WANTED = Candidate(cause=FenceCause.SILENT, reason="silent")


def claim(*disks: str, clients: tuple[str, ...] = ("10.0.0.3:0/55",), **fields: object) -> Claim:
    known: dict[str, object] = {"node": "r3", "uid": "u", "phase": ClaimPhase.RUNNING, **fields}
    return Claim(disks=disks, clients=clients, **known)  # type: ignore[arg-type]


WEB = claim(f"{A}/vms//1")


def begun(fsids: tuple[str, ...] = (A,)) -> FenceRecord:
    intend = Intend(cause=FenceCause.SILENT, reason="silent")
    return intent_record(intend, "r3", "id-1", replace(SESSION, session=5), fsids, NOW)


def facts(record: FenceRecord | None, **fields: object) -> FenceFacts:
    known: dict[str, object] = {
        "claims": {"web": WEB},
        "fencers": (CEPH_A, AGENT, MANUAL),
        "session": replace(SESSION, session=5),
        **fields,
    }
    return FenceFacts(node="r3", record=record, **known)  # type: ignore[arg-type]


def blocklist(order: FenceOrder, fsid: str = A) -> Blocklisted:
    hosts = tuple(host_entry(address) for address in order.addresses)
    return Blocklisted(fsid=fsid, entries=(*hosts, *order.clients))


def proven(record: FenceRecord, what: FenceFacts, fsid: str = A) -> FenceRecord:
    """With a blocklist that is settled and unlocked."""
    fencer = "ceph-a" if fsid == A else "ceph-b"
    step = next_step(what)
    assert isinstance(step, Fence)
    assert step.fencer == fencer
    record = fenced(record, fencer, step.order, blocklist(step.order, fsid), NOW)
    return unlocked(settled(record, fencer, fsid, NOW), fencer, fsid, (), NOW)


# The order of the steps.


def test_without_a_record_only_a_candidate_is_fenced() -> None:
    assert next_step(facts(None, verdict=Spared())) == Done()
    assert next_step(facts(None)) == Done()
    assert next_step(facts(None, verdict=WANTED)) == Intend(cause=FenceCause.SILENT, reason="silent")


def test_the_steps_come_in_the_order_that_is_safe() -> None:
    record = begun()
    step = next_step(facts(record))
    assert isinstance(step, Fence)
    assert step.fencer == "ceph-a"
    assert step.order.addresses == ("10.0.0.3",)
    assert step.order.clients == ("10.0.0.3:0/1", "10.0.0.3:0/55")
    assert step.order.images == (f"{A}/vms//1",)

    record = fenced(record, "ceph-a", step.order, blocklist(step.order), NOW)
    assert isinstance(next_step(facts(record)), Settle)
    record = settled(record, "ceph-a", A, NOW)
    step = next_step(facts(record))
    assert isinstance(step, BreakLocks)
    assert step.order.images == (f"{A}/vms//1",)
    record = unlocked(record, "ceph-a", A, (), NOW)
    assert next_step(facts(record)) == Release(vms=("web",))
    record = released(record, ("web",), NOW)
    assert next_step(facts(record, claims={})) == Finish()
    record = finished(record, NOW)
    waiting = next_step(facts(record, claims={}))
    assert waiting == Wait(reasons=("r3 is fenced, and has not come back",))
    assert [step.step for step in record.steps] == [
        "Intent",
        "Fence",
        "Settle",
        "BreakLocks",
        "Release",
        "Finish",
    ]


def test_a_record_is_read_back_as_it_was_written() -> None:
    record = proven(begun(), facts(begun()))
    record = failed(record, "agent", "no route to host", NOW)
    assert load(FenceRecord, dump(record)) == record


def test_a_fencing_is_never_cancelled_by_a_node_that_is_heard_again() -> None:
    step = next_step(facts(begun(), verdict=Spared(), alive=frozenset({"boot-1"})))
    assert isinstance(step, Fence)


# Proofs.


def test_a_vm_on_two_ceph_clusters_needs_both_fenced_and_another_one_does_not_wait_for_it() -> None:
    both = claim(f"{A}/vms//2", f"{B}/vms//3", clients=("10.0.0.3:0/56",))
    claims = {"db": both, "web": WEB}
    fencers = (CEPH_A, CEPH_B)
    known = facts(begun(), claims=claims, fencers=fencers)
    record = proven(begun(), known)
    assert next_step(facts(record, claims=claims, fencers=fencers)) == Release(vms=("web",))
    left = facts(record, claims={"db": both}, fencers=fencers)
    assert still_missing(left, record) == (
        f"db: waiting for a proof that r3 is cut off from the Ceph cluster {B}",
    )
    record = proven(record, left, B)
    assert next_step(facts(record, claims={"db": both}, fencers=fencers)) == Release(vms=("db",))


def test_a_disk_in_a_directory_needs_a_proof_that_the_host_is_down() -> None:
    files = {"web": claim("0123456789abcdef/77", clients=("pid:1:2",))}
    record = proven(begun(), facts(begun(), claims=files))
    step = next_step(facts(record, claims=files))
    assert isinstance(step, Fence)
    assert step.fencer == "agent"
    assert step.reason == "the storage 0123456789abcdef"
    record = fenced(record, "agent", step.order, PoweredOff(agent="fence_ipmilan"), NOW)
    assert next_step(facts(record, claims=files)) == Release(vms=("web",))


def test_a_vm_without_disks_is_free_with_any_proof_and_with_none_is_not() -> None:
    bare = {"web": claim(clients=())}
    assert isinstance(next_step(facts(begun(), claims=bare)), Fence)
    record = proven(begun(), facts(begun(), claims=bare))
    assert next_step(facts(record, claims=bare)) == Release(vms=("web",))


def test_an_image_that_is_being_made_counts_where_its_pool_is() -> None:
    assert storage_of("name/vms/web", {"vms": A}) == Need(fsid=A)
    assert storage_of("name/local/web", {"vms": A}) == Need(other="pool local")
    assert storage_of(f"{A}/vms/ns/17", {}) == Need(fsid=A)
    assert storage_of("network/a/b/c", {}) == Need(other="network")
    assert storage_of("block/wwn-1", {}) == Need(other="block/wwn-1")


def test_a_proof_that_does_not_name_a_client_of_the_claim_does_not_count() -> None:
    record = proven(begun(), facts(begun()))
    other = {"web": claim(f"{A}/vms//1", clients=("10.0.0.3:0/99",))}
    step = next_step(facts(record, claims=other))
    assert isinstance(step, Fence)
    assert "10.0.0.3:0/99" in step.order.clients


def test_a_client_at_an_address_that_was_not_known_has_that_address_closed_as_well() -> None:
    claims = {"web": claim(f"{A}/vms//1", clients=("10.9.0.3:0/99",))}
    step = next_step(facts(begun(), claims=claims))
    assert isinstance(step, Fence)
    assert step.order.addresses == ("10.0.0.3", "10.9.0.3")


def test_an_address_that_another_node_uses_too_is_never_closed() -> None:
    known = facts(begun(), others={"10.0.0.3": "r1"}, fencers=(CEPH_A,))
    waiting = next_step(known)
    assert isinstance(waiting, Wait)
    assert "ceph-a: 10.0.0.3 is also r1's" in waiting.reasons


def test_what_is_no_address_is_not_taken_for_one() -> None:
    intend = Intend(cause=FenceCause.SILENT, reason="silent")
    odd = replace(SESSION, addresses=("r3.example", "10.0.0.3"), clients=("pid:1:2", "v1:10.0.0.3:0/1"))
    record = intent_record(intend, "r3", "id-1", odd, (A,), NOW)
    assert (record.addresses, record.entries) == (("10.0.0.3",), ("10.0.0.3:0/1",))


def test_without_any_address_nothing_is_taken_for_fenced() -> None:
    record = replace(begun(), addresses=(), entries=())
    waiting = next_step(facts(record, claims={"web": claim(clients=())}, fencers=(CEPH_A,)))
    assert isinstance(waiting, Wait)
    assert any("no address" in reason for reason in waiting.reasons)


@pytest.mark.parametrize(
    "proof",
    [PoweredOff(agent="fence_ipmilan"), ConfirmedDown(incident="r3-5", boot_id="boot-1", by="kim")],
)
def test_a_host_that_was_said_to_be_down_and_shows_life_is_not_down(proof: Proof) -> None:
    order = FenceOrder(id="id-1", node="r3", incident="r3-5", boot_id="boot-1")
    record = fenced(begun(), "agent", order, proof, NOW)
    assert next_step(facts(record, fencers=())) == Release(vms=("web",))
    waiting = next_step(facts(record, fencers=(), alive=frozenset({"boot-1"})))
    assert isinstance(waiting, Wait)
    assert "shows signs of life" in waiting.reasons[0]


@pytest.mark.parametrize(("incident", "boot"), [("r3-4", "boot-1"), ("r3-5", "boot-0")])
def test_a_confirmation_counts_for_its_incident_and_boot_only(incident: str, boot: str) -> None:
    proof = ConfirmedDown(incident=incident, boot_id=boot, by="kim")
    order = FenceOrder(id="id-1", node="r3", incident="r3-5", boot_id="boot-1")
    record = fenced(begun(), "manual", order, proof, NOW)
    assert isinstance(next_step(facts(record, fencers=())), Wait)


def test_a_confirmation_is_void_at_any_sign_of_life_and_a_power_fence_only_at_that_boots() -> None:
    order = FenceOrder(id="id-1", node="r3", incident="r3-5", boot_id="boot-1")
    confirmed = ConfirmedDown(incident="r3-5", boot_id="boot-1", by="kim")
    again = frozenset({"boot-2"})
    record = fenced(begun(), "manual", order, confirmed, NOW)
    assert isinstance(next_step(facts(record, fencers=(), alive=again)), Wait)
    record = fenced(begun(), "agent", order, PoweredOff(agent="fence_ipmilan"), NOW)
    assert next_step(facts(record, fencers=(), alive=again)) == Release(vms=("web",))


# Layers.


def test_a_later_layer_is_tried_once_an_earlier_one_has_failed_and_the_earlier_one_again_after_it() -> None:
    record = failed(begun(), "ceph-a", "monitors do not answer", NOW)
    step = next_step(facts(record, resting=frozenset({"ceph-a"})))
    assert isinstance(step, Fence)
    assert step.fencer == "agent"
    record = failed(record, "agent", "the BMC is dead", NOW)
    step = next_step(facts(record, resting=frozenset({"ceph-a", "agent"})))
    assert isinstance(step, Fence)
    assert step.fencer == "manual"
    record = failed(record, "manual", "nobody has confirmed it", NOW)
    step = next_step(facts(record, resting=frozenset({"agent", "manual"})))
    assert isinstance(step, Fence)
    assert step.fencer == "ceph-a"
    waiting = next_step(facts(record, resting=frozenset({"ceph-a", "agent", "manual"})))
    assert isinstance(waiting, Wait)
    assert waiting.reasons[0] == f"web: waiting for a proof that r3 is cut off from the Ceph cluster {A}"
    assert "agent: failed 1 times, tried again soon: the BMC is dead" in waiting.reasons


def test_a_fencer_that_is_not_set_up_for_the_node_is_passed_over_and_named() -> None:
    unready = replace(AGENT, unready="the node has no `fencing` settings")
    files = {"web": claim("0123456789abcdef/77", clients=())}
    step = next_step(facts(begun(), claims=files, fencers=(unready, MANUAL)))
    assert isinstance(step, Fence)
    assert step.fencer == "manual"
    waiting = next_step(facts(begun(), claims=files, fencers=(unready,)))
    assert isinstance(waiting, Wait)
    assert "agent: the node has no `fencing` settings" in waiting.reasons


def test_bindings_that_were_never_claimed_end_with_the_intent() -> None:
    assert next_step(facts(begun(), bindings=("new",))) == Release(vms=("new",))


# Claims.


def test_an_emptied_claim_keeps_its_clients_and_not_its_processes() -> None:
    old = claim(
        f"{A}/vms//1",
        clients=("10.0.0.3:0/55", "pid:1:2"),
        former_clients=("10.0.0.2:0/9",),
        start="s1",
        generation=3,
    )
    after = emptied(old)
    assert after.former_clients == ("10.0.0.2:0/9", "10.0.0.3:0/55")
    assert (after.node, after.disks, after.clients, after.start) == ("", (), (), None)
    assert (after.uid, after.generation, after.exit) == ("u", 3, "Unknown")


# The return.


def at_rest() -> FenceRecord:
    record = proven(begun(), facts(begun()))
    return finished(released(record, ("web",), NOW), NOW)


def back(boot: str, *, machine: str = "machine-3", session: int = 6) -> dict[str, object]:
    return {
        "claims": {},
        "session": replace(SESSION, session=session, boot_id=boot, machine_id=machine),
        "back": ReturnRecord(session=session, boot_id=boot, machine_id=machine),
        "alive": frozenset({boot}),
    }


def test_a_node_that_rebooted_gets_all_its_entries_lifted_and_then_the_record_goes() -> None:
    step = next_step(facts(at_rest(), **back("boot-2")))
    assert isinstance(step, Lift)
    assert step.clients
    assert step.order.clients == ("10.0.0.3:0/1", "10.0.0.3:0/55")
    record = lifted(at_rest(), "ceph-a", A, NOW, clients=True)
    assert next_step(facts(record, **back("boot-2"))) == Clear()


@pytest.mark.parametrize(("boot", "machine"), [("boot-1", "machine-3"), ("boot-2", "machine-9")])
def test_the_clients_entries_stay_for_the_same_boot_and_for_another_machine(boot: str, machine: str) -> None:
    step = next_step(facts(at_rest(), **back(boot, machine=machine)))
    assert isinstance(step, Lift)
    assert not step.clients
    record = lifted(at_rest(), "ceph-a", A, NOW, clients=False)
    assert record.blocklisted[0].entries == ("10.0.0.3:0/1", "10.0.0.3:0/55")
    assert next_step(facts(record, **back(boot, machine=machine))) == Clear()


def test_a_node_that_says_over_the_mesh_that_it_is_empty_is_let_in_again_but_not_settled() -> None:
    known: dict[str, object] = {"claims": {}, "alive": frozenset({"boot-1"}), "empty": True}
    step = next_step(facts(at_rest(), **known))
    assert isinstance(step, Lift)
    assert not step.clients
    record = lifted(at_rest(), "ceph-a", A, NOW, clients=False)
    waiting = next_step(facts(record, **known))
    assert isinstance(waiting, Wait)
    assert "begins anew" in waiting.reasons[0]


def test_a_node_that_is_heard_and_not_empty_stays_fenced() -> None:
    waiting = next_step(facts(at_rest(), claims={}, alive=frozenset({"boot-1"})))
    assert isinstance(waiting, Wait)
    assert "has not shown yet that nothing is left" in waiting.reasons[0]


def test_what_was_shown_in_an_earlier_session_does_not_settle_a_return() -> None:
    known = back("boot-2")
    known["back"] = ReturnRecord(session=4, boot_id="boot-2", machine_id="machine-3")
    assert isinstance(next_step(facts(at_rest(), **known)), Wait)


def test_a_node_that_is_back_and_empty_is_not_cut_off_again_and_one_that_dies_again_is() -> None:
    files = {"web": claim("0123456789abcdef/77", clients=())}
    known = {**back("boot-1"), "claims": files}
    waiting = next_step(facts(begun(), **known))
    assert waiting == Wait(reasons=("r3 is back, and empties its claims itself",))
    assert next_step(facts(begun(), **{**known, "claims": {}})) == Finish()
    assert isinstance(next_step(facts(begun(), **{**known, "alive": frozenset()})), Fence)


def test_a_record_is_not_cleared_while_nobody_can_let_the_node_in_again() -> None:
    waiting = next_step(facts(at_rest(), fencers=(AGENT,), **back("boot-2")))
    assert isinstance(waiting, Wait)
    assert f"no fencer of the Ceph cluster {A} is configured" in waiting.reasons[0]
    retired = replace(CEPH_A, unready="it is not among the cluster's `fencing.methods`")
    assert isinstance(next_step(facts(at_rest(), fencers=(AGENT, retired), **back("boot-2"))), Lift)


def test_a_reboot_is_the_proof_that_nobody_else_could_give() -> None:
    files = {"web": claim("0123456789abcdef/77", clients=())}
    known = {**back("boot-2"), "claims": files}
    assert next_step(facts(begun(()), fencers=(), **known)) == Release(vms=("web",))
    same = {**back("boot-1"), "claims": files}
    assert isinstance(next_step(facts(begun(()), fencers=(), **same)), Wait)


# Any prefix, then another master; any step fails, times out, or happens late.


@dataclass
class Host:
    """The fenced host as it really is. `open`: the storages that its zombies can still write to."""

    hosts: dict[str, set[str]] = field(default_factory=lambda: {A: set(), B: set()})
    on: bool = True

    def writes_to(self, image: str, client: str) -> bool:
        """Whether a zombie with that client still can."""
        need = storage_of(image, {})
        return self.on and not (need.fsid and client in self.hosts[need.fsid])


class Run:
    """Masters, one after the other, drive a fencing of r3; what they know is the record alone."""

    def __init__(self, claims: dict[str, Claim], random: Random) -> None:
        self.random = random
        self.claims = dict(claims)
        self.original = dict(claims)
        self.record: FenceRecord | None = None
        self.session = SESSION
        self.back: ReturnRecord | None = None
        self.host = Host()
        self.resting: dict[str, int] = {}
        self.turn = 0
        self.seen: list[str] = []
        self.cleared = False

    def facts(self) -> FenceFacts:
        return FenceFacts(
            node="r3",
            record=self.record,
            verdict=None if self.cleared else WANTED,
            claims=self.claims,
            fencers=(CEPH_A, CEPH_B, AGENT, MANUAL),
            resting=frozenset(f for f, until in self.resting.items() if until > self.turn),
            session=self.session,
            back=self.back,
        )

    def new_master(self) -> None:
        self.resting.clear()

    def do(self, step: NextStep, trouble: float) -> None:
        """Carry it out. In trouble it fails, or succeeds without anybody learning of it."""
        self.turn += 1
        self.seen.append(type(step).__name__)
        lost = self.random.random() < trouble
        effect = not lost or self.random.random() < 0.5
        match step:
            case Intend():
                if effect:
                    self.session = replace(self.session, session=self.session.session + 1)
                    self.record = intent_record(step, "r3", "id", self.session, (A,), NOW)
            case Fence():
                self._fence(step, effect=effect, lost=lost)
            case Settle() | BreakLocks() | Lift():
                self._at_ceph(step, lost=lost)
            case Release(vms=vms):
                self._release(vms, effect=effect)
            case Finish():
                assert not self.claims
                if effect:
                    self.record = finished(self._kept(), NOW)
            case Clear():
                if effect:
                    self.record, self.cleared = None, True
            case Wait() | Done():
                return

    def _kept(self) -> FenceRecord:
        assert self.record is not None
        return self.record

    def _fence(self, step: Fence, *, effect: bool, lost: bool) -> None:
        proof: Proof
        if step.fencer == "manual":
            self.record = failed(self._kept(), "manual", "nobody has confirmed it", NOW)
            self.resting["manual"] = self.turn + 4
            return
        if step.fencer == "agent":
            self.host.on = self.host.on and not effect
            proof = PoweredOff(agent="stub")
        else:
            fsid = A if step.fencer == "ceph-a" else B
            proof = blocklist(step.order, fsid)
            if effect:
                self.host.hosts[fsid] |= set(proof.entries)
        if lost:
            self.record = failed(self._kept(), step.fencer, "timed out", NOW)
            self.resting[step.fencer] = self.turn + 3
        else:
            self.record = fenced(self._kept(), step.fencer, step.order, proof, NOW)

    def _at_ceph(self, step: Settle | BreakLocks | Lift, *, lost: bool) -> None:
        if lost:
            self.record = failed(self._kept(), step.fencer, "timed out", NOW)
            self.resting[step.fencer] = self.turn + 3
        elif isinstance(step, Settle):
            self.record = settled(self._kept(), step.fencer, step.fsid, NOW)
        elif isinstance(step, BreakLocks):
            proof = self._kept().on(step.fsid)
            assert proof is not None
            assert proof.settled
            self.record = unlocked(self._kept(), step.fencer, step.fsid, (), NOW)
        else:
            assert not self.claims
            self.record = lifted(self._kept(), step.fencer, step.fsid, NOW, clients=step.clients)

    def _release(self, vms: tuple[str, ...], *, effect: bool) -> None:
        for vm in vms:
            held = self.original[vm]
            for image in held.disks:
                for client in held.clients:
                    assert not self.host.writes_to(image, client), f"{vm} released while {client} can write"
        if effect:
            for vm in vms:
                self.claims.pop(vm)
            self.record = released(self._kept(), vms, NOW)

    def come_back(self) -> None:
        self.session = replace(self.session, session=self.session.session + 1, boot_id="boot-2")
        session = self.session
        self.back = ReturnRecord(session=session.session, boot_id="boot-2", machine_id="machine-3")


images = st.lists(st.sampled_from([f"{A}/vms//1", f"{B}/vms//2", "0123456789abcdef/7"]), max_size=3)


@settings(max_examples=150, deadline=None)
@given(disks=st.lists(images, min_size=1, max_size=4), seed=st.integers(0, 10_000), trouble=st.floats(0, 0.8))
def test_whatever_fails_and_however_often_the_master_changes_no_claim_is_emptied_early_and_all_are_in_the_end(
    disks: list[list[str]], seed: int, trouble: float
) -> None:
    claims = {
        f"vm{number}": claim(*sorted(set(held)), clients=(f"10.0.0.3:0/{100 + number}",))
        for number, held in enumerate(disks)
    }
    run = Run(claims, Random(seed))
    for turn in range(400):
        if run.random.random() < 0.2:
            run.new_master()
        step = next_step(run.facts())
        if isinstance(step, Wait) and run.record is not None and run.record.released:
            break
        run.do(step, trouble if turn < 100 else 0.0)
    assert not run.claims
    assert run.record is not None
    assert run.record.released
    assert run.record.vms == tuple(sorted(claims))
    run.come_back()
    for _ in range(100):
        run.do(next_step(run.facts()), 0.0)
        if run.cleared:
            break
    assert run.cleared
    assert run.seen.index("Intend") < run.seen.index("Release") < run.seen.index("Finish")
    assert run.seen.index("Finish") < run.seen.index("Clear")


def test_after_every_prefix_a_new_master_ends_up_with_the_same_record() -> None:
    """Masters that are replaced after any number of steps do no step twice and leave none out."""

    def play(cut: int) -> tuple[list[str], FenceRecord]:
        run = Run({"web": WEB, "db": claim("0123456789abcdef/7", clients=())}, Random(1))
        for turn in range(40):
            if turn == cut:
                run.new_master()
            step = next_step(run.facts())
            if isinstance(step, Wait):
                break
            run.do(step, 0.0)
        assert run.record is not None
        return run.seen, run.record

    whole = play(-1)
    assert whole[0][-1] == "Finish"
    for cut in range(len(whole[0])):
        assert play(cut) == whole
