"""What the daemon sets beside a node's loops: a person's word on its way to the store, the tree of status."""

from __future__ import annotations

from reconciler.loops.assembly import Node
from reconciler.loops.confirmations import Confirmations
from reconciler.loops.liveness import Liveness
from reconciler.loops.status_tree import StatusTreeLoop
from reconciler.planning.confirming import Witness
from reconciler.resources import keys
from reconciler.resources.records import Claim
from vcld.parts import CLOCK


def confirmations(node: Node) -> Confirmations:
    """By which a person's word reaches the store, with what this node sees as the check of it."""

    def witness() -> Witness:
        seen = node.membership
        return Witness(me=node.name, sights=seen.sights(), ran_for=seen.ran_for())

    return Confirmations(node.views, node.writer, CLOCK, node.ports.timers, witness, node.events.record)


def status_tree(node: Node, liveness: Liveness) -> StatusTreeLoop:
    """The tree with what this node sees of the others, in place of the one that knows the store only."""
    tree = StatusTreeLoop(node.cache, node.ports.status, CLOCK, merge=liveness.merged)

    def changed(names: frozenset[str]) -> None:
        claims = {item.key: node.views.record(item.key, Claim) for item in node.cache.prefix(keys.CLAIMS)}
        theirs = {key for key, claim in claims.items() if claim is not None and claim.node in names}
        tree.mark(frozenset(keys.member(name) for name in names) | theirs)

    liveness.subscribe(changed)
    return tree
