"""Which nodes constraints and nodeSelectors leave to a VM, with or without knowing what nodes there are.

Invariant: a node that is left out here is out for sure. Without knowledge of the nodes only names count, and
any other node may exist; with it, labels count as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reconciler.resources.placementconstraint import ConstraintType, PlacementConstraintSpec
from reconciler.resources.togetherness import NODE

OTHER = ""
"""Stands for any node that nobody has named."""

NodeRule = tuple[str, PlacementConstraintSpec, tuple[str, ...]]
"""Constraint, and the VMs that it selects."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The nodes that one constraint (`rule`), or the nodeSelector of `vm`, allows."""

    rule: str
    vm: str
    nodes: frozenset[str]


class NodeChoices:
    """`hosts`: the labels of all nodes by name; None when they are not known."""

    def __init__(
        self,
        *,
        rules: Sequence[NodeRule],
        selectors: Mapping[str, Mapping[str, str]],
        hosts: Mapping[str, Mapping[str, str]] | None,
    ) -> None:
        self.certain = hosts is None
        self._hosts = None if hosts is None else {n: {NODE: n, **labels} for n, labels in hosts.items()}
        named = {name for _, spec, _ in rules for name in spec.nodes.names}
        self._universe = frozenset(hosts if hosts is not None else {*named, OTHER})
        self._specs = {name: spec for name, spec, _ in rules}
        self._selectors = selectors
        self._of: dict[str, list[Choice]] = {}
        self._reached: dict[tuple[tuple[frozenset[str], ...], str], tuple[frozenset[str], bool]] = {}
        for name, spec, vms in rules:
            choice = Choice(name, "", self._allowed(spec))
            for vm in vms:
                self._of.setdefault(vm, []).append(choice)
        fitting: dict[tuple[tuple[str, str], ...], frozenset[str]] = {}
        for vm, wanted in selectors.items() if hosts is not None else ():
            key = tuple(sorted(wanted.items()))
            if key not in fitting:
                fitting[key] = frozenset(n for n in self._universe if {*key} <= self._labels(n).items())
            self._of.setdefault(vm, []).append(Choice("", vm, fitting[key]))

    def concerned(self) -> list[str]:
        """The VMs that may not go everywhere."""
        return sorted(self._of)

    def of(self, vm: str) -> Sequence[Choice]:
        return self._of.get(vm, ())

    def rules_of(self, vms: Sequence[str]) -> list[str]:
        """The constraints that keep these VMs from nodes."""
        return sorted({c.rule for vm in vms for c in self.of(vm) if c.rule and c.nodes < self._universe})

    def all_places(self, key: str) -> frozenset[str]:
        """The values of a topology key that nodes have."""
        return frozenset(value for node in self._universe if (value := self._value(node, key)) is not None)

    def reached(self, vm: str, key: str) -> frozenset[str]:
        """The values of a topology key at which the VM may be."""
        return self._reach(vm, key)[0]

    def places(self, vm: str, key: str) -> frozenset[str] | None:
        """As `reached`; None when it can always be somewhere that counts as no place of that key."""
        values, elsewhere = self._reach(vm, key)
        return None if elsewhere else values

    def _reach(self, vm: str, key: str) -> tuple[frozenset[str], bool]:
        """The values at which it may be, and whether it may be at a node without one."""
        allowed = tuple(choice.nodes for choice in self.of(vm))
        known = self._reached.get((allowed, key))
        if known is None:
            nodes = self._universe.intersection(*allowed)
            values = [self._value(node, key) for node in nodes]
            found = frozenset(value for value in values if value is not None)
            known = self._reached[allowed, key] = found, OTHER in nodes or None in values
        return known

    def lacking(self, choice: Choice) -> str:
        """What there is none of, for one that no node satisfies: `no node 'r9'`."""
        if choice.vm:
            wanted = ", ".join(f"{key}={value}" for key, value in sorted(self._selectors[choice.vm].items()))
            return f"no node with the labels of its nodeSelector ({wanted})"
        spec = self._specs[choice.rule]
        selector = spec.nodes
        if spec.type is ConstraintType.NODE_ANTI_AFFINITY:
            return "no node besides those that it excludes"
        if selector.names and not (selector.match_labels or selector.match_expressions):
            return "no node " + " or ".join(f"'{name}'" for name in sorted(selector.names))
        return "no node that its selector matches"

    def known_words(self) -> str:
        """Which nodes this was found with."""
        if self.certain:
            return ""
        names = sorted(self._universe)
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return f" (nodes: {', '.join(names[:5])}{more})"

    def _labels(self, node: str) -> Mapping[str, str]:
        assert self._hosts is not None
        return self._hosts[node]

    def _value(self, node: str, key: str) -> str | None:
        if key == NODE:
            return node
        return self._labels(node).get(key) if self._hosts is not None else None

    def _allowed(self, spec: PlacementConstraintSpec) -> frozenset[str]:
        wanted, selector = spec.type is ConstraintType.NODE_AFFINITY, spec.nodes
        if self._hosts is not None:
            return frozenset(n for n in self._universe if selector.matches(n, self._labels(n)) is wanted)
        labelled = selector.match_labels or selector.match_expressions
        if wanted:
            return frozenset(selector.names) if selector.names else self._universe
        return self._universe if labelled else self._universe - frozenset(selector.names)
