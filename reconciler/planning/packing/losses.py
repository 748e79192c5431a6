"""N+1: whether everything would still have a place if any single node were lost.

Invariant: nothing is moved for it but the lost node's VMs, as after a real loss; the state is as before.
"""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.planning.packing.filling import Filler, items_of
from reconciler.planning.packing.state import State


def losses(state: State) -> Iterator[tuple[int, list[int]]]:
    """Each node that has VMs, and those of them that would find no place without it."""
    for node in range(len(state.problem.nodes)):
        if state.on[node]:
            yield node, homeless(state, node)


def homeless(state: State, node: int) -> list[int]:
    """Who would have no place if this node were lost."""
    vms = sorted(state.on[node])
    mark = state.mark()
    for vm in vms:
        state.remove(vm)
    items = items_of(state.problem, vms)
    left = [vm for item in Filler(state, shut=node).fill(items) for vm in item.vms]
    if left:
        state.undo(mark)
        for vm in vms:
            state.remove(vm)
        left = [vm for item in Filler(state, shut=node, pack=True).fill(items) for vm in item.vms]
    state.undo(mark)
    return sorted(left)
