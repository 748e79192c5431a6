"""One order for the logs of several nodes.

Invariants: the records of one node keep their order, whatever their times say; between nodes the earlier
record goes first, as long as it comes within the hold-back of its stream; nothing waits longer for a silent
stream than that. A node whose clock is ahead is not held back until the others catch up: a time beyond
`ceiling` counts as that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reconciler.resources.logrecords import LogRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What has come from one node and is not released. Streams that have ended and are empty are left out.

    `since`: when it got these records, or ran empty, in monotonic seconds. `hold`: how long the records of
    others wait while this one is empty, in seconds. `ceiling`: the time, as in records, at which they came.
    """

    records: tuple[LogRecord, ...] = ()
    since: float
    hold: float
    ceiling: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """`records`: in their order. `left`: how many of each stream's records are still held, at its end.
    `wake`: when more can be released although nothing new comes, in monotonic seconds; None: never."""

    records: tuple[LogRecord, ...]
    left: Mapping[str, int]
    wake: float | None


def release(streams: Mapping[str, Stream], now: float) -> Released:
    """Everything that can be said now."""
    taken = dict.fromkeys(sorted(streams), 0)
    heads = {node: _key(streams[node], node, 0) for node in taken if streams[node].records}
    empty = {node: stream.since for node, stream in streams.items() if not stream.records}
    out: list[LogRecord] = []
    wake: float | None = None
    while heads:
        node = min(heads, key=lambda name: heads[name])
        stream = streams[node]
        until = max((max(at, stream.since) + streams[name].hold for name, at in empty.items()), default=now)
        if until > now:
            wake = until
            break
        out.append(stream.records[taken[node]])
        taken[node] += 1
        if taken[node] < len(stream.records):
            heads[node] = _key(stream, node, taken[node])
        else:
            del heads[node]
            empty[node] = now  # what comes next from it may be earlier than what the others hold
    left = {node: len(streams[node].records) - count for node, count in taken.items()}
    return Released(records=tuple(out), left=left, wake=wake)


def _key(stream: Stream, node: str, index: int) -> tuple[str, str, str]:
    time = stream.records[index].time
    return min(time, stream.ceiling), time, node
