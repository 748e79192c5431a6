"""One VM under work, and the writing of its claim, compared with the one decided on (SAFETY rule 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.loops.agent_holders import holders_of
from reconciler.loops.agent_state import NodeContext, VmState
from reconciler.loops.writer import conflicts
from reconciler.planning.lifecycle import VmView
from reconciler.ports.controller import ResourceController
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, ImageInUse
from reconciler.resources.records import Claim, SpecRecord, dump
from reconciler.resources.virtualmachine import VirtualMachineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One VM under work: its name, the view that was decided on, and its objects (None when unreadable)."""

    name: str
    view: VmView
    state: VmState
    record: SpecRecord | None
    vm: VirtualMachineSpec | None
    controller: ResourceController


async def commit_claim(
    context: NodeContext,
    job: Job,
    claim: Claim,
    *,
    compares: Mapping[str, int] | None = None,
    puts: Mapping[str, bytes] | None = None,
    deletes: tuple[str, ...] = (),
) -> None:
    """Write the claim, compared with the one decided on, and with this daemon's session. Raises ImageInUse,
    ConflictError, StoreError."""
    key = keys.claim(job.name)
    result = await context.writer.commit(
        compares={key: claim_revision(context, job), **(compares or {})},
        puts={key: dump(claim), **(puts or {})},
        deletes=deletes,
        guards=(keys.SCHEMA, keys.session(context.node)),
    )
    lost = conflicts(result)
    if any(key.startswith(keys.DISKS) for key in lost):
        raise ImageInUse(
            f"its image is held by another VM or operation: {await holders_of(context, lost)}",
            cure="stop the other one, or give this VM an image of its own",
        )
    if lost:
        raise ConflictError(f"the claim of {job.name} was decided on an old state: {', '.join(lost)}")


def claim_revision(context: NodeContext, job: Job) -> int:
    """The revision at which the view's claim was read; a change since then is a ConflictError."""
    revision = context.views.cache.revision_of(keys.claim(job.name))
    current = context.views.claim(job.name)
    if current != job.view.claim:
        raise ConflictError(f"the claim of {job.name} changed while it was worked on")
    return revision
