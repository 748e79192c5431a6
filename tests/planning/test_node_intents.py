"""What verbs do to a node's intent, and what is then in force."""

from __future__ import annotations

import pytest

from reconciler.planning.node_intents import (
    BY_MANIFEST,
    InForce,
    NodeRequest,
    NodeVerb,
    apply_node_verb,
    asks_nothing,
    in_force,
    in_this_boot,
)
from reconciler.resources.errors import ConflictError
from reconciler.resources.infrastructure import NodeSpec, ShutdownPolicy
from reconciler.resources.records import NodeIntent

PLAIN = NodeSpec()
CORDONED = NodeSpec(unschedulable=True)
RESTING = NodeSpec(maintenance=True)


def ask(
    verb: NodeVerb,
    spec: NodeSpec = PLAIN,
    intent: NodeIntent | None = None,
    *,
    id: str = "id1",
    bring_back: bool = False,
) -> NodeIntent:
    request = NodeRequest(verb=verb, id=id, now="now", bring_back=bring_back)
    return apply_node_verb(request, "r1", spec, intent or NodeIntent())


def now(spec: NodeSpec, intent: NodeIntent) -> tuple[bool, bool, str]:
    found = in_force(spec, intent)
    return (found.spec.unschedulable, found.spec.maintenance, found.drain)


def test_without_a_verb_the_manifest_counts() -> None:
    assert in_force(PLAIN, NodeIntent()) == InForce(spec=PLAIN)
    assert now(CORDONED, NodeIntent()) == (True, False, "")
    assert now(RESTING, NodeIntent()) == (False, True, BY_MANIFEST)


def test_a_cordon_and_its_opposite_leave_nothing() -> None:
    cordoned = ask(NodeVerb.CORDON)
    assert now(PLAIN, cordoned) == (True, False, "")
    assert cordoned.requested == "now"
    assert asks_nothing(ask(NodeVerb.UNCORDON, PLAIN, cordoned))


def test_an_uncordon_stands_above_the_manifest_until_that_field_changes() -> None:
    free = ask(NodeVerb.UNCORDON, CORDONED)
    assert now(CORDONED, free) == (False, False, "")
    assert now(PLAIN, free) == (False, False, "")
    again = ask(NodeVerb.CORDON)
    assert now(CORDONED, again) == (True, False, "")
    assert asks_nothing(ask(NodeVerb.UNCORDON, PLAIN, ask(NodeVerb.CORDON, CORDONED, free)))


def test_a_drain_cordons_and_an_uncordon_cancels_it() -> None:
    draining = ask(NodeVerb.DRAIN)
    assert now(PLAIN, draining) == (True, False, "id1")
    assert ask(NodeVerb.DRAIN, PLAIN, draining, id="id2") is draining
    assert now(PLAIN, ask(NodeVerb.CORDON, PLAIN, draining)) == (True, False, "id1")
    assert asks_nothing(ask(NodeVerb.UNCORDON, PLAIN, draining))


def test_a_manifest_that_uncordons_ends_the_drain() -> None:
    draining = ask(NodeVerb.DRAIN, NodeSpec(unschedulable=False))
    edited = NodeSpec(unschedulable=True)
    assert now(edited, draining) == (True, False, "")


def test_maintenance_drains_and_outlasts_a_cordon() -> None:
    resting = ask(NodeVerb.MAINTENANCE_ON, PLAIN, ask(NodeVerb.CORDON))
    assert now(PLAIN, resting) == (True, True, "id1")
    with pytest.raises(ConflictError, match="in maintenance") as refused:
        ask(NodeVerb.UNCORDON, PLAIN, resting)
    assert "vcl node maintenance r1 off" in refused.value.cure
    assert now(PLAIN, ask(NodeVerb.MAINTENANCE_OFF, PLAIN, resting)) == (True, False, "")


def test_maintenance_after_a_drain_is_the_same_drain() -> None:
    resting = ask(NodeVerb.MAINTENANCE_ON, PLAIN, ask(NodeVerb.DRAIN), id="id2")
    assert now(PLAIN, resting)[2] == "id1"


def test_maintenance_of_the_manifest_can_be_ended_by_a_verb() -> None:
    over = ask(NodeVerb.MAINTENANCE_OFF, RESTING)
    assert now(RESTING, over) == (False, False, "")
    assert ask(NodeVerb.MAINTENANCE_ON, RESTING) == NodeIntent()


@pytest.mark.parametrize("verb", [NodeVerb.UNCORDON, NodeVerb.MAINTENANCE_OFF])
def test_what_went_comes_back_only_when_asked_and_only_while_nothing_drains(verb: NodeVerb) -> None:
    began = ask(NodeVerb.MAINTENANCE_ON if verb is NodeVerb.MAINTENANCE_OFF else NodeVerb.DRAIN)
    assert not in_force(PLAIN, ask(verb, PLAIN, began)).bring_back
    back = ask(verb, PLAIN, began, bring_back=True)
    assert in_force(PLAIN, back).bring_back
    assert not in_force(PLAIN, ask(NodeVerb.DRAIN, PLAIN, back)).bring_back


def test_a_shutdown_counts_in_the_boot_that_it_was_asked_in_and_ends_with_an_uncordon() -> None:
    def shut(policy: ShutdownPolicy, before: NodeIntent | None = None, id: str = "id1") -> NodeIntent:
        request = NodeRequest(
            verb=NodeVerb.SHUTDOWN, id=id, now="now", policy=policy, timeout_seconds=60, boot_id="boot1"
        )
        return apply_node_verb(request, "r1", PLAIN, before or NodeIntent())

    leaving = shut(ShutdownPolicy.MIGRATE)
    assert now(PLAIN, leaving) == (True, False, "id1")
    assert (in_force(PLAIN, leaving).stops, in_force(PLAIN, leaving).lets_go) == (False, True)
    stopping = shut(ShutdownPolicy.STOP, leaving, "id2")
    assert now(PLAIN, stopping) == (True, False, "id1"), "it is the same shutdown"
    assert (in_force(PLAIN, stopping).stops, in_force(PLAIN, stopping).lets_go) == (True, True)
    frozen = shut(ShutdownPolicy.FREEZE)
    assert now(PLAIN, frozen) == (True, False, "")
    assert (in_force(PLAIN, frozen).stops, in_force(PLAIN, frozen).lets_go) == (True, False)
    assert in_this_boot(frozen, "boot1") == frozen
    assert asks_nothing(in_this_boot(frozen, "boot2"))
    assert asks_nothing(ask(NodeVerb.UNCORDON, PLAIN, frozen))
