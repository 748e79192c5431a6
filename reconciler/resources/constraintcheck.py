"""Finds Required constraints that cannot all be kept, whatever the nodes: a warning before anything waits.

Only contradictions that show in the constraints themselves are looked for; what capacity or labels of nodes
forbid, the placement says.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

from reconciler.resources.codec import decode
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document
from reconciler.resources.placementconstraint import ConstraintType, Enforcement, PlacementConstraintSpec
from reconciler.resources.problems import Finding, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """A Required constraint, and the names of the VMs that it selects."""

    document: Document
    spec: PlacementConstraintSpec
    vms: frozenset[str]

    @property
    def nodes(self) -> frozenset[str] | None:
        """The nodes it names; None when they are (also) selected by labels."""
        selector = self.spec.nodes
        labelled = selector.match_labels or selector.match_expressions
        return None if labelled else frozenset(selector.names)


def contradictions(documents: Iterable[Document]) -> Iterator[tuple[Document, Finding]]:
    """Each pair of contradicting constraints, as a warning in both. The documents must be valid."""
    everything = list(documents)
    vms = [d for d in everything if d.kind is Kind.VIRTUAL_MACHINE]
    rules: dict[ConstraintType, list[_Rule]] = defaultdict(list)
    for document in everything:
        if document.kind is Kind.PLACEMENT_CONSTRAINT:
            rule = _rule(document, vms)
            if rule.spec.enforcement is Enforcement.REQUIRED:
                rules[rule.spec.type].append(rule)
    for together in rules[ConstraintType.AFFINITY]:
        for apart in rules[ConstraintType.ANTI_AFFINITY]:
            both = sorted(together.vms & apart.vms)
            if len(both) > 1:
                yield from _warn(together, apart, f"{both[0]} and {both[1]} must share a node and must not")
    yield from _node_contradictions(rules)


def _node_contradictions(
    rules: dict[ConstraintType, list[_Rule]],
) -> Iterator[tuple[Document, Finding]]:
    on = [rule for rule in rules[ConstraintType.NODE_AFFINITY] if rule.nodes]
    off = [rule for rule in rules[ConstraintType.NODE_ANTI_AFFINITY] if rule.nodes]
    for one, other in combinations(on, 2):
        if one.vms & other.vms and not (one.nodes or frozenset()) & (other.nodes or frozenset()):
            yield from _warn(one, other, f"no node satisfies both for {min(one.vms & other.vms)}")
    for one in on:
        for other in off:
            if one.vms & other.vms and (one.nodes or frozenset()) <= (other.nodes or frozenset()):
                yield from _warn(one, other, f"no node satisfies both for {min(one.vms & other.vms)}")


def _rule(document: Document, vms: Iterable[Document]) -> _Rule:
    spec = decode(PlacementConstraintSpec, document.spec)
    selected = frozenset(vm.name for vm in vms if spec.vms.matches(vm.name, vm.labels))
    return _Rule(document=document, spec=spec, vms=selected)


def _warn(one: _Rule, other: _Rule, why: str) -> Iterator[tuple[Document, Finding]]:
    for rule, against in ((one, other), (other, one)):
        where = f"{against.document.name!r} ({against.document.file}:{against.document.line})"
        message = f"contradicts PlacementConstraint {where}: {why}; VMs will stay unscheduled"
        yield (
            rule.document,
            Finding(path=("spec", "type"), message=message, severity=Severity.WARNING),
        )
