"""When a running guest counts as hung: asked for in `spec.liveness`, and judged by its agent's answers.

Invariant: only silence that is known to be the guest's counts, and only of an agent that has answered in this
very run. A hypervisor that does not answer, a paused guest, a reboot and a restart of the daemon are no hang:
each makes the count begin anew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.resources.domains import AgentPing
from reconciler.resources.virtualmachine import Liveness


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is known of one run. Times are monotonic seconds. `boot`: whose answers are counted; `misses`: in
    a row; `hung`: why it counts as hung, empty while it does not."""

    boot: str = ""
    since: float | None = None
    asked: float = float("-inf")
    answered: bool = False
    misses: int = 0
    hung: str = ""


def due(watch: Watch, liveness: Liveness, now: float) -> float:
    """When the agent is to be asked next; `now` or earlier: at once."""
    begins = (watch.since if watch.since is not None else now) + liveness.initial_delay_seconds
    return max(begins, watch.asked + liveness.period_seconds)


def begun(watch: Watch, now: float) -> Watch:
    """The watch of a guest that is seen running."""
    return watch if watch.since is not None else replace(watch, since=now)


def interrupted(watch: Watch) -> Watch:
    """After a pause, or a moment in which nothing could be known: silence is counted from the start."""
    return replace(watch, misses=0, hung="")


def judged(watch: Watch, liveness: Liveness, ping: AgentPing | None, now: float) -> Watch:
    """The watch after the agent was asked; None: it is not known whether it answers."""
    if ping is None:
        return replace(interrupted(watch), asked=now)
    if ping.boot != watch.boot:
        watch = replace(interrupted(watch), boot=ping.boot, answered=False)
    watch = replace(watch, asked=now)
    if ping.answered:
        return replace(interrupted(watch), answered=True)
    if not watch.answered:
        return watch
    misses = watch.misses + 1
    hung = ""
    if misses >= liveness.failure_threshold:
        hung = (
            f"the guest hangs: its agent has answered before, and not to {misses} pings in a row "
            f"(each waited for {liveness.timeout_seconds} s)"
        )
    return replace(watch, misses=misses, hung=hung)
