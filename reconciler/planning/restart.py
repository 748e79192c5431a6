"""What of a changed spec a running VM takes only at its next start."""

from __future__ import annotations

import dataclasses

from reconciler.resources.codec import camel
from reconciler.resources.virtualmachine import VirtualMachineSpec

_AT_ONCE = frozenset(
    {
        "run_strategy",
        "priority",
        "liveness",
        "termination_grace_period_seconds",
        "eviction_strategy",
        "preemption",
        "start_after",
        "node_selector",
        "tolerations",
        "deletion_policy",
    }
)
_NAMES = {"domain_xml": "domainXML"}


def pending_fields(started: VirtualMachineSpec, wanted: VirtualMachineSpec) -> tuple[str, ...]:
    """The spec fields, as the user writes them, whose change waits for a restart; sorted."""
    pending = []
    for field in dataclasses.fields(VirtualMachineSpec):
        before, after = getattr(started, field.name), getattr(wanted, field.name)
        if field.name in _AT_ONCE or before == after:
            continue
        pending.append(f"spec.{_NAMES.get(field.name, camel(field.name))}")
    return tuple(sorted(pending))
