"""The agent's decision for one VM: what it sees, and the one next action that brings it nearer.

Invariants kept here (SAFETY rules 4-9):
* a domain is created only under a committed claim of this node, and resumed only after its clients are in it;
* a claim is emptied only on a proof that the domain is gone, and none of its clients on a network can write
  any more; unknown is never taken for gone;
* only a domain of this cluster, node and VM whose record names another owner, or an emptied one, is killed.
* while a live migration of it is open, nothing is done here on either of its hosts (migration_sides.py): only
  a host whose session was ended by a fence ends what it has.
Every state can be entered by a daemon that knows nothing but the store and the hypervisor: it may be killed
at any instant, and the next one goes on from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.planning.desired import Desired, Wish
from reconciler.planning.migration import hosts_of
from reconciler.resources.domains import DomainPhase, ExitReason, Gone, Observed, PauseReason
from reconciler.resources.records import Binding, Claim, ClaimPhase, Intent
from reconciler.resources.status import Phase

STOP_POLL = 1.0
"""Seconds between looks at a guest that was asked to power off."""

DESTROY_AGAIN = 1.0
"""Seconds before a domain that was destroyed and is still there is destroyed again."""

STOP_AGAIN = 10.0
"""Seconds after which a guest is asked again: one that still boots hears no power button."""


class Step(StrEnum):
    """The next action."""

    WAIT = "Wait"
    PREPARE = "Prepare"
    CLAIM = "Claim"
    PROVISION = "Provision"
    CANCEL = "Cancel"
    EXTEND = "Extend"
    CREATE = "Create"
    COMMIT = "Commit"
    RESUME = "Resume"
    PAUSE = "Pause"
    RESET = "Reset"
    CHANGE = "Change"
    SHUTDOWN = "Shutdown"
    DESTROY = "Destroy"
    DESTROY_FOREIGN = "DestroyForeign"
    PURGE = "Purge"
    CUT_OFF = "CutOff"
    RELEASE = "Release"
    ADOPT = "Adopt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a look at the VM's disks gave: `identities` of its writable images, and whether some must be
    made first (`missing`). `generation` of the spec it was made from."""

    generation: int
    identities: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What the agent remembers of a VM between looks; lost with the daemon, and never needed for safety.

    Times are monotonic seconds. `resumed`: the incarnation that was told to run, `resume_unknown`: its
    outcome is not known. `create_unknown`: a creation timed out and may still arrive.
    """

    prepared: Prepared | None = None
    provisioning: bool = False
    stop_since: float | None = None
    stop_asked: float = 0.0
    retry_at: float = 0.0
    resumed: str = ""
    resume_unknown: bool = False
    create_unknown: bool = False
    io_retry_at: float = 0.0
    committed: str = ""
    destroyed: float = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class VmView:
    """Everything the decision depends on. `observed` None: unknown, and `unknown` says why.

    `lingering`: of a domain that is gone, the recorded network clients that the storage still lets write;
    `intruder`: who else has opened an image since before the start; both empty when there are none.
    `uid` and `controller`: the spec's, empty when there is no (usable) spec; `desired` is then None. `purge`:
    the deletion takes the images along. `grace`: seconds a guest gets to power off. `frozen`: why nothing may
    be done. `fenced`: this node is, or was since its session began; `lost`: its session is over, so nothing
    of it can be committed any more.
    """

    name: str
    node: str
    cluster_uid: str
    uid: str
    controller: str = ""
    generation: int
    desired: Desired | None
    intent: Intent
    binding: Binding | None
    claim: Claim | None
    session: int
    observed: Observed | Gone | None
    unknown: str = ""
    memory: Memory
    grace: float = 60.0
    purge: bool = False
    lingering: tuple[str, ...] = ()
    intruder: str = ""
    fenced: bool = False
    lost: bool = False
    frozen: str = ""
    held: str = ""
    """Why this node, having lost contact, must change nothing: its guests are dealt with elsewhere."""
    reported_by: str = ""
    """The node that wrote the VM's status last."""
    given_up: bool = False
    """It failed here too often: while its back-off lasts, another node may have it."""
    shut_down: str = ""
    """What is said of it while the cluster is shut down: its guest is ended beside the agent, in its turn."""
    leaving: str = ""
    """Why the node runs it no longer: its host goes down; empty while it may run here."""
    hung: str = ""
    """Why its guest counts as hung; empty while it does not."""
    change: str = ""
    """What of a changed spec is brought to the running guest next; empty when nothing is due."""
    change_at: float | None = None
    """When something is due again, if it is (monotonic)."""
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`phase` and `message` are what the status shows meanwhile; `wake` is when to look again at the latest
    (monotonic), None: only when something changes."""

    step: Step
    phase: Phase | None
    message: str = ""
    wake: float | None = None


def owned_here(observed: Observed, view: VmView) -> bool:
    """Whether vcl made this domain, in this cluster, on this node."""
    return bool(observed.uid) and observed.cluster_uid == view.cluster_uid and observed.node == view.node


def decide(view: VmView) -> Decision:
    """The next action for the VM on this node."""
    if view.frozen:
        return Decision(step=Step.WAIT, phase=None, message=view.frozen)
    if view.held and not view.fenced:
        return Decision(step=Step.WAIT, phase=None, message=view.held)
    if view.claim is not None and migrates_here(view.claim, view.node) and not view.lost:
        return _migrating(view, view.claim)
    if view.observed is None:
        concerned = _bound_here(view) or (view.claim is not None and view.claim.node == view.node)
        return Decision(step=Step.WAIT, phase=Phase.UNKNOWN if concerned else None, message=view.unknown)
    if isinstance(view.observed, Observed) and not owned_here(view.observed, view):
        return _name_taken(view)
    mine = view.claim is not None and view.claim.node == view.node
    if isinstance(view.observed, Observed):
        return _present(view, view.observed) if mine else _stray(view, view.observed)
    return _absent_claimed(view) if mine else _absent_unclaimed(view)


def migrates_here(claim: Claim, node: str) -> bool:
    """Whether the node is one of the two hosts of an open live migration, and not proven gone from it."""
    return claim.migration is not None and node in hosts_of(claim)


def _migrating(view: VmView, claim: Claim) -> Decision:
    """Both hosts do as the migration's record says, and the source reports."""
    assert claim.migration is not None
    if claim.node != view.node:
        return _wait(None)
    return _wait(Phase.MIGRATING, f"it is on its way to node {claim.migration.target}")


