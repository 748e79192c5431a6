"""Whether a VM should run: the manifest's runStrategy, what verbs asked for, and how the last run ended.

Master and agents use the same function, so that they never disagree about it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from reconciler.resources.domains import ExitReason
from reconciler.resources.records import Claim, Intent, SpecRecord
from reconciler.resources.virtualmachine import DeletionPolicy, RunStrategy, VirtualMachineSpec


class Wish(StrEnum):
    """What is wanted of a VM. DELETED: stop it, then forget it."""

    RUN = "Run"
    STOP = "Stop"
    DELETED = "Deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """`reason` is for people. `force`: a stop must not wait for the guest."""

    wish: Wish
    reason: str
    force: bool = False


def desired(
    record: SpecRecord, vm: VirtualMachineSpec, intent: Intent, claim: Claim | None, *, power_on: bool
) -> Desired:
    """What is wanted of the VM now.

    The emptied claim of an earlier VM of the name says nothing about this one, and a `run` that was asked for
    under another runStrategy is over.
    """
    if claim is not None and not claim.node and claim.uid != record.metadata.uid:
        claim = None
    if intent.run_strategy is not None and intent.run_strategy != vm.run_strategy:
        intent = replace(intent, run=None, force=False)
    if record.metadata.deletion_timestamp:
        force = intent.run == "Stop" and intent.force
        return Desired(wish=Wish.DELETED, reason="its manifest was deleted", force=force)
    if not power_on:
        return Desired(
            wish=Wish.STOP,
            reason="the cluster's power is Off: `vcl cluster start`, or `power: On` in its manifest",
        )
    if intent.run == "Stop":
        return Desired(
            wish=Wish.STOP,
            reason=f"stopped by `vcl stop`; `vcl start {record.metadata.name}` starts it again",
            force=intent.force,
        )
    return _by_strategy(record.metadata.name, vm.run_strategy, intent, claim)


def _by_strategy(name: str, strategy: RunStrategy, intent: Intent, claim: Claim | None) -> Desired:
    ended = claim.exit if claim is not None and not claim.node else None
    fresh_start = intent.run == "Start" and (claim is None or claim.start != intent.start)
    held = claim is not None and bool(claim.node)
    started = intent.run == "Start" and (fresh_start or held)
    match strategy:
        case RunStrategy.ALWAYS:
            return Desired(wish=Wish.RUN, reason="runStrategy is Always")
        case RunStrategy.RERUN_ON_FAILURE:
            if ended == ExitReason.SHUTDOWN and not fresh_start:
                reason = f"the guest powered itself off; `vcl start {name}` starts it again"
                return Desired(wish=Wish.STOP, reason=reason)
            return Desired(wish=Wish.RUN, reason="runStrategy is RerunOnFailure")
        case RunStrategy.MANUAL | RunStrategy.HALTED:
            if started:
                return Desired(wish=Wish.RUN, reason="started by `vcl start`")
            if ended and intent.run == "Start":
                reason = f"its last run has ended ({ended}); `vcl start {name}` starts it again"
                return Desired(wish=Wish.STOP, reason=reason)
            return Desired(wish=Wish.STOP, reason=f"runStrategy is {strategy}; `vcl start {name}` starts it")


def purges(record: SpecRecord, vm: VirtualMachineSpec) -> bool:
    """Whether the deletion of this VM takes its images along."""
    return record.purge or vm.deletion_policy is DeletionPolicy.DELETE


def consumes(claim: Claim | None, wish: Wish) -> bool:
    """Whether the VM takes up capacity on its node: it runs, or is about to."""
    return wish is Wish.RUN or (claim is not None and bool(claim.node))
