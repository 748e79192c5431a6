"""Stopping what runs for what matters more: only for a VM that asks for it, only VMs of lower priority.

Invariants: victims have a lower priority than the VM, and are as few and as low as one node allows; while a
VM is being stopped on a node whose room will do, no other one is stopped.
"""

from __future__ import annotations

from reconciler.planning.packing.state import State


def evict(state: State, vm: int) -> list[int]:
    """Put the VM where the fewest, lowest ones have to go for it; who they are. None, and the VM stays
    nowhere, when no node has enough of them, or when waiting for who is already going is enough."""
    problem = state.problem
    best: tuple[tuple[int, ...], int, list[int]] | None = None
    for node, takes in enumerate(problem.open):
        if not takes or not problem.reachable[problem.kind[vm]][node]:
            continue
        victims = _victims(state, vm, node)
        if victims is None:
            continue
        going = all(problem.vms[v].going for v in victims)
        lowest = sorted((problem.vms[v].priority for v in victims), reverse=True)
        memory = sum(problem.needs_memory[v] for v in victims)
        cost = (not going, *lowest[:1], len(victims), sum(lowest), memory)
        if best is None or (cost, node) < best[:2]:
            best = (cost, node, victims)
    if best is None:
        return []
    _, node, victims = best
    for victim in victims:
        state.remove(victim)
    state.add(vm, node)
    return victims


def _victims(state: State, vm: int, node: int) -> list[int] | None:
    """Who has to go from the node, the lowest first; none that need not. None: even all are not enough."""
    problem = state.problem
    mine = problem.vms[vm].priority
    mark = state.mark()
    lower = sorted(
        (v for v in state.on[node] if problem.vms[v].priority < mine and problem.at[v] == node),
        key=lambda v: (not problem.vms[v].going, problem.vms[v].priority, -problem.needs_memory[v], v),
    )
    gone: list[int] = []
    for victim in lower:
        if state.fits(vm, node):
            break
        state.remove(victim)
        gone.append(victim)
    found: list[int] | None = None
    if state.fits(vm, node):
        for victim in list(reversed(gone)):  # one that came first may turn out not to be needed
            state.add(victim, node)
            if state.fits(vm, node):
                gone.remove(victim)
            else:
                state.remove(victim)
        found = gone
    state.undo(mark)
    return found
