"""Every timer of the cluster in one table, with the inequalities that keep them safe (DESIGN §10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from reconciler.resources.codec import camel, decode
from reconciler.resources.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Timers:
    """Seconds. Names in manifests and configurations are the camelCase of these."""

    mesh_heartbeat: float = 0.5
    mesh_silent: float = 3.0
    lease_renew: float = 1.0
    lease_silent: float = 4.0
    master_steps_down: float = 3.0
    master_taken: float = 4.0
    master_settle: float = 10.0
    """A better-ranked node must have been fit for so long before mastership is handed to it."""
    isolation: float = 3.0
    storage_grace: float = 15.0
    daemon_grace: float = 120.0
    """0: a node whose host refuses connections is never fenced, only told of."""
    store_deadline: float = 2.0
    resync: float = 30.0


def load_timers(data: Mapping[str, float]) -> Timers:
    """The table with these values replaced. Raises InvalidInput for an unknown name or a broken rule."""
    known = {camel(field.name) for field in fields(Timers)}
    unknown = sorted(set(data) - known)
    if unknown:
        raise InvalidInput(
            f"unknown timer{'s' if len(unknown) > 1 else ''} {', '.join(unknown)}",
            cure=f"the timers are {', '.join(sorted(known))}",
        )
    timers = decode(Timers, data)
    problems = check_timers(timers)
    if problems:
        raise InvalidInput("; ".join(problems), cure="change the timers, or leave them at their defaults")
    return timers


def check_timers(timers: Timers) -> tuple[str, ...]:
    """Every rule that does not hold, in words."""
    rules = [
        (
            timers.mesh_silent >= 5 * timers.mesh_heartbeat,
            "meshSilent must be at least five times meshHeartbeat",
        ),
        (
            timers.lease_silent >= 2 * timers.lease_renew,
            "leaseSilent must be at least twice leaseRenew",
        ),
        (
            timers.master_steps_down < timers.master_taken,
            "masterStepsDown must be less than masterTaken",
        ),
        (timers.isolation < timers.lease_silent, "isolation must be less than leaseSilent"),
        (
            timers.lease_renew < timers.master_steps_down,
            "leaseRenew must be less than masterStepsDown",
        ),
    ]
    found = [why for holds, why in rules if not holds]
    found += [
        f"{camel(field.name)} must be more than 0"
        for field in fields(timers)
        if field.name != "daemon_grace" and _value(timers, field.name) <= 0
    ]
    if timers.daemon_grace < 0:
        found.append("daemonGrace must not be less than 0")
    return tuple(found)


def _value(timers: Timers, name: str) -> float:
    return float(getattr(timers, name))