def _wait(phase: Phase | None, message: str = "", wake: float | None = None) -> Decision:
    return Decision(step=Step.WAIT, phase=phase, message=message, wake=wake)


def _name_taken(view: VmView) -> Decision:
    concerns_us = (view.claim is not None and view.claim.node == view.node) or _bound_here(view)
    if not concerns_us:
        return _wait(None)
    return _wait(
        Phase.FAILED,
        f"a domain named '{view.name}' that vcl did not make is on node {view.node}; it is left alone: "
        "rename or remove it, or give this VM another name",
        view.now + 30.0,
    )


def _bound_here(view: VmView) -> bool:
    return view.binding is not None and view.binding.node == view.node and view.binding.uid == view.uid


def _runs_here(view: VmView) -> bool:
    wished = view.desired is not None and view.desired.wish is Wish.RUN
    return wished and _bound_here(view) and not (view.fenced or view.leaving)


def _stray(view: VmView, domain: Observed) -> Decision:
    """A domain that vcl made here, while the record does not name this node."""
    claim = view.claim
    if claim is not None and domain.uid == claim.uid:
        owner = f"node {claim.node}" if claim.node else "nobody"
        return Decision(
            step=Step.DESTROY_FOREIGN,
            phase=None,
            message=f"the record says that {owner} owns this VM; the copy on {view.node} is ended",
        )
    if _runs_here(view) and domain.uid == view.uid:
        return Decision(step=Step.ADOPT, phase=Phase.RUNNING, message="found running without a claim")
    return _wait(
        Phase.UNKNOWN if view.uid else None,
        "it runs here, and the store has no record of who owns it: it is left alone "
        f"(`virsh destroy {view.name}` if it should not)",
    )


