"""What the agent reports of a VM: its phase, why, and what the guest tells of itself."""

from __future__ import annotations

from reconciler.loops.agent_changes import possible_changes, started_with
from reconciler.loops.agent_state import NodeContext, VmState
from reconciler.loops.placement_input import cannot_migrate
from reconciler.planning.lifecycle import Decision, VmView
from reconciler.planning.live_changes import obstacles, under_way
from reconciler.planning.restart import never_taken, pending_fields
from reconciler.resources import keys
from reconciler.resources.domains import DomainPhase, Observed
from reconciler.resources.errors import InvalidInput
from reconciler.resources.kinds import Kind
from reconciler.resources.status import (
    Condition,
    ConditionStatus,
    ConditionType,
    Phase,
    VmNodeStatus,
    merge_conditions,
)
from reconciler.resources.virtualmachine import VirtualMachineSpec


def build_status(
    context: NodeContext, view: VmView, state: VmState, decision: Decision, vm: VirtualMachineSpec | None
) -> VmNodeStatus | None:
    """The status to report now, or None when this node has nothing to say about the VM."""
    phase = decision.phase
    if phase is None and state.failures.count and _concerns(view):
        phase = Phase.FAILED
    if phase is None:
        return None
    running = phase in (Phase.RUNNING, Phase.PAUSED, Phase.MIGRATING)
    previous = state.written
    claim = view.claim
    pending, notes = _differences(context, view, vm, state) if running else ((), ())
    message = _message(state, decision, phase, notes)
    conditions = _conditions(view, state, phase, message, pending)
    if running and vm is not None:
        why_not = cannot_migrate(context.views, view.name, vm, context.migrates)
        conditions = (*conditions, _movable(why_not, view.generation))
    old = previous.conditions if previous is not None else ()
    return VmNodeStatus(
        uid=view.uid or (claim.uid if claim is not None else ""),
        node=context.node,
        phase=phase,
        message=message,
        observed_generation=view.generation,
        running_generation=claim.generation if claim is not None and running else 0,
        start_time=state.start_time if running else None,
        restarts=state.restarts,
        ip_addresses=state.guest.ip_addresses if running else (),
        vnc=state.guest.vnc if running else None,
        virtualization=view.observed.virtualization or None if isinstance(view.observed, Observed) else None,
        last_exit=state.last_exit,
        progress=f"{state.progress:.0%}" if state.progress is not None else None,
        disks=state.disks if running else (),
        failures=state.failures,
        conditions=merge_conditions(old, conditions, context.clock.wall()),
    )


def _concerns(view: VmView) -> bool:
    bound = view.binding is not None and view.binding.node == view.node
    return bound or (view.claim is not None and view.claim.node == view.node)


def _message(state: VmState, decision: Decision, phase: Phase, notes: tuple[str, ...]) -> str:
    if phase is Phase.FAILED and not decision.message:
        failures = state.failures
        times = f" ({failures.count} times)" if failures.count > 1 else ""
        return f"{failures.message}{times}; tried again at {failures.retry_time}"
    if phase is Phase.RUNNING:
        return "; ".join((*state.notes, *notes))
    return decision.message


def _differences(
    context: NodeContext, view: VmView, vm: VirtualMachineSpec | None, state: VmState
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Of the spec that it was started with and the wanted one: the fields that wait for a restart, and in
    words what waits, why, and what never comes."""
    try:
        started = started_with(context.views, view.name, view.uid)
    except InvalidInput as error:
        return (f"spec (what it was started with cannot be read: {error.message})",), ()
    if vm is None or started is None or view.claim is None:
        return (), ()
    changes = possible_changes(context, view.name, view.claim, vm)
    coming, hindered = under_way(changes, state.tries), obstacles(changes, state.tries)
    pending = tuple(field for field in pending_fields(started, vm) if field not in coming)
    waiting = [field for field in pending if field not in hindered]
    notes = [f"{', '.join(waiting)} changed: takes effect at the next restart"] if waiting else []
    notes += [f"{field} {hindered[field]}" for field in sorted(hindered) if _shown(field, pending, view)]
    return pending, (*notes, *never_taken(started, vm))


def _shown(field: str, pending: tuple[str, ...], view: VmView) -> bool:
    """A disk that is being taken away while it is wanted again differs from nothing."""
    return field in pending or (view.claim is not None and view.claim.plugging is not None)


def _conditions(
    view: VmView, state: VmState, phase: Phase, message: str, pending: tuple[str, ...]
) -> tuple[Condition, ...]:
    found = [_ready(view, phase, message)]
    agent = state.guest.agent_connected
    if phase is Phase.RUNNING and agent is not None:
        found.append(
            Condition(
                type=ConditionType.AGENT_CONNECTED,
                status=ConditionStatus.TRUE if agent else ConditionStatus.FALSE,
                reason="AgentAnswers" if agent else "NoAgent",
                message="" if agent else "no guest agent answers; is qemu-guest-agent installed?",
                observed_generation=view.generation,
            )
        )
    if pending:
        found.append(
            Condition(
                type=ConditionType.RESTART_REQUIRED,
                status=ConditionStatus.TRUE,
                reason="SpecChanged",
                message=", ".join(pending),
                observed_generation=view.generation,
            )
        )
    if state.failures.count:
        found.append(
            Condition(
                type=ConditionType.FAILED_ON_NODE,
                status=ConditionStatus.TRUE,
                reason=state.failures.reason,
                message=f"{state.failures.message} ({state.failures.count} in a row)",
                observed_generation=view.generation,
            )
        )
    if state.failures.reason == "ImageInUse" and phase not in (Phase.RUNNING, Phase.PAUSED, Phase.MIGRATING):
        found.append(
            Condition(
                type=ConditionType.IMAGE_IN_USE,
                status=ConditionStatus.TRUE,
                reason="ImageInUse",
                message=state.failures.message,
                observed_generation=view.generation,
            )
        )
    return tuple(found)


def _movable(why_not: str, generation: int) -> Condition:
    """LiveMigratable: whether it could be moved while it runs, as far as its own records say."""
    return Condition(
        type=ConditionType.LIVE_MIGRATABLE,
        status=ConditionStatus.FALSE if why_not else ConditionStatus.TRUE,
        reason="CannotMigrate" if why_not else "CanMigrate",
        message=why_not,
        observed_generation=generation,
    )


def _ready(view: VmView, phase: Phase, message: str) -> Condition:
    """Ready: the guest's CPUs run. Whether its services answer is the user's own check."""
    runs = isinstance(view.observed, Observed) and view.observed.phase is DomainPhase.RUNNING
    ready = phase in (Phase.RUNNING, Phase.MIGRATING) and runs
    status = ConditionStatus.TRUE if ready else ConditionStatus.FALSE
    if phase is Phase.UNKNOWN:
        status = ConditionStatus.UNKNOWN
    return Condition(
        type=ConditionType.READY,
        status=status,
        reason=phase.value,
        message="" if ready else message,
        observed_generation=view.generation,
    )


def status_key(name: str) -> str:
    """Where the agent writes the status of the VM called `name`."""
    return keys.node_status(Kind.VIRTUAL_MACHINE, name)
