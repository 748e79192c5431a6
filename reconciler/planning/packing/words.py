"""Reasons for people: why a VM may not be on a node, and why it is where it is.

Invariant: a node is said to be impossible exactly when `State.fits` says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from reconciler.planning.packing.problem import MILLI, NOWHERE, Group, obstacles
from reconciler.planning.packing.state import State
from reconciler.resources.placementconstraint import ConstraintType
from reconciler.resources.quantity import human_bytes

FEW = 12
"""So many nodes are told one by one; of more, those that refuse alike are told together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """All that keeps a node from taking a VM. `alike`: what the first of it is about; `lack`: of those alike,
    the least is the nearest."""

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
    """Why it may not be put there, what is hardest to change first: what the node and the VM are, rules about
    nodes, other VMs, room, failures of the past. None when it may."""
    problem = state.problem
    demand, host = problem.vms[vm], problem.nodes[node]
    plain = [*([host.refuses] if host.refuses else ()), *obstacles(demand, host), *_rules(state, vm, node)]
    found = [(words, words) for words in plain]
    if problem.cpu[node] or problem.memory[node]:  # else nothing is known of it
        against = (index for index in problem.groups_of[vm] if not state.allows(index, node))
        found += [(_conflict(state, index, node), problem.groups[index].name) for index in against]
        found += _short(state, vm, node)
    if host.name in demand.failed:
        found.append((demand.failed[host.name].why, demand.failed[host.name].why))
    if not found:
        return None
    lack = len(found) - 1 + _lack(state, vm, node)
    return Why(words=", ".join(words for words, _ in found), alike=found[0][1], lack=lack)


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


def _rules(state: State, vm: int, node: int) -> Iterator[str]:
    problem = state.problem
    for index in problem.rules_of[vm]:
        rule = problem.rules[index]
        if not rule.weight and not rule.allows[node]:
            yield f"{'not among its nodes' if rule.wanted else 'among the nodes to avoid'} ({rule.name})"


def _short(state: State, vm: int, node: int) -> list[tuple[str, str]]:
    memory, cpu = state.problem.needs_memory[vm], state.problem.needs_cpu[vm]
    free, free_cpu = max(0, state.free_memory[node]), max(0, state.free_cpu[node])
    found = []
    if memory > state.free_memory[node]:
        found.append((f"memory {human_bytes(memory - free)} short ({human_bytes(free)} free)", "memory"))
    if cpu > state.free_cpu[node]:
        found.append((f"{(cpu - free_cpu) / MILLI:g} vCPU short ({free_cpu / MILLI:g} free)", "vCPU"))
    return found


def _lack(state: State, vm: int, node: int) -> float:
    """Of what it needs, the parts that the node has not, as a number below 1."""
    memory, cpu = state.problem.needs_memory[vm], state.problem.needs_cpu[vm]
    lack_memory = max(0, memory - max(0, state.free_memory[node])) / max(1, memory)
    return (lack_memory + max(0, cpu - max(0, state.free_cpu[node])) / max(1, cpu)) / 2.01


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
