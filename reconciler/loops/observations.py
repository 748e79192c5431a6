"""What this node has observed of each other one: its heartbeats, its lease, and since when.

Invariant: an age grows only while this node was running and its observations succeeded. A daemon that was
frozen, or a store that stalled, makes nobody look dead (SAFETY rule 13).
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.resources.codec import decode
from reconciler.resources.errors import InvalidInput
from reconciler.resources.membership import Heartbeat, NodeLease

log = logging.getLogger(__name__)

FALLS_COUNT_FOR = 600.0


@dataclass(slots=True)
class _Observed:
    """One member: monotonic times of this node."""

    heard_at: float | None = None
    heartbeat: Heartbeat | None = None
    lease: NodeLease | None = None
    lease_changed_at: float | None = None
    eligible_since: float | None = None
    falls: deque[float] = field(default_factory=deque)


class Observations:
    """Every `now` is this node's monotonic time in seconds."""

    def __init__(self, timers: Timers) -> None:
        self.leases_read_at: float | None = None
        """When the last successful look at the leases began."""
        self._timers = timers
        self._observed: dict[str, _Observed] = {}
        self._ticked_at: float | None = None
        self._ran_since: float | None = None
        self._read_first_at: float | None = None

    def hear(self, name: str, heartbeat: Heartbeat, now: float) -> bool:
        """Take a heartbeat; whether the node changed its mind about mastership."""
        observed = self._observed.setdefault(name, _Observed())
        before = observed.heartbeat
        if before is not None and (heartbeat.session, heartbeat.sequence) <= (
            before.session,
            before.sequence,
        ):
            return False
        observed.heard_at, observed.heartbeat = now, heartbeat
        if before is not None and before.session != heartbeat.session:
            _fall(observed, now)  # a restart, however quick: it settles anew
        if heartbeat.eligible and observed.eligible_since is None:
            observed.eligible_since = now
        elif not heartbeat.eligible:
            _fall(observed, now)
        return before is None or (before.eligible, before.master) != (heartbeat.eligible, heartbeat.master)

    def look(self, found: Mapping[str, bytes], began: float) -> None:
        """Take what was read of the leases by a look that began at `began`."""
        unseen = began - (self.leases_read_at if self.leases_read_at is not None else began)
        missed = max(0.0, unseen - 2 * self._timers.lease_renew)
        for observed in self._observed.values():
            if observed.lease_changed_at is not None and missed > 0:
                observed.lease_changed_at = min(began, observed.lease_changed_at + missed)
        if self._read_first_at is None:
            self._read_first_at = began
        for name, value in sorted(found.items()):
            self._read(name, value, began)
        self.leases_read_at = began

    def tick(self, now: float) -> None:
        """Called at every heartbeat. Time in which this node did not run counts for nobody."""
        before, self._ticked_at = self._ticked_at, now
        if self._ran_since is None:
            self._ran_since = now
        blind = now - before - self._timers.mesh_heartbeat if before is not None else 0.0
        if blind < 2 * self._timers.mesh_heartbeat:
            return
        self._ran_since = now
        log.warning("this daemon did not run for %.1f s; what it did not hear then counts for nothing", blind)
        for observed in self._observed.values():
            if observed.heard_at is not None:
                observed.heard_at = min(now, observed.heard_at + blind)

    def ran_for(self, now: float) -> float:
        """Seconds for which this daemon has run without a gap. None of them count in a gap that `tick` has
        yet to find out about: whoever asks may be woken before it is."""
        if self._ran_since is None or self._ticked_at is None:
            return 0.0
        if now - self._ticked_at >= 3 * self._timers.mesh_heartbeat:
            return 0.0
        return now - self._ran_since

    def lease_changed_at(self, name: str) -> float | None:
        """When a node's lease was last seen to change, or watched for the first time; None: never looked."""
        observed = self._observed.get(name)
        changed = observed.lease_changed_at if observed is not None else None
        return changed if changed is not None else self._read_first_at

    def heard_now(self, now: float) -> tuple[str, ...]:
        """Whose heartbeats arrive."""
        return tuple(
            name
            for name, observed in sorted(self._observed.items())
            if observed.heard_at is not None and now - observed.heard_at <= self._timers.mesh_silent
        )

    def sight(
        self, name: str, rank: int, refused: float | None, now: float, connected: float | None = None
    ) -> Sight:
        """A member as it is seen now; `refused`, `connected`: seconds for which its link has been so."""
        observed = self._observed.setdefault(name, _Observed())
        heard = None if observed.heard_at is None else max(0.0, now - observed.heard_at)
        if heard is not None and heard > self._timers.mesh_silent:
            _fall(observed, now)
        while observed.falls and now - observed.falls[0] > FALLS_COUNT_FOR:
            observed.falls.popleft()
        since = observed.eligible_since
        return Sight(
            name=name,
            rank=rank,
            heard=heard,
            heartbeat=observed.heartbeat,
            lease=observed.lease,
            lease_age=self._lease_age(observed),
            refused=refused,
            connected=connected,
            eligible_for=0.0 if since is None else now - since,
            falls=len(observed.falls),
        )

    def _lease_age(self, observed: _Observed) -> float:
        """Up to the last look, not up to now: a look that failed says nothing."""
        if self.leases_read_at is None or self._read_first_at is None:
            return 0.0
        changed = observed.lease_changed_at
        return self.leases_read_at - (changed if changed is not None else self._read_first_at)

    def _read(self, name: str, value: bytes, began: float) -> None:
        try:
            lease = decode(NodeLease, json.loads(value))
        except (InvalidInput, ValueError) as error:
            log.warning("lease: that of %s cannot be read: %s", name, error)
            return
        observed = self._observed.setdefault(name, _Observed())
        before = observed.lease
        if before is None or (lease.session, lease.renewals) > (before.session, before.renewals):
            observed.lease, observed.lease_changed_at = lease, began
            if lease.stopped:
                _fall(observed, began)


def _number(heartbeat: Heartbeat) -> tuple[int, int]:
    """Grows with each heartbeat of a node, over restarts of its daemon too."""
    return heartbeat.session, heartbeat.sequence


def _fall(observed: _Observed, now: float) -> None:
    if observed.eligible_since is not None:
        observed.falls.append(now)
        observed.eligible_since = None
