"""What a node does with its guests when it has lost contact: the decision, without any doing.

Invariants: one lost channel costs nothing but time, except a store that others reach and this node does not
(`storageGrace`); a pause ends only after the store has acknowledged this node again; and what the node could
not have heard, because it did not run itself, is no silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.planning.timers import Timers


class Measure(StrEnum):
    """Pause: again and again, until nothing runs. Resume: let the agent go on, which reads each claim afresh
    before it resumes a guest. Destroy: end the guests, and show that they are gone."""

    NOTHING = "Nothing"
    PAUSE = "Pause"
    RESUME = "Resume"
    DESTROY = "Destroy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """What this node knows of its own contact; all times in seconds. `mesh_silence`: since any other node was
    heard, `store_silence`: since the newest acknowledged renewal of its lease was sent (infinite: never).
    `contrast`: for how long another node has said, and been heard, that it reaches the store while this one
    does not. `ran_for`: without a gap. `shut_out`: it is on the storage's blocklist, which was looked at."""

    nodes: int
    mesh_silence: float
    store_silence: float
    contrast: float
    ran_for: float
    shut_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`reason` is for people; empty when nothing is to be done."""

    measure: Measure
    reason: str = ""


def decide_isolation(before: Measure, contact: Contact, timers: Timers) -> Decision:
    """The measure now; `before` is the one of the last look."""
    holding = before in (Measure.PAUSE, Measure.DESTROY)
    if contact.nodes < 2 or contact.store_silence <= timers.isolation:
        if holding:
            return Decision(measure=Measure.RESUME, reason="the store answers this node again")
        return Decision(measure=Measure.NOTHING)
    if contact.shut_out:
        return Decision(
            measure=Measure.DESTROY, reason="the storage's blocklist has this node: it was fenced"
        )
    if before is Measure.DESTROY:
        return Decision(measure=Measure.DESTROY, reason="the store does not answer this node yet")
    if min(contact.contrast, contact.ran_for) >= timers.storage_grace:
        return Decision(
            measure=Measure.DESTROY,
            reason=f"this node alone has not reached the store for {contact.contrast:.1f} s",
        )
    silence = min(contact.mesh_silence, contact.store_silence, contact.ran_for)
    if silence > timers.isolation:
        return Decision(
            measure=Measure.PAUSE,
            reason=f"isolated: no other node was heard and the store did not answer for {silence:.1f} s",
        )
    if before is Measure.PAUSE:
        return Decision(
            measure=Measure.PAUSE,
            reason="isolated: the store does not answer, so no claim can be read afresh",
        )
    return Decision(measure=Measure.NOTHING)
