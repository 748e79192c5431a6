"""What the mesh counts, and what it says about refusals: every one is counted, few are logged."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from reconciler.ports.metrics import MetricType, Sample

log = logging.getLogger(__name__)

QUIET = 10.0
"""Seconds between two log lines about refusals for the same reason."""

_HELP = {
    "messages": "Messages of the mesh, by direction.",
    "bytes": "Bytes of frames of the mesh, by direction.",
    "not_sent": "Messages that could not be queued, by reason.",
    "dropped": "Messages that were not delivered, by reason.",
    "refused_frames": "Frames that were refused, by reason.",
    "refused_connections": "Connections that were refused, by reason.",
    "links": "Links made and lost.",
}
_LABEL = {"messages": "direction", "bytes": "direction", "links": "event"}


@dataclass(slots=True)
class _Quiet:
    until: float = float("-inf")
    withheld: int = 0


class Counts:
    """`now`: seconds that never jump."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._counts: Counter[tuple[str, str]] = Counter()
        self._quiet: dict[tuple[str, str], _Quiet] = {}

    def add(self, what: str, which: str, amount: int = 1) -> None:
        """Count it; `what` is one of the keys of `_HELP`, `which` a word out of a closed set."""
        self._counts[(what, which)] += amount

    def refuse(self, what: str, which: str, detail: str, *, level: int = logging.WARNING) -> None:
        """Count a refusal, and log it unless one like it was logged a moment ago."""
        self.add(what, which)
        quiet = self._quiet.setdefault((what, which), _Quiet())
        now = self._now()
        if now < quiet.until:
            quiet.withheld += 1
            return
        more = f" ({quiet.withheld} more since the last line)" if quiet.withheld else ""
        log.log(level, "mesh: refused: %s%s", detail, more)
        quiet.until, quiet.withheld = now + QUIET, 0

    def mapping(self) -> Mapping[str, int]:
        """All counts by `what.which`."""
        return {f"{what}.{which}": count for (what, which), count in sorted(self._counts.items())}

    def samples(self) -> Iterator[Sample]:
        """All counts as metrics."""
        for (what, which), count in sorted(self._counts.items()):
            yield Sample(
                name=f"vcl_mesh_{what}_total",
                help=_HELP[what],
                value=count,
                type=MetricType.COUNTER,
                labels={_LABEL.get(what, "reason"): which},
            )
