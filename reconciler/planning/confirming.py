"""Whether a person may say that a host is down: only about the fencing that is under way, and never while
anybody sees a sign of life of it (SAFETY rule 14).

Invariant: silence counts only for a node that has itself listened for long enough. The fencing judges the
same again where it uses the word; this is to tell the person at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.planning.liveness import Sight, heard, renews
from reconciler.planning.timers import Timers
from reconciler.resources.fencing import FenceRecord
from reconciler.resources.records import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What the node that is asked sees: of every member, itself (`me`) included, and for how many seconds it
    has run without a gap."""

    me: str
    sights: Sequence[Sight]
    ran_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What the person says: this boot of `node` is down, in this incident."""

    node: str
    incident: str
    boot_id: str


def refusal(
    word: Word, record: FenceRecord | None, session: Session | None, witness: Witness, timers: Timers
) -> tuple[str, str]:
    """Why the word is not taken, and what to do; two empty strings when it is."""
    node = word.node
    if record is None:
        return (
            f"no fencing of node '{node}' is under way, so there is nothing to confirm",
            f"see 'vcl describe node {node}'; the master fences a node once it is silent on both channels",
        )
    if record.released:
        return (f"node '{node}' is fenced already ({record.incident}): nothing is left to take from it", "")
    if not record.boot_id:
        return (
            f"it is not known which boot of '{node}' is to be down, so no word about it can be checked",
            f"start vcld on {node} again, or use a fence agent",
        )
    if word.incident != record.incident:
        return (
            f"the fencing under way is {record.incident}, and what you confirm is {word.incident}",
            f"look again at 'vcl describe node {node}'",
        )
    if word.boot_id != record.boot_id:
        return (
            f"the boot to be confirmed is {record.boot_id}, and what you confirm is {word.boot_id}",
            f"look again at 'vcl describe node {node}'",
        )
    needed = max(timers.mesh_silent, timers.lease_silent)
    if witness.ran_for < needed:
        return (
            f"this node has listened for {witness.ran_for:.1f} s only, and cannot tell whether {node} is up",
            f"ask again in {needed - witness.ran_for:.0f} s, or on another node",
        )
    signs = signs_of_life(record, session, witness, timers)
    if signs:
        return (
            f"node '{node}' shows signs of life: {'; '.join(signs)}",
            f"it must be off before you confirm that; switch {node} off, then try again",
        )
    return "", ""


def signs_of_life(
    record: FenceRecord, session: Session | None, witness: Witness, timers: Timers
) -> tuple[str, ...]:
    """Everything that speaks against it, one clause each."""
    node = record.node
    found = ["it is the very node that you ask"] if node == witness.me else []
    if session is not None and session.session > record.session:
        found.append("its daemon has begun anew since")
    sight = next((each for each in witness.sights if each.name == node), None)
    if sight is not None and node != witness.me:
        if heard(sight, timers):
            found.append(f"heard on the mesh {sight.heard or 0.0:.1f} s ago")
        elif sight.connected is not None:
            found.append("it keeps its connection to this node")
        if sight.refused is not None:
            found.append("its host refuses connections, so it is up")
        if renews(sight, timers):
            found.append(f"its lease in the store changed {sight.lease_age:.1f} s ago")
    others = [each.name for each in witness.sights if _hears(each, node, witness.me, timers)]
    found += [f"{', '.join(others)} still hear{'s' if len(others) == 1 else ''} it"] if others else []
    return tuple(found)


def _hears(other: Sight, node: str, me: str, timers: Timers) -> bool:
    if other.name in (node, me) or other.heartbeat is None or not heard(other, timers):
        return False
    return node in other.heartbeat.hears
