"""Who has an image that a VM was to get: for the words of a refusal, never for a decision."""

from __future__ import annotations

import logging

from reconciler.loops.agent_disks import DiskWork
from reconciler.loops.agent_state import NodeContext
from reconciler.resources import keys
from reconciler.resources.errors import ImageInUse, StartFailed, VclError
from reconciler.resources.records import DiskClaim, SpecRecord, load
from reconciler.resources.virtualmachine import VirtualMachineSpec

log = logging.getLogger(__name__)


async def holders_of(context: NodeContext, lost: tuple[str, ...]) -> str:
    """Who has the `disk/` keys among these that were asked for, past this node's copy: what won may be newer
    than that. Raises StoreError."""
    found = []
    fresh = await context.views.cache.read(lost)
    for key in sorted(fresh):
        if key.startswith(keys.DISKS):
            holder = load(DiskClaim, fresh[key].value)
            who = holder.operation or f"VM {holder.vm}"
            found.append(f"{key.removeprefix(keys.DISKS)} by {who} on {holder.node}")
    return "; ".join(found) or ", ".join(lost)


async def why_not(
    disks: DiskWork, objects: tuple[SpecRecord | None, VirtualMachineSpec | None], error: StartFailed
) -> VclError:
    """The error of a start, or a clearer one when somebody else has an image of the VM open."""
    record, vm = objects
    if record is None or vm is None:
        return error
    try:
        holders = await disks.holders(record, vm)
    except VclError as unknown:
        log.debug("vm %s: who holds its images is not known: %s", record.metadata.name, unknown)
        return error
    if not holders:
        return error
    return ImageInUse(
        f"its image is open elsewhere: {'; '.join(holders)} ({error.message})",
        cure="end that process, or give this VM an image of its own",
    )
