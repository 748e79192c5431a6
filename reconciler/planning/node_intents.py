"""What `vcl cordon|uncordon|drain` and `vcl node maintenance|shutdown` do to a node's intent record, and what
is then in force.

Pure, so that the master, the agents, the read model and the simulation agree. Invariants: an intent never
touches the manifest; a verb is cleared by its opposite, and by a later change of the field in the manifest;
asking twice for the same thing changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from reconciler.resources.errors import ConflictError
from reconciler.resources.infrastructure import NodeSpec, ShutdownPolicy
from reconciler.resources.records import NodeIntent, NodeShutdown


class NodeVerb(StrEnum):
    """What a person can ask of a node."""

    CORDON = "cordon"
    UNCORDON = "uncordon"
    DRAIN = "drain"
    MAINTENANCE_ON = "maintenance-on"
    MAINTENANCE_OFF = "maintenance-off"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRequest:
    """`id` is unique and names this request; `now` is wall-clock time; `bring_back`: what went comes back.
    Of a shutdown: by which `policy`, for how long, and which boot of the host it ends."""

    verb: NodeVerb
    id: str
    now: str
    bring_back: bool = False
    policy: ShutdownPolicy = ShutdownPolicy.MIGRATE
    timeout_seconds: int = 300
    boot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InForce:
    """`spec`: the manifest's with what verbs asked for; `drain`: the id of the request by which the node's
    VMs have to go, empty while they may stay; `bring_back`: as asked; `shutdown`: its host goes down."""

    spec: NodeSpec
    drain: str = ""
    bring_back: bool = False
    shutdown: NodeShutdown | None = None

    @property
    def stops(self) -> bool:
        """Whether the node's guests are shut down where they are."""
        return self.shutdown is not None and self.shutdown.policy is not ShutdownPolicy.MIGRATE

    @property
    def lets_go(self) -> bool:
        """Whether VMs that the node does not run (any more) may start elsewhere."""
        return self.shutdown is not None and self.shutdown.policy is not ShutdownPolicy.FREEZE


BY_MANIFEST = "manifest"
"""The id of a drain that the manifest's `maintenance` asks for."""


def in_force(spec: NodeSpec, intent: NodeIntent) -> InForce:
    """What counts now."""
    intent = _standing(spec, intent)
    cordoned = spec.unschedulable if intent.unschedulable is None else intent.unschedulable
    maintenance = spec.maintenance if intent.maintenance is None else intent.maintenance
    drain = (intent.drain or BY_MANIFEST) if maintenance else (intent.drain or "") if cordoned else ""
    shutdown = intent.shutdown
    if shutdown is not None and shutdown.policy is not ShutdownPolicy.FREEZE:
        drain = drain or shutdown.id
    return InForce(
        spec=replace(spec, unschedulable=cordoned or shutdown is not None, maintenance=maintenance),
        drain=drain,
        bring_back=intent.bring_back and not drain,
        shutdown=shutdown,
    )


def in_this_boot(intent: NodeIntent, boot_id: str) -> NodeIntent:
    """Without the shutdown that another boot of the host has ended with."""
    if intent.shutdown is None or intent.shutdown.boot_id == boot_id:
        return intent
    return replace(intent, shutdown=None)


def apply_node_verb(request: NodeRequest, name: str, spec: NodeSpec, intent: NodeIntent) -> NodeIntent:
    """The intent after the verb; equal to `intent` when there is nothing to change.

    Raises ConflictError when the verb makes no sense now: the message says what does.
    """
    changed = _changed(request, name, spec, _standing(spec, intent))
    if replace(changed, requested="") == replace(intent, requested=""):
        return intent
    seen = replace(changed, spec_unschedulable=spec.unschedulable, spec_maintenance=spec.maintenance)
    return replace(seen, requested=request.now)


def asks_nothing(intent: NodeIntent) -> bool:
    """Whether the record asks for nothing, so that its key can go."""
    plain = replace(intent, spec_unschedulable=False, spec_maintenance=False, requested="")
    return plain == NodeIntent()


def _standing(spec: NodeSpec, intent: NodeIntent) -> NodeIntent:
    """Without what a change of the manifest has cleared since."""
    if intent.unschedulable is not None and intent.spec_unschedulable != spec.unschedulable:
        intent = replace(intent, unschedulable=None, drain=intent.drain if intent.maintenance else None)
    if intent.maintenance is not None and intent.spec_maintenance != spec.maintenance:
        intent = replace(intent, maintenance=None, drain=intent.drain if intent.unschedulable else None)
    return intent


def _changed(request: NodeRequest, name: str, spec: NodeSpec, intent: NodeIntent) -> NodeIntent:
    now = in_force(spec, intent)
    cordoned = _over(spec.unschedulable, True)
    match request.verb:
        case NodeVerb.CORDON:
            return replace(intent, unschedulable=cordoned, bring_back=False)
        case NodeVerb.UNCORDON:
            if now.spec.maintenance:
                raise ConflictError(
                    f"node '{name}' is in maintenance",
                    cure=f"`vcl node maintenance {name} off` ends it",
                )
            free = _over(spec.unschedulable, False)
            return replace(
                intent, unschedulable=free, drain=None, shutdown=None, bring_back=request.bring_back
            )
        case NodeVerb.DRAIN:
            if now.drain:
                return intent
            return replace(intent, unschedulable=cordoned, drain=request.id, bring_back=False)
        case NodeVerb.MAINTENANCE_ON:
            if now.spec.maintenance:
                return intent
            on = _over(spec.maintenance, True)
            return replace(intent, maintenance=on, drain=now.drain or request.id, bring_back=False)
        case NodeVerb.MAINTENANCE_OFF:
            off = _over(spec.maintenance, False)
            return replace(intent, maintenance=off, drain=None, bring_back=request.bring_back)
        case NodeVerb.SHUTDOWN:
            return replace(intent, shutdown=_shutdown(request, intent), bring_back=False)


def _shutdown(request: NodeRequest, intent: NodeIntent) -> NodeShutdown:
    """Asked again it is the same one, by the policy that was asked for last."""
    before = in_this_boot(intent, request.boot_id).shutdown
    return NodeShutdown(
        id=before.id if before is not None else request.id,
        policy=request.policy,
        boot_id=request.boot_id,
        timeout_seconds=request.timeout_seconds,
    )


def _over(said: bool, wanted: bool) -> bool | None:
    """What has to stand above the manifest for `wanted` to be so: nothing, when it says that itself."""
    return None if said is wanted else wanted