def _present(view: VmView, domain: Observed) -> Decision:
    claim = view.claim
    assert claim is not None
    dying = view.memory.destroyed + DESTROY_AGAIN
    if view.now < dying:
        return _wait(None, "", dying)
    if domain.uid != claim.uid:
        return _wait(
            Phase.UNKNOWN,
            f"the domain on {view.node} belongs to an earlier VM of this name ({domain.uid}); "
            "it is left alone until a person ends it",
        )
    if view.fenced:
        # Another copy may start at any moment: there is no time to ask the guest.
        return _destroy(Phase.STOPPING, "this node was fenced")
    if domain.phase is DomainPhase.CRASHED:
        return _destroy(Phase.FAILED, "the guest crashed")
    if view.shut_down and not never_ran(domain):
        return _wait(Phase.STOPPING, view.shut_down, view.now + STOP_POLL)
    if not _runs_here(view):
        return _stop(view, domain, _stop_reason(view))
    if view.intent.restart and view.intent.restart != claim.restart and not never_ran(domain):
        return _stop(view, domain, "restart asked for")
    if domain.phase is DomainPhase.STOPPING:
        return _wait(Phase.STOPPING, "the guest is shutting down", view.now + STOP_POLL)
    if never_ran(domain):
        return _finish_start(view, domain, claim)
    return _keep_running(view, domain, claim)


def _destroy(phase: Phase, message: str) -> Decision:
    return Decision(step=Step.DESTROY, phase=phase, message=message)


def never_ran(domain: Observed) -> bool:
    """Whether it was created and, as far as is known, never told to run."""
    return domain.phase is DomainPhase.PAUSED and domain.pause_reason is PauseReason.STARTING


def _finish_start(view: VmView, domain: Observed, claim: Claim) -> Decision:
    """Created and paused: record its clients, then let it run (SAFETY rule 5)."""
    memory = view.memory
    if memory.create_unknown:
        return _destroy(Phase.STARTING, "its creation was answered too late; it is ended and started again")
    if view.intruder:
        return _destroy(Phase.STARTING, f"{view.intruder}; it never ran, and is ended")
    if claim.phase is not ClaimPhase.RUNNING or set(domain.clients) - set(claim.clients):
        return Decision(step=Step.COMMIT, phase=Phase.STARTING, message="recording who may write")
    if memory.committed != domain.incarnation or memory.resumed == domain.incarnation:
        # Another daemon, or this one without an answer, may have told it to run: that is never told twice.
        return _destroy(Phase.STARTING, "whether it was told to run is not known; it is started afresh")
    return Decision(step=Step.RESUME, phase=Phase.STARTING, message="resuming")


