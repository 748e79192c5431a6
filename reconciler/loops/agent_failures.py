"""What failed on this node: counted, backed off from, shown, and forgotten after a success or a `retry`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from reconciler.loops.agent_state import NodeContext, VmState
from reconciler.loops.agent_status import status_key
from reconciler.planning.backoff import delay
from reconciler.planning.failures import counted, later
from reconciler.planning.hangs import Watch
from reconciler.planning.lifecycle import Memory
from reconciler.resources import keys
from reconciler.resources.domains import ExitReason, Gone, GuestInfo
from reconciler.resources.errors import DiskError, StartFailed, VclError
from reconciler.resources.failures import FailureRecord, Failures
from reconciler.resources.kinds import Kind
from reconciler.resources.records import Claim, ClaimPhase, EventType, Intent, dump
from reconciler.resources.status import VmNodeStatus

log = logging.getLogger(__name__)

STABLE_AFTER = 60.0
"""A run of this many seconds may end in order without being a failure."""

FORGIVEN_AFTER = 600.0
"""A run of this many seconds is a success: the failures before it are forgotten."""

_ENDS = {
    ExitReason.CRASHED: ("QemuCrashed", "its QEMU process died"),
    ExitReason.FAILED: ("QemuCrashed", "its QEMU process failed"),
    ExitReason.PANICKED: ("GuestPanicked", "the guest's kernel panicked"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Of the store: to be part of a transaction."""

    puts: Mapping[str, bytes] = field(default_factory=dict)
    deletes: tuple[str, ...] = ()


def restore(context: NodeContext, name: str, state: VmState, intent: Intent) -> None:
    """At the first look after the daemon's start, take over what was reported before; honour a `retry`."""
    if not state.loaded:
        state.loaded = True
        state.reset_id = intent.reset_failures
        before = context.views.record(status_key(name), VmNodeStatus)
        if before is not None and before.node == context.node:
            state.written = before
            state.restarts = before.restarts
            state.last_exit = before.last_exit
            state.start_time = before.start_time
        state.failures = context.views.failures(name, context.clock.wall()).get(context.node, Failures())
    if intent.reset_failures != state.reset_id:
        state.reset_id = intent.reset_failures
        state.failures = Failures()
        state.memory = replace(state.memory, retry_at=0.0)


def take_over(context: NodeContext, name: str, state: VmState, claim: Claim | None) -> None:
    """A guest that came by live migration: its run goes on, and what is told of it."""
    if claim is None or claim.node != context.node or claim.phase is not ClaimPhase.RUNNING:
        return
    before = context.views.record(status_key(name), VmNodeStatus)
    if before is not None and before.node != context.node and before.uid == claim.uid:
        state.start_time, state.restarts = before.start_time, before.restarts
        state.last_exit = before.last_exit


def note_generation(state: VmState, generation: int) -> None:
    """A spec that changed since the last failure is tried at once: it may be the correction."""
    if state.generation not in (0, generation):
        state.memory = replace(state.memory, retry_at=0.0)
        state.failures = Failures()
    state.generation = generation


def note_failure(context: NodeContext, name: str, state: VmState, error: VclError) -> None:
    """Count a failed attempt and set the earliest next one."""
    reason = error.reason if isinstance(error, (DiskError, StartFailed)) else type(error).__name__
    _fail(context, name, state, reason, str(error))
    state.memory = replace(state.memory, prepared=None)


def note_exit(context: NodeContext, name: str, state: VmState, gone: Gone | None, wanted: bool) -> None:
    """A run has ended. An end that nobody asked for, soon after the start or by a crash, is a failure."""
    exit = gone.exit if gone is not None else ExitReason.UNKNOWN
    asked = state.killed or state.memory.stop_since is not None
    lived = 0.0
    if state.running_since is not None:
        lived = context.clock.monotonic() - state.running_since
    state.running_since = None
    state.start_time = None
    state.killed = False
    ending, state.ending = state.ending, None
    state.watch = Watch()
    state.memory = Memory(retry_at=state.memory.retry_at)
    if not wanted:
        state.failures = Failures()
        return
    if asked:
        return
    state.restarts += 1
    if ending is None and exit is ExitReason.SHUTDOWN and lived >= STABLE_AFTER:
        return
    reason, what = _ENDS.get(exit, ("GuestExited", f"the guest ended by itself ({exit})"))
    if ending:
        reason, what = ending
    _fail(context, name, state, reason, f"{what} after {lived:.0f} s")


def note_reboot(name: str, state: VmState, wanted: bool) -> None:
    """A run has ended with its host, which has booted since: that is no failure of the VM's, and it is
    started again at once."""
    state.running_since = None
    state.start_time = None
    state.killed = False
    state.memory = Memory()
    if wanted:
        state.restarts += 1
        log.info("vm %s: it ended when its host did; starting it again", name)


def note_stable(context: NodeContext, name: str, state: VmState) -> None:
    """The guest runs: remember since when, and after a while forget what failed before.

    What was read of it before may be of an earlier run: it is forgotten, and read anew.
    """
    now = context.clock.monotonic()
    state.unknown_count = 0
    if state.running_since is None:
        state.running_since = now
        state.guest, state.guest_read_at = GuestInfo(), float("-inf")
        state.disks, state.disks_read_at = (), float("-inf")
        state.start_time = state.start_time or context.clock.wall()
    state.memory = replace(state.memory, prepared=None, stop_since=None)
    state.definition = None
    if state.failures.count and now - state.running_since >= FORGIVEN_AFTER:
        log.info("vm %s: runs since %.0f s; its failures are forgotten", name, FORGIVEN_AFTER)
        state.failures = Failures()


def changes(context: NodeContext, name: str, state: VmState, uid: str, reset: str | None) -> Changes:
    """What is to be written of this node's failures beside the VM's status: its own record, and only that."""
    key = keys.failure(name, context.node)
    before = context.views.record(key, FailureRecord)
    if not state.failures.count:
        return Changes(deletes=(key,) if context.views.exists(key) else ())
    record = FailureRecord(uid=uid, generation=state.generation, reset=reset, failures=state.failures)
    return Changes(puts={} if record == before else {key: dump(record)})


def _fail(context: NodeContext, name: str, state: VmState, reason: str, message: str) -> None:
    wait = delay(state.failures.count + 1, context.ids.jitter())
    wall = context.clock.wall()
    state.memory = replace(state.memory, retry_at=context.clock.monotonic() + wait)
    before, state.failures = (
        state.failures,
        counted(state.failures, reason, message, now=wall, retry=later(wall, wait)),
    )
    log.warning("vm %s: %s: %s; tried again in %.1f s", name, reason, message, wait)
    context.event(EventType.WARNING, Kind.VIRTUAL_MACHINE, name, reason, message)
    if state.failures.given_up and not before.given_up:
        text = f"it failed {state.failures.on_node} times on {context.node}; another node is looked for"
        context.event(EventType.WARNING, Kind.VIRTUAL_MACHINE, name, "GivenUpOnNode", text)


def note_task(context: NodeContext, name: str, state: VmState) -> None:
    """Take the outcome of the disks' making, when that has ended."""
    task = state.task
    if task is None or not task.done():
        return
    state.task = None
    error = None if task.cancelled() else task.exception()
    if isinstance(error, VclError):
        note_failure(context, name, state, error)
    elif error is not None:
        log.error("vm %s: making its disks failed", name, exc_info=error)
        note_failure(context, name, state, VclError(f"making its disks failed: {error!r}"))
