"""What goes before and after the resuming of a guest that was cut off from its storage.

Invariant: such a guest goes on only after the store itself, not this node's copy of it, has shown that the
claim and the session still stand and no fence does; setting its clock keeps nobody waiting. Likewise a copy
is ended as somebody else's only after the store itself has named the other owner.
"""

from __future__ import annotations

import asyncio
import logging

from reconciler.loops.agent_state import NodeContext
from reconciler.planning.lifecycle import migrates_here
from reconciler.ports.controller import GuestClock
from reconciler.resources import keys
from reconciler.resources.errors import ConflictError, VclError
from reconciler.resources.records import Claim, Session, load

log = logging.getLogger(__name__)


async def still_ours(context: NodeContext, vm: str, revision: int) -> None:
    """`revision` of the claim is what was decided on. Raises ConflictError: look again; StoreError."""
    claim, session, fence = keys.claim(vm), keys.session(context.node), keys.fence(context.node)
    found = await context.views.cache.read([claim, session, fence])
    same = (found[claim].revision if claim in found else 0) == revision
    mine = session in found and load(Session, found[session].value).session == context.session
    if not same or not mine or fence in found:
        raise ConflictError(f"whether {vm} may go on is not clear yet: the records have changed")


async def positively_foreign(context: NodeContext, vm: str, *, lost: bool) -> None:
    """Raises ConflictError unless the store names another owner now (SAFETY rule 9), and StoreError. `lost`:
    a fence has ended this session, which leaves a live migration too."""
    key = keys.claim(vm)
    fresh = (await context.views.cache.read([key])).get(key)
    claim = load(Claim, fresh.value) if fresh is not None else None
    mine = claim is not None and (claim.node == context.node or migrates_here(claim, context.node))
    if claim is None or claim.node == context.node or (mine and not lost):
        raise ConflictError(f"the owner of {vm} changed while it was worked on")


class GuestClocks:
    """Sets the clocks of guests, beside everything else."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    def set(self, vm: str, controller: str) -> None:
        """Begin to; a guest without an agent, or with a slow one, keeps its time."""
        found = self._context.controllers.get(controller)
        guest = found.guest if found is not None else None
        if isinstance(guest, GuestClock):
            task = asyncio.create_task(self._try(guest, vm), name=f"clock {vm}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _try(self, guest: GuestClock, vm: str) -> None:
        try:
            await guest.set_clock(vm, timeout=self._context.deadlines.guest)
        except VclError as error:
            log.info("vm %s: its clock was not set after the pause: %s", vm, error.message)
