"""Contradictory constraints as findings in the documents that make them, each of which names the others.

Invariant: what no node can ever satisfy is an error in every constraint that takes part; what only follows
from the nodes that there are now is a warning, since a node may come with the next file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reconciler.resources.codec import decode
from reconciler.resources.contradictions import Contradiction, Guest, Hosts, Rule, contradictions
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document
from reconciler.resources.placementconstraint import PlacementConstraintSpec
from reconciler.resources.problems import Finding, Path, Severity

Found = tuple[Document, Finding]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """A contradiction. `parties`: the constraints and VMs (by their nodeSelector) that make it; `waiting`:
    the VMs that cannot be placed because of it."""

    what: Contradiction
    parties: tuple[Document, ...]
    waiting: tuple[Document, ...]

    def findings(self) -> Iterator[Found]:
        """For each party."""
        severity = Severity.ERROR if self.what.certain else Severity.WARNING
        for party in self.parties:
            others = [other for other in self.parties if other is not party]
            head = f"contradicts {_and(others)}" if others else "cannot be kept"
            message = f"{head}: {self._words()}"
            yield party, Finding(path=_place(party), message=message, severity=severity)

    def _words(self) -> str:
        return f"{self.what.why}; not all of these VMs can be placed: {self.what.cure}"

    def remarks(self) -> Iterator[Found]:
        """For each VM that waits, and is no party."""
        for vm in self.waiting:
            if vm not in self.parties:
                message = f"cannot be placed because of {_and(self.parties)}: {self._words()}"
                yield vm, Finding(path=("metadata", "name"), message=message, severity=Severity.WARNING)


def clashes(documents: Iterable[Document], hosts: Hosts | None) -> tuple[Clash, ...]:
    """All contradictions between valid documents. `hosts`: the nodes besides those that the documents define,
    with their labels; None when it is not known which there are."""
    by_kind: dict[Kind, dict[str, Document]] = {kind: {} for kind in Kind}
    for document in documents:
        by_kind[document.kind].setdefault(document.name, document)
    rules, vms = by_kind[Kind.PLACEMENT_CONSTRAINT], by_kind[Kind.VIRTUAL_MACHINE]
    if not rules and not any(vm.spec.get("nodeSelector") for vm in vms.values()):
        return ()
    found = contradictions(
        [Rule(name=d.name, spec=decode(PlacementConstraintSpec, d.spec)) for d in rules.values()],
        [_guest(d) for d in vms.values()],
        _all_hosts(by_kind[Kind.NODE].values(), hosts),
    )
    return tuple(
        Clash(
            what=each,
            parties=(*(rules[name] for name in each.rules), *(vms[name] for name in each.selectors)),
            waiting=tuple(vms[name] for name in each.vms),
        )
        for each in found
    )


def _guest(document: Document) -> Guest:
    selector = document.spec.get("nodeSelector")
    pairs = selector.items() if isinstance(selector, Mapping) else ()
    chosen = {str(key): str(value) for key, value in pairs}
    return Guest(name=document.name, labels=document.labels, node_selector=chosen)


def _all_hosts(nodes: Iterable[Document], hosts: Hosts | None) -> Hosts | None:
    """Nodes need no manifest, so that those which have one say nothing of which others there are."""
    return None if hosts is None else {**hosts, **{node.name: node.labels for node in nodes}}


def _place(document: Document) -> Path:
    return ("spec", "type") if document.kind is Kind.PLACEMENT_CONSTRAINT else ("spec", "nodeSelector")


def _and(documents: Sequence[Document]) -> str:
    words = [f"{d.kind} {d.name!r} ({d.file}:{d.line})" for d in documents]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
