"""PlacementConstraint: which VMs belong together, apart, or on which nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class ConstraintType(StrEnum):
    AFFINITY = "Affinity"
    ANTI_AFFINITY = "AntiAffinity"
    NODE_AFFINITY = "NodeAffinity"
    NODE_ANTI_AFFINITY = "NodeAntiAffinity"
    SPREAD = "Spread"


class Enforcement(StrEnum):
    REQUIRED = "Required"
    PREFERRED = "Preferred"


class Operator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One label expression, as in Kubernetes' matchExpressions."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Selects objects by name or by labels; every part given must match. An empty one selects nothing."""

    names: tuple[str, ...] = ()
    match_labels: Mapping[str, str] = field(default_factory=dict)
    match_expressions: tuple[Expression, ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the object called `name` with these labels is selected."""
        if not (self.names or self.match_labels or self.match_expressions):
            return False
        if self.names and name not in self.names:
            return False
        if any(labels.get(key) != value for key, value in self.match_labels.items()):
            return False
        return all(expression.matches(labels) for expression in self.match_expressions)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementConstraintSpec:
    """`weight` (1..100) counts for Preferred only; `max_skew` and `topology_key` for Spread."""

    type: ConstraintType
    enforcement: Enforcement = Enforcement.REQUIRED
    weight: int = 50
    vms: Selector
    nodes: Selector = field(default_factory=Selector)
    topology_key: str = "node"
    max_skew: int = 1
