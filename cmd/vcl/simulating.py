"""A simulation's input: manifests and CSV files, read on this side. No daemon is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from reconciler.planning.headroom import Cluster
from reconciler.planning.offline import Simulated, cluster_of
from reconciler.planning.offline_csv import nodes_of_csv, vms_of_csv
from reconciler.planning.placement import NodeView, VmDemand
from reconciler.resources.codec import encode
from reconciler.resources.contradictions import Guest, Rule, contradictions
from reconciler.resources.errors import InvalidInput
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import Document
from reconciler.resources.problems import Severity, render, summary
from reconciler.resources.suggest import hint
from vcl.inputs import Input, read_inputs
from vcl.manifests import ADVICE, read_files
from vcl.session import warn

CSV = ".csv"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    manifests: tuple[Input, ...]
    tables: tuple[Input, ...]


def read_cluster(nodes: Sequence[str], vms: Sequence[str], *, recursive: bool) -> Cluster:
    """Everything that is to be placed. Prints what is odd in manifests; raises InvalidInput for what is
    wrong. Constraints that contradict each other are told, and placed with all the same."""
    where, what = _read(nodes, recursive=recursive), _read(vms, recursive=recursive)
    hosts = [node for table in where.tables for node in nodes_of_csv(table.name, table.text())]
    guests = [vm for table in what.tables for vm in vms_of_csv(table.name, table.text())]
    everything = {item.name: item for item in (*where.manifests, *what.manifests)}
    files = read_files(everything.values())
    documents = [document for file in files for document in file.documents]
    problems = [problem for file in files for problem in file.problems]
    for problem in problems:
        print(render(problem), file=sys.stderr)
    if any(problem.severity is Severity.ERROR for problem in problems):
        raise InvalidInput(summary(problems), cure=ADVICE)
    cluster = cluster_of(documents, hosts, guests)
    _require(cluster)
    _tell_contradictions(cluster, {d.name: d for d in documents if d.kind is Kind.PLACEMENT_CONSTRAINT})
    return cluster


def _tell_contradictions(cluster: Cluster, written: Mapping[str, Document]) -> None:
    rules = [Rule(name=each.name, spec=each.spec) for each in cluster.constraints]
    guests = [Guest(name=vm.name, labels=vm.labels, node_selector=vm.node_selector) for vm in cluster.vms]
    for found in contradictions(rules, guests, {node.name: node.labels for node in cluster.nodes}):
        parties = [f"{name} ({written[name].file}:{written[name].line})" for name in found.rules]
        parties += [f"the nodeSelector of {name}" for name in found.selectors]
        verb = "cannot be kept" if len(parties) == 1 else "contradict each other"
        warn(f"{' and '.join(parties)} {verb}: {found.why}; {found.cure}")


def hosts_of(names: Sequence[str], *, recursive: bool) -> dict[str, Mapping[str, str]]:
    """The labels of every node that these files define. Raises InvalidInput when there are none."""
    read = _read(names, recursive=recursive)
    found = {n.name: n.labels for table in read.tables for n in nodes_of_csv(table.name, table.text())}
    documents = (document for file in read_files(read.manifests) for document in file.documents)
    found |= {document.name: document.labels for document in documents if document.kind is Kind.NODE}
    if not found:
        raise InvalidInput("there are no nodes in --nodes", cure="name Node manifests or a CSV file")
    return found


def _read(names: Sequence[str], *, recursive: bool) -> _Read:
    others = [name for name in names if not name.endswith(CSV)]
    return _Read(
        manifests=read_inputs(others, recursive=recursive).all() if others else (),
        tables=tuple(_table(name) for name in names if name.endswith(CSV)),
    )


def _table(name: str) -> Input:
    """A CSV file, which may be larger than a manifest."""
    try:
        return Input(name=name, data=Path(name).read_bytes())
    except OSError as error:
        raise InvalidInput(
            f"cannot read {name}: {error.strerror}", cure="check the path and the rights"
        ) from error


def _require(cluster: Cluster) -> None:
    """InvalidInput when there are no nodes, or a name is there twice."""
    if not cluster.nodes:
        raise InvalidInput("there are no nodes", cure="name Node manifests or a CSV file with --nodes")
    named: Sequence[tuple[Kind, Sequence[NodeView] | Sequence[VmDemand]]] = (
        (Kind.NODE, cluster.nodes),
        (Kind.VIRTUAL_MACHINE, cluster.vms),
    )
    for kind, things in named:
        names = sorted(thing.name for thing in things)
        twice = next((one for one, other in pairwise(names) if one == other), None)
        if twice is not None:
            raise InvalidInput(f"{kind} '{twice}' is there twice", cure="give each a name of its own")


def require_nodes(cluster: Cluster, names: Iterable[str]) -> None:
    """Raises InvalidInput for a node that is not there."""
    known = {node.name for node in cluster.nodes}
    for name in sorted(names):
        if name not in known:
            raise InvalidInput(f"there is no node '{name}'{hint(name, known)}", cure="name one of --nodes")


def as_json(simulated: Simulated) -> dict[str, Any]:
    """With its lists, also those that are empty; without `losses` when they were not looked for."""
    looked: dict[str, Any] = {} if simulated.losses is None else {"losses": []}
    return {"changes": [], "waiting": [], "nodes": [], **looked, **encode(simulated)}
