"""Whether a host may take its own addresses off the blocklist before it reaches the store (SAFETY rule 15).

Otherwise two fenced nodes and a dead one would mean no master ever. Invariant: only another boot of the very
machine that ran the daemon last may, and only while no guest process is on it; what single clients were
blocklisted stays so, and the fence record goes on barring claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.resources.membership import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """What the daemon's last run has left on the host's own disk. `members`: whom it knew, itself included.
    No `cluster_uid`: it never reached its store."""

    boot_id: str
    machine_id: str
    cluster_uid: str = ""
    session: int = 0
    members: Mapping[str, Member] = field(default_factory=dict)


def may_let_itself_in(last: LastRun | None, now: LastRun, guests: bool | None) -> str:
    """Why it may not; empty when it may. `guests`: whether a process of a guest is there, None: not known."""
    if last is None:
        return "nothing is known of this host's last run"
    if not (last.machine_id and now.machine_id) or last.machine_id != now.machine_id:
        return "this is another machine than at the last run"
    if not (last.boot_id and now.boot_id) or last.boot_id == now.boot_id:
        return "this host has not booted since the last run: the master lets it in"
    if guests is None:
        return "whether a guest is left on this host is not known"
    return "a guest is left on this host" if guests else ""
