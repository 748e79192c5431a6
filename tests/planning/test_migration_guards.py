"""What keeps its hands off a VM while its live migration is open: the agents, the fencing of either host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.fencing import FenceFacts, FencerInfo, Intend, order_of
from reconciler.planning.fencing_record import Stamp, intent_record
from reconciler.planning.lifecycle import Memory, Step, VmView, decide
from reconciler.planning.liveness import Standing
from reconciler.planning.members import removal_problem
from reconciler.planning.migration import hosts_of, share_of, without
from reconciler.resources.domains import DomainPhase, Gone, Observed, PauseReason
from reconciler.resources.fencing import FenceCause, FenceMethod, FenceRecord
from reconciler.resources.migrations import ClaimMigration, MigrationPhase, MigrationSide
from reconciler.resources.records import Binding, Claim, ClaimPhase, Intent, Session
from reconciler.resources.status import Phase

MARK = ClaimMigration(id="m", source="r1", target="r2")
CLAIM = Claim(
    node="r1",
    uid="u",
    phase=ClaimPhase.RUNNING,
    disks=("f/vms//1",),
    clients=("10.0.0.1:0/5",),
    migration=MARK,
)
SIDE = MigrationSide(
    id="m",
    node="r2",
    session=1,
    boot_id="b",
    phase=MigrationPhase.RUNNING,
    clients=("10.0.0.2:0/6",),
)
COPY = Observed(name="web", uid="u", cluster_uid="c", node="r1", phase=DomainPhase.RUNNING)


def view(node: str, **changes: object) -> VmView:
    fields: dict[str, object] = {
        "name": "web",
        "node": node,
        "cluster_uid": "c",
        "uid": "u",
        "generation": 1,
        "desired": Desired(wish=Wish.RUN, reason=""),
        "intent": Intent(),
        "binding": Binding(node="r1", uid="u", epoch=1, bound=""),
        "claim": CLAIM,
        "session": 1,
        "observed": replace(COPY, node=node),
        "memory": Memory(),
        "now": 100.0,
    }
    fields.update(changes)
    return VmView(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "seen",
    [
        Gone(),
        COPY,
        replace(COPY, phase=DomainPhase.PAUSED, pause_reason=PauseReason.MIGRATION),
        replace(COPY, phase=DomainPhase.CRASHED),
        None,
    ],
)
@pytest.mark.parametrize("wish", list(Wish))
def test_the_agents_of_both_hosts_wait_whatever_they_see(seen: Observed | Gone | None, wish: Wish) -> None:
    for node, phase in (("r1", Phase.MIGRATING), ("r2", None)):
        here = replace(seen, node=node) if isinstance(seen, Observed) else seen
        decision = decide(view(node, observed=here, desired=Desired(wish=wish, reason="")))
        assert (decision.step, decision.phase) == (Step.WAIT, phase)


def test_a_host_whose_session_a_fence_has_ended_ends_its_copy() -> None:
    ended = {"fenced": True, "lost": True}
    assert decide(view("r1", **ended)).step is Step.DESTROY
    assert decide(view("r2", **ended)).step is Step.DESTROY_FOREIGN


def test_a_target_that_is_proven_gone_ends_what_is_found_on_it() -> None:
    assert decide(view("r2", claim=without(CLAIM, "r2"))).step is Step.DESTROY_FOREIGN


def facts(node: str, *, shared: bool) -> FenceFacts:
    session = Session(session=2, boot_id="b", machine_id="m", started="", addresses=(f"10.0.0.{node[1]}",))
    claim = share_of(CLAIM, node, SIDE)
    return FenceFacts(
        node=node,
        record=None,
        claims={"web": claim},
        shared=frozenset(CLAIM.disks) if shared else frozenset(),
        fencers=(FencerInfo(id="ceph", method=FenceMethod.CEPH_BLOCKLIST, fsid="f"),),
        session=session,
    )


@pytest.mark.parametrize(("node", "other"), [("r1", "10.0.0.2"), ("r2", "10.0.0.1")])
def test_fencing_one_host_shuts_out_no_client_of_the_other_and_looks_at_no_image_that_it_has_open(
    node: str, other: str
) -> None:
    known = facts(node, shared=True)
    from_intent = _intent(known)
    order = order_of(known, from_intent)
    assert not [client for client in (*order.clients, *order.addresses) if other in client]
    assert [client for client in order.clients if f"10.0.0.{node[1]}:" in client]
    assert order.images == ()
    assert order_of(facts(node, shared=False), from_intent).images == CLAIM.disks


def _intent(known: FenceFacts) -> FenceRecord:
    assert known.session is not None
    step = Intend(cause=FenceCause.SILENT, reason="silent")
    return intent_record(step, known.node, "id", known.session, ["f"], Stamp(at="", epoch=1))


def test_what_a_target_has_not_said_in_this_migration_is_not_its_share() -> None:
    assert share_of(CLAIM, "r2", replace(SIDE, id="earlier")).clients == ()
    assert share_of(CLAIM, "r2", None).clients == ()
    assert share_of(replace(CLAIM, migration=None), "r1", SIDE).clients == CLAIM.clients


def test_a_node_is_not_removed_while_a_guest_is_on_its_way_to_it() -> None:
    assert hosts_of(CLAIM) == ("r1", "r2")
    said, _ = removal_problem("r2", Standing.SILENT, {"web": CLAIM}, {})
    assert "owns web" in said
    assert removal_problem("r2", Standing.SILENT, {"web": without(CLAIM, "r2")}, {}) == ("", "")