def _keep_running(view: VmView, domain: Observed, claim: Claim) -> Decision:
    paused = domain.phase is DomainPhase.PAUSED
    if claim.phase is not ClaimPhase.RUNNING:
        return _destroy(Phase.STARTING, "it runs although its start was not recorded; it is started afresh")
    if set(domain.clients) - set(claim.clients):
        return Decision(step=Step.COMMIT, phase=Phase.RUNNING, message="recording who may write")
    if view.intent.paused:
        if not paused:
            return Decision(step=Step.PAUSE, phase=Phase.RUNNING, message="pause asked for")
        note = f"paused by `vcl pause`; `vcl resume {view.name}` lets it go on"
        return _wait(Phase.PAUSED, note)
    if paused and domain.pause_reason is PauseReason.ISOLATED:
        note = "isolated: this node had lost contact and paused it; contact is back"
        return Decision(step=Step.RESUME, phase=Phase.PAUSED, message=note)
    if claim.paused:
        # Also of a guest that runs: a mark that stayed would make a later pause of somebody else's ours.
        phase = Phase.PAUSED if paused else Phase.RUNNING
        return Decision(step=Step.RESUME, phase=phase, message="resume asked for")
    if not paused and view.intent.reset and view.intent.reset != claim.reset:
        return Decision(step=Step.RESET, phase=Phase.RUNNING, message="reset asked for")
    if not paused:
        return _runs(view)
    if domain.pause_reason is PauseReason.IO_ERROR:
        if view.now >= view.memory.io_retry_at:
            return Decision(step=Step.RESUME, phase=Phase.PAUSED, message="trying again after an I/O error")
        note = "an I/O error on a disk paused the guest; is the storage full or away? It is tried again"
        return _wait(Phase.PAUSED, note, view.memory.io_retry_at)
    return _wait(
        Phase.PAUSED,
        f"paused outside vcl; `vcl pause {view.name}` and `vcl resume {view.name}`, or "
        f"`virsh resume {view.name}`, let it go on",
    )


def _runs(view: VmView) -> Decision:
    if view.hung:
        return _destroy(Phase.FAILED, view.hung)
    if view.change:
        return Decision(step=Step.CHANGE, phase=Phase.RUNNING, message=view.change)
    return _wait(Phase.RUNNING, "", view.change_at)


def _stop_reason(view: VmView) -> str:
    if view.desired is None:
        return "its spec is not usable"
    if view.desired.wish is not Wish.RUN:
        return view.desired.reason
    if view.fenced:
        return "this node is being fenced"
    if view.leaving:
        return view.leaving
    if view.binding is None:
        return "it is not placed on this node any more"
    why = f": {view.binding.reason}" if view.binding.reason else ""
    return f"it goes to node {view.binding.node}{why}"


def leaves(view: VmView) -> bool:
    """Whether it is to run, and not here: an end of its run here is none of the guest's own."""
    wished = view.desired is not None and view.desired.wish is Wish.RUN
    return wished and (bool(view.leaving) or not _bound_here(view))


def _stop(view: VmView, domain: Observed, why: str) -> Decision:
    """Ask the guest, then, after its grace period, end it."""
    if view.desired is None:
        # A record that cannot be read says nothing: the guest goes on.
        return _wait(Phase.UNKNOWN, "its record in the store cannot be read; the guest is left running")
    memory = view.memory
    force = view.desired.force or (view.intent.force and why == "restart asked for")
    deleting = view.desired.wish is Wish.DELETED
    phase = Phase.TERMINATING if deleting else Phase.STOPPING
    if force or never_ran(domain) or view.grace <= 0:
        return _destroy(phase, why)
    if memory.stop_since is None:
        if domain.phase is DomainPhase.PAUSED and domain.pause_reason is not PauseReason.IO_ERROR:
            return Decision(step=Step.RESUME, phase=phase, message="resumed so that it can power off")
        return Decision(step=Step.SHUTDOWN, phase=phase, message=why)
    left = memory.stop_since + view.grace - view.now
    if left <= 0:
        return _destroy(phase, f"the guest did not power off within {view.grace:.0f} s")
    if view.now - memory.stop_asked >= STOP_AGAIN and domain.phase is DomainPhase.RUNNING:
        return Decision(step=Step.SHUTDOWN, phase=phase, message=why)
    note = f"{why}; waiting for the guest to power off, {left:.0f} s left"
    return _wait(phase, note, view.now + min(left, STOP_POLL))


