"""How the VMs are placed, side by side: what the master wants, who owns, what the owner reports, and what is
really there on the node that tells; with words for whatever does not agree.

Invariant: the same snapshot gives the same view, and nothing of it decides anything. What is used of a node
is counted exactly as the master counts it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from reconciler.planning.desired import Wish
from reconciler.planning.lifecycle import migrates_here
from reconciler.planning.liveness import Standing
from reconciler.planning.master import VmRecords, demanded, left_behind, migrating_words, moving
from reconciler.planning.node_capacity import Amount
from reconciler.resources.domains import DomainPhase, Observed
from reconciler.resources.records import Binding, Claim, ClaimPhase
from reconciler.resources.status import Phase, VmNodeStatus


class Agreement(StrEnum):
    """Mismatch: what is wanted, owned, reported and there contradict each other. Unknown: the owner is not
    heard. Unplaced: it is to run, and no node takes it. Changing: on its way."""

    MISMATCH = "Mismatch"
    UNKNOWN = "Unknown"
    UNPLACED = "Unplaced"
    CHANGING = "Changing"
    OK = "OK"


ORDER = tuple(Agreement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """On which node, and in which phase (a claim's or a reported one)."""

    node: str
    phase: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmLine:
    """One VM. `desired`: the node that it is bound to; `local`: the phase of its domain on the node that
    tells, `Unknown` when its hypervisor does not answer, None when there is none."""

    name: str
    desired: str | None = None
    claimed: Held | None = None
    reported: Held | None = None
    local: str | None = None
    state: Agreement = Agreement.OK
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeUse:
    """`used` by VMs that are placed there, `usable` after reserve and overcommit, `total` as the node has it;
    the last two are None before it has reported. `note`: why it takes no new VMs."""

    name: str
    standing: str
    used: Amount
    usable: Amount | None = None
    total: Amount | None = None
    vms: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementView:
    """As `node` sees it: VMs in the order of concern, nodes in that of the hierarchy."""

    node: str
    vms: tuple[VmLine, ...]
    nodes: tuple[NodeUse, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VmFacts:
    """What the store says of one VM. `records` is None when there is no such VM, or it cannot be read
    (`exists` tells which). `refusal`: why the master has not placed it."""

    name: str
    exists: bool = True
    records: VmRecords | None = None
    binding: Binding | None = None
    claim: Claim | None = None
    reported: VmNodeStatus | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One node, in the order of the hierarchy. `reason`: of its standing; `refuses`: new VMs, and why."""

    name: str
    standing: str
    reason: str = ""
    usable: Amount | None = None
    total: Amount | None = None
    refuses: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """What the controllers of this node have. `domains`: by name, of this cluster and others; `unknown`: why
    a controller cannot tell, by its name; `moved`: VMs whose records changed while the controllers were
    asked, so that the two cannot be compared."""

    node: str
    cluster_uid: str
    domains: Mapping[str, Observed] = field(default_factory=dict)
    unknown: Mapping[str, str] = field(default_factory=dict)
    moved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    state: Agreement
    words: str


def placement_view(vms: Sequence[VmFacts], nodes: Sequence[NodeFacts], here: Here) -> PlacementView:
    """Lay it out."""
    by_name = {node.name: node for node in nodes}
    lines = [_vm(vm, by_name, here) for vm in vms]
    known = {vm.name for vm in vms}
    for name, domain in sorted(here.domains.items()):
        if name not in known | here.moved and domain.cluster_uid == here.cluster_uid:
            words = "a domain of this cluster is here, and there is no such virtual machine"
            lines.append(VmLine(name=name, local=domain.phase.value, state=Agreement.MISMATCH, note=words))
    lines.sort(key=lambda line: (ORDER.index(line.state), line.name))
    return PlacementView(node=here.node, vms=tuple(lines), nodes=_uses(vms, nodes))


def _uses(vms: Sequence[VmFacts], nodes: Sequence[NodeFacts]) -> tuple[NodeUse, ...]:
    used: dict[str, tuple[Amount, int]] = {}
    for vm in vms:
        demand = demanded(vm.records) if vm.records is not None else None
        if demand is None or vm.records is None:
            continue
        for each in (demand, *left_behind(vm.records)):
            if each.node is None:
                continue
            before, count = used.get(each.node, (Amount(), 0))
            amount = Amount(cpu=before.cpu + each.cpu, memory=before.memory + each.memory)
            used[each.node] = (amount, count + 1)
    return tuple(
        NodeUse(
            name=node.name,
            standing=node.standing,
            used=used.get(node.name, (Amount(), 0))[0],
            usable=node.usable,
            total=node.total,
            vms=used.get(node.name, (Amount(), 0))[1],
            note=node.reason if node.standing != Standing.READY else node.refuses,
        )
        for node in nodes
    )


def _vm(vm: VmFacts, nodes: Mapping[str, NodeFacts], here: Here) -> VmLine:
    claim = vm.claim if vm.claim is not None and vm.claim.node else None
    uid = vm.records.metadata.uid if vm.records is not None else ""
    binding = vm.binding if vm.binding is not None and (not uid or vm.binding.uid == uid) else None
    told = vm.reported if vm.reported is not None and (not uid or vm.reported.uid == uid) else None
    findings = [*_unreadable(vm), *_local(vm, claim, told, here)]
    if vm.records is not None:
        findings += _owner(vm, vm.records, binding, claim, told, nodes)
    findings.sort(key=lambda finding: ORDER.index(finding.state))
    words = list(dict.fromkeys(finding.words for finding in findings if finding.words))
    return VmLine(
        name=vm.name,
        desired=binding.node if binding is not None else None,
        claimed=Held(node=claim.node, phase=claim.phase.value) if claim is not None else None,
        reported=Held(node=told.node, phase=told.phase.value) if told is not None else None,
        local=_local_word(vm, claim, here),
        state=findings[0].state if findings else Agreement.OK,
        note="; ".join(words),
    )


def _unreadable(vm: VmFacts) -> Iterator[_Finding]:
    if vm.records is None and vm.exists:
        words = "its records in the store cannot be read; nothing is done about it"
        yield _Finding(state=Agreement.MISMATCH, words=words)
    elif vm.records is None:
        words = "there is a record of it, and no such virtual machine"
        yield _Finding(state=Agreement.MISMATCH, words=words)


def _controller(vm: VmFacts, claim: Claim | None) -> str:
    if claim is not None and claim.controller:
        return claim.controller
    return vm.records.spec.controller if vm.records is not None else ""


def _local_word(vm: VmFacts, claim: Claim | None, here: Here) -> str | None:
    if vm.name in here.domains:
        return here.domains[vm.name].phase.value
    return "Unknown" if _controller(vm, claim) in here.unknown else None


def _local(vm: VmFacts, claim: Claim | None, told: VmNodeStatus | None, here: Here) -> Iterator[_Finding]:
    """What is there on this node, against what the records say."""
    domain, mine = here.domains.get(vm.name), claim is not None and claim.node == here.node
    if vm.name in here.moved or (claim is not None and migrates_here(claim, here.node)):
        return
    if domain is None:
        controller = _controller(vm, claim)
        if mine and controller in here.unknown:
            words = f"{here.node} owns it, and cannot tell whether it runs: {here.unknown[controller]}"
            yield _Finding(state=Agreement.UNKNOWN, words=words)
        elif mine and claim is not None and claim.phase is ClaimPhase.RUNNING and _up(told):
            words = f"it is claimed and reported as running on {here.node}, and no domain is there"
            yield _Finding(state=Agreement.MISMATCH, words=words)
        return
    if domain.cluster_uid != here.cluster_uid:
        words = f"a domain of this name is on {here.node} that this cluster did not make; it is left alone"
        yield _Finding(state=Agreement.MISMATCH, words=words)
    elif not mine:
        owner = f"{claim.node} owns it" if claim is not None else "nobody has claimed it"
        words = f"a domain of it is on {here.node}, and {owner}"
        yield _Finding(state=Agreement.MISMATCH, words=words)
    elif told is not None and told.node == here.node and _contradicts(told, domain):
        words = f"it is reported as {told.phase}, and is {domain.phase} on {here.node}"
        yield _Finding(state=Agreement.MISMATCH, words=words)


def _up(told: VmNodeStatus | None) -> bool:
    return told is not None and told.phase in (Phase.RUNNING, Phase.PAUSED)


def _contradicts(told: VmNodeStatus, domain: Observed) -> bool:
    if told.phase is Phase.RUNNING:
        return domain.phase is not DomainPhase.RUNNING
    return told.phase in (Phase.PAUSED, Phase.STOPPED) and domain.phase is DomainPhase.RUNNING


def _owner(
    vm: VmFacts,
    records: VmRecords,
    binding: Binding | None,
    claim: Claim | None,
    told: VmNodeStatus | None,
    nodes: Mapping[str, NodeFacts],
) -> Iterator[_Finding]:
    """What is wanted, against who owns it and what that node says."""
    wish = records.desired.wish
    concerned = claim.node if claim is not None else binding.node if binding is not None else ""
    if words := migrating_words(records):
        yield _Finding(state=Agreement.CHANGING, words=words)
    elif claim is not None and binding is not None and moving(records):
        why = f" ({binding.reason})" if binding.reason else ""
        words = f"{claim.node} still owns it; {binding.node} starts it once it has been let go{why}"
        yield _Finding(state=Agreement.CHANGING, words=words)
    elif claim is not None and binding is not None and claim.node != binding.node:
        words = f"{claim.node} still owns it; {binding.node} starts it once it has been let go"
        yield _Finding(state=Agreement.MISMATCH, words=words)
    if concerned:
        yield from _absent(concerned, nodes)
    if wish is not Wish.RUN:
        yield from _ending(records, binding, claim, told)
    elif claim is not None:
        yield from _running(claim, told)
    elif binding is not None:
        yield from _bound(binding, told)
    else:
        words = vm.refusal or "the master has not placed it yet"
        yield _Finding(state=Agreement.UNPLACED, words=words)


def _absent(name: str, nodes: Mapping[str, NodeFacts]) -> Iterator[_Finding]:
    node = nodes.get(name)
    if node is None:
        yield _Finding(state=Agreement.UNKNOWN, words=f"{name} is not a member of the cluster")
    elif node.standing != Standing.READY:
        words = f"{name} is {node.standing} ({node.reason}): what it reported may be old"
        yield _Finding(state=Agreement.UNKNOWN, words=words)


def _ending(
    records: VmRecords, binding: Binding | None, claim: Claim | None, told: VmNodeStatus | None
) -> Iterator[_Finding]:
    reason = records.desired.reason
    if claim is not None:
        said = f" ({told.message})" if told is not None and told.message else ""
        words = f"{claim.node} is to stop it: {reason}{said}"
        yield _Finding(state=Agreement.CHANGING, words=words)
    elif records.desired.wish is Wish.DELETED:
        yield _Finding(state=Agreement.CHANGING, words=f"being deleted: {reason}")
    elif binding is not None:
        yield _Finding(state=Agreement.CHANGING, words=f"the master is to unbind it: {reason}")
    else:
        yield _Finding(state=Agreement.OK, words=reason)


def _running(claim: Claim, told: VmNodeStatus | None) -> Iterator[_Finding]:
    if told is None or told.node != claim.node:
        words = f"{claim.node} has not reported on it since it claimed it"
        yield _Finding(state=Agreement.CHANGING, words=words)
    elif told.phase is Phase.FAILED:
        yield _Finding(state=Agreement.MISMATCH, words=f"{told.node} cannot run it: {told.message}")
    elif told.phase is Phase.UNKNOWN:
        words = f"{told.node} does not know how it is: {told.message}"
        yield _Finding(state=Agreement.UNKNOWN, words=words)
    elif told.phase not in (Phase.RUNNING, Phase.PAUSED):
        words = f"{told.phase}: {told.message}" if told.message else f"{told.phase} on {told.node}"
        yield _Finding(state=Agreement.CHANGING, words=words)
    else:
        yield _Finding(state=Agreement.OK, words=told.message)


def _bound(binding: Binding, told: VmNodeStatus | None) -> Iterator[_Finding]:
    if told is not None and told.node == binding.node and told.phase is Phase.FAILED:
        yield _Finding(state=Agreement.MISMATCH, words=f"{told.node} cannot start it: {told.message}")
    else:
        yield _Finding(state=Agreement.CHANGING, words=f"{binding.node} has not claimed it yet")
