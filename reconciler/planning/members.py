"""Whether a node may be taken out of the cluster's members: only when nothing of it can still be at work."""

from __future__ import annotations

from collections.abc import Mapping

from reconciler.planning.liveness import Standing
from reconciler.planning.migration import hosts_of
from reconciler.resources.records import Binding, Claim


def removal_problem(
    name: str, standing: Standing, claims: Mapping[str, Claim], bindings: Mapping[str, Binding]
) -> tuple[str, str]:
    """Why it may not, and the cure; two empty strings when it may. `claims`, `bindings`: of all VMs."""
    if standing in (Standing.READY, Standing.DEGRADED):
        return (
            f"node '{name}' is {standing.value.lower()}, and would be a member again at its next start",
            f"stop vcld on {name} for good, then delete it on another node",
        )
    owned = sorted(vm for vm, claim in claims.items() if name in hosts_of(claim))
    if owned:
        return (
            f"node '{name}' owns {', '.join(owned)}, which may still run there",
            f"start vcld on {name} again and stop these VMs, or wait until they are fenced",
        )
    bound = sorted(vm for vm, binding in bindings.items() if binding.node == name and vm not in owned)
    if bound:
        return (f"{', '.join(bound)} are to run on node '{name}'", "stop or delete these VMs first")
    return "", ""