def _absent_claimed(view: VmView) -> Decision:
    """The claim is ours and the domain is proven gone."""
    claim, memory = view.claim, view.memory
    assert claim is not None
    if memory.provisioning:
        if _runs_here(view):
            return _wait(Phase.PROVISIONING, "making its disks", view.now + 5.0)
        # The claim is kept until nothing writes to the new images any more.
        return Decision(step=Step.CANCEL, phase=None, message=_stop_reason(view))
    if view.lost:
        return _wait(None, "this node was fenced; the master, or this node's next session, empties the claim")
    if view.lingering:
        # A killed QEMU's last write may still be under way: only the storage can say that it never arrives.
        return Decision(step=Step.CUT_OFF, phase=None, message=f"cutting off {', '.join(view.lingering)}")
    if claim.phase is ClaimPhase.RUNNING:
        return Decision(step=Step.RELEASE, phase=None, message="the domain is gone")
    if claim.uid != view.uid or _other_controller(view, claim):
        return Decision(step=Step.RELEASE, phase=None, message="it was claimed for an earlier spec")
    deleting = view.desired is not None and view.desired.wish is Wish.DELETED
    if deleting and view.purge and not claim.purged:
        return Decision(step=Step.PURGE, phase=Phase.TERMINATING, message="trashing its images")
    if not _runs_here(view):
        return Decision(step=Step.RELEASE, phase=None, message=_stop_reason(view))
    if view.now < memory.retry_at:
        if view.given_up:
            return Decision(step=Step.RELEASE, phase=None, message="it failed here too often")
        return _wait(None, "", memory.retry_at)
    prepared = memory.prepared
    if prepared is None or prepared.generation != view.generation:
        return Decision(step=Step.PREPARE, phase=Phase.PROVISIONING, message="looking at its disks")
    if prepared.missing:
        return Decision(step=Step.PROVISION, phase=Phase.PROVISIONING, message="making its disks")
    if claim.phase is ClaimPhase.PROVISIONING or set(prepared.identities) - set(claim.disks):
        return Decision(step=Step.EXTEND, phase=Phase.STARTING, message="claiming its disks")
    return Decision(step=Step.CREATE, phase=Phase.STARTING, message="starting")


def _other_controller(view: VmView, claim: Claim) -> bool:
    """Whether the spec names another controller than the one that the claim was made for."""
    return bool(claim.controller and view.controller) and claim.controller != view.controller


def _absent_unclaimed(view: VmView) -> Decision:
    """Not running here, and not ours: claim it when it is bound to this node."""
    if view.claim is not None and view.claim.node:
        return _wait(None)
    desired = view.desired
    if desired is None or not _bound_here(view):
        return _wait(_resting_phase(view) if _last_here(view) else None, desired.reason if desired else "")
    if desired.wish is Wish.DELETED and view.purge and not (view.claim and view.claim.purged):
        return Decision(step=Step.CLAIM, phase=Phase.TERMINATING, message="claiming it to trash its images")
    if desired.wish is Wish.RUN and view.leaving:
        return _wait(Phase.STOPPED, view.leaving)
    if not _runs_here(view):
        return _wait(_resting_phase(view), desired.reason)
    if view.now < view.memory.retry_at:
        return _wait(None, "", view.memory.retry_at)
    if view.memory.prepared is None or view.memory.prepared.generation != view.generation:
        return Decision(step=Step.PREPARE, phase=Phase.PROVISIONING, message="looking at its disks")
    return Decision(step=Step.CLAIM, phase=Phase.PROVISIONING, message="claiming it")


def _last_here(view: VmView) -> bool:
    """Whether this node was the last to run it, so that its status is this node's to write."""
    emptied = view.claim is not None and not view.claim.node and view.claim.uid == view.uid
    return emptied and view.reported_by == view.node


def _resting_phase(view: VmView) -> Phase | None:
    if view.desired is None:
        return None
    match view.desired.wish:
        case Wish.DELETED:
            return Phase.TERMINATING
        case Wish.STOP:
            return Phase.STOPPED
        case Wish.RUN:
            return None


def failed_exit(exit: str | None) -> bool:
    """Whether a run that ended so counts as a failure (back-off before the next one)."""
    return exit not in (ExitReason.SHUTDOWN, ExitReason.DESTROYED, None)
