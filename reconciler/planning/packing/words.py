"""Reasons for people: why a VM may not be on a node, and why it is where it is.

Invariant: a node is said to be impossible exactly when `State.fits` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.planning.packing.problem import MILLI, NOWHERE, Group, unreachable
from reconciler.planning.packing.state import State
from reconciler.resources.placementconstraint import ConstraintType
from reconciler.resources.quantity import human_bytes

FEW = 12
"""So many nodes are told one by one; of more, those that refuse alike are told together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """Why a node does not take a VM. `alike`: what it is about; `lack`: of this, the least is the nearest."""

    words: str
    alike: str
    lack: float = 0.0


def refusals(state: State, vm: int) -> dict[str, Why]:
    """For each node that does not take the VM (which is nowhere now), why not."""
    found = {}
    for index, node in enumerate(state.problem.nodes):
        why = refusal(state, vm, index)
        if why is not None:
            found[node.name] = why
    return found


def refusal(state: State, vm: int, node: int) -> Why | None:
    """Why it may not be put there; None when it may."""
    problem = state.problem
    demand, host = problem.vms[vm], problem.nodes[node]
    plain = host.refuses or unreachable(demand, host) or _rule(state, vm, node)
    if plain:
        return Why(words=plain, alike=plain)
    if short := _short(state, vm, node):
        return short
    for index in problem.groups_of[vm]:
        if not state.allows(index, node):
            return Why(words=_conflict(state, index, node), alike=problem.groups[index].name)
    if host.name in demand.failed:
        words = demand.failed[host.name].why
        return Why(words=words, alike=words)
    return None


def told(why: Mapping[str, Why]) -> str:
    """In one sentence: each node and why not; when they are many, those alike as one, the nearest named."""
    if not why:
        return "no node has reported yet"
    if len(why) <= FEW:
        return "; ".join(f"{name}: {each.words}" for name, each in sorted(why.items()))
    alike: dict[str, list[tuple[float, str]]] = {}
    for name, each in sorted(why.items()):
        alike.setdefault(each.alike, []).append((each.lack, name))
    parts = []
    for some in sorted(alike.values(), key=lambda some: (len(some), some)):
        nearest = min(some)[1]
        others = f" and {len(some) - 1} more" if len(some) > 1 else ""
        parts.append(f"{nearest}{others}: {why[nearest].words}")
    return "; ".join(parts)


def _rule(state: State, vm: int, node: int) -> str:
    problem = state.problem
    for index in problem.rules_of[vm]:
        rule = problem.rules[index]
        if not rule.weight and not rule.allows[node]:
            return f"{'not among its nodes' if rule.wanted else 'among the nodes to avoid'} ({rule.name})"
    return ""


def _short(state: State, vm: int, node: int) -> Why | None:
    memory, cpu = state.problem.needs_memory[vm], state.problem.needs_cpu[vm]
    free, free_cpu = max(0, state.free_memory[node]), max(0, state.free_cpu[node])
    words, about, lack = [], [], 0.0
    if memory > state.free_memory[node]:
        words.append(f"memory {human_bytes(memory - free)} short ({human_bytes(free)} free)")
        about.append("memory")
        lack += (memory - free) / max(1, memory)
    if cpu > state.free_cpu[node]:
        words.append(f"{(cpu - free_cpu) / MILLI:g} vCPU short ({free_cpu / MILLI:g} free)")
        about.append("vCPU")
        lack += (cpu - free_cpu) / max(1, cpu)
    return Why(words=", ".join(words), alike=" ".join(about), lack=lack) if words else None


def _conflict(state: State, index: int, node: int) -> str:
    group = state.problem.groups[index]
    others = _others(state, group, group.domain[node])
    match group.type:
        case ConstraintType.ANTI_AFFINITY:
            return f"apart from {others[0]} ({group.name})"
        case ConstraintType.AFFINITY:
            there = min((m for m in group.members if state.at[m] != NOWHERE), default=None)
            if there is None:
                return f"is not in a domain to be together in ({group.name})"
            name, place = state.problem.vms[there].name, state.problem.nodes[state.at[there]].name
            return f"together with {name} on {place} ({group.name})"
        case _:
            if group.domain[node] == NOWHERE:
                return f"is not in a domain to be spread over ({group.name})"
            return f"{len(others)} are there already, to be spread evenly ({group.name})"


def _others(state: State, group: Group, domain: int) -> list[str]:
    return [
        state.problem.vms[m].name
        for m in group.members
        if state.at[m] != NOWHERE and group.domain[state.at[m]] == domain
    ]


MANY = 20_000
"""Beyond so many VMs times nodes, it is not counted how many nodes would take a VM."""


class Because:
    """Why VMs go where they go. `to_tell`: how many of them there are."""

    def __init__(self, to_tell: int) -> None:
        self._to_tell = to_tell

    def why(self, state: State, vm: int, node: int) -> str:
        """Why there, for a VM that is nowhere now."""
        problem, words = state.problem, "the least used node that fits"
        if self._to_tell * len(problem.nodes) <= MANY:
            fit = sum(state.fits(vm, each) for each in range(len(problem.nodes)))
            words = f"least used of {fit} nodes that fit" if fit > 1 else "it fits"
        rules = [problem.groups[index].name for index in problem.groups_of[vm]]
        rules += [problem.rules[index].name for index in problem.rules_of[vm]]
        keeps = f", as {', '.join(sorted(rules))} wants it" if rules else ""
        failed = problem.vms[vm].failed
        if problem.nodes[node].name in failed:
            words = f"it failed on every node that fits, and least on {problem.nodes[node].name}"
        past = "; ".join(f"{name}: {each.why}" for name, each in sorted(failed.items()))
        return f"{words}{keeps}; {past}" if past else f"{words}{keeps}"
