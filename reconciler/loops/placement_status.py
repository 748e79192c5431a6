"""Gathers how the VMs are placed into one value to show, and asks this node's controllers what they have."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from reconciler.loops.assembly import Node
from reconciler.loops.liveness import Liveness
from reconciler.loops.placement_input import read_vm
from reconciler.loops.views import Views
from reconciler.planning.liveness import Standing
from reconciler.planning.node_capacity import refusal, total, usable
from reconciler.planning.placement_view import Here, NodeFacts, PlacementView, VmFacts, placement_view
from reconciler.ports.controller import Controller
from reconciler.resources import keys
from reconciler.resources.domains import Observed
from reconciler.resources.errors import ControllerUnavailable
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Claim
from reconciler.resources.status import MasterStatus, NodeStatus, VmNodeStatus

TIMEOUT = 5.0
"""Seconds that a controller gets to list its domains."""

_COMPARED = (
    keys.CLAIMS,
    f"{keys.NODE_STATUS}{Kind.VIRTUAL_MACHINE}/",
    f"{keys.SPECS}{Kind.VIRTUAL_MACHINE}/",
)


async def placement_of(node: Node, liveness: Liveness) -> PlacementView:
    """The placement as this node sees it now. A controller that does not answer is told as such."""
    moved: set[str] = set()

    def note(changed: frozenset[str]) -> None:
        moved.update(key.removeprefix(p) for key in changed for p in _COMPARED if key.startswith(p))

    undo = node.cache.subscribe(note)
    try:
        here = await _here(node.name, node.begun.cluster.uid, node.ports.controllers)
    finally:
        undo()
    vms, nodes = _vms(node.views, node.ports.clock.wall()), _nodes(node.views, liveness)
    return placement_view(vms, nodes, replace(here, moved=frozenset(moved)))


async def _here(node: str, cluster_uid: str, controllers: Mapping[str, Controller]) -> Here:
    names = sorted(controllers)
    answers = await asyncio.gather(*(_domains(controllers[name]) for name in names))
    found = {d.name: d for answer in answers if isinstance(answer, tuple) for d in answer}
    unknown = {n: answer for n, answer in zip(names, answers, strict=True) if isinstance(answer, str)}
    return Here(node=node, cluster_uid=cluster_uid, domains=found, unknown=unknown)


async def _domains(controller: Controller) -> tuple[Observed, ...] | str:
    """Every domain, or why they cannot be told."""
    try:
        return await controller.lifecycle.inventory(timeout=TIMEOUT)
    except ControllerUnavailable as error:
        return error.message


def _vms(views: Views, now: str) -> list[VmFacts]:
    names = set(views.names(Kind.VIRTUAL_MACHINE))
    names |= {item.key.removeprefix(keys.BINDINGS) for item in views.cache.prefix(keys.BINDINGS)}
    for item in views.cache.prefix(keys.CLAIMS):
        claim = views.record(item.key, Claim)
        if claim is None or claim.node:
            names.add(item.key.removeprefix(keys.CLAIMS))
    power = views.power_on()
    return [_vm(views, name, power_on=power, now=now) for name in sorted(names)]


def _vm(views: Views, name: str, *, power_on: bool, now: str) -> VmFacts:
    kind = Kind.VIRTUAL_MACHINE
    master = views.record(keys.master_status(kind, name), MasterStatus)
    records = read_vm(views, name, power_on=power_on, now=now)
    mine = master is not None and records is not None and master.uid == records.metadata.uid
    return VmFacts(
        name=name,
        exists=views.exists(keys.spec(kind, name)),
        records=records,
        binding=views.binding(name),
        claim=views.claim(name),
        reported=views.record(keys.node_status(kind, name), VmNodeStatus),
        refusal=master.message if mine and master is not None else "",
    )


def _nodes(views: Views, liveness: Liveness) -> list[NodeFacts]:
    """The members in the order of the hierarchy, then who else has reported."""
    lines = {line.name: line for line in liveness.view().nodes}
    prefix = keys.node_status(Kind.NODE, "")
    reported = [item.key.removeprefix(prefix) for item in views.cache.prefix(prefix)]
    found = []
    for name in [*lines, *(name for name in reported if name not in lines)]:
        spec = views.node_in_force(name).spec
        status = views.record(keys.node_status(Kind.NODE, name), NodeStatus)
        line = lines.get(name)
        fenced = "is being fenced" if views.exists(keys.fence(name)) else ""
        found.append(
            NodeFacts(
                name=name,
                standing=line.standing if line is not None else Standing.UNKNOWN.value,
                reason=line.reason if line is not None else "not a member of the cluster",
                usable=usable(spec, status) if status is not None else None,
                total=total(spec, status) if status is not None else None,
                refuses=fenced or (refusal(spec, status) if status is not None else "has not reported yet"),
            )
        )
    return found
