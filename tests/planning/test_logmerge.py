"""One order for several logs, whatever their clocks say and however they arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from reconciler.planning.logmerge import Stream, release
from reconciler.resources.logrecords import LogLevel, LogRecord

LATE = "2026-01-31T13:00:00.999999Z"
HOLD = 0.5


def at(second: int) -> str:
    return f"2026-01-31T12:{second // 60:02}:{second % 60:02}.000000Z"


def record(node: str, sequence: int, second: int) -> LogRecord:
    return LogRecord(
        node=node,
        session=1,
        sequence=sequence,
        time=at(second),
        level=LogLevel.INFO,
        logger="test",
        message=f"{node} {sequence}",
    )


def stream(node: str, *seconds: int, since: float = 0.0, ceiling: str = LATE, hold: float = HOLD) -> Stream:
    records = tuple(record(node, number, second) for number, second in enumerate(seconds, 1))
    return Stream(records=records, since=since, hold=hold, ceiling=ceiling)


def said(records: Sequence[LogRecord]) -> list[str]:
    return [item.message for item in records]


def test_the_earlier_record_goes_first() -> None:
    released = release({"r1": stream("r1", 1, 3, 9), "r2": stream("r2", 2, 4)}, 0.0)
    assert said(released.records) == ["r1 1", "r2 1", "r1 2", "r2 2"]


def test_a_record_waits_for_a_silent_stream_as_long_as_that_is_held_back_for() -> None:
    streams = {"r1": stream("r1", 5, since=10.0), "r2": stream("r2")}
    early = release(streams, 10.0)
    assert (early.records, early.wake) == ((), 10.0 + HOLD)
    assert said(release(streams, 10.0 + HOLD).records) == ["r1 1"]


def test_a_reader_that_was_slow_still_waits_for_a_stream_that_it_has_just_emptied() -> None:
    """The records of r1 came long ago; r2 was read up a moment ago and has had no time to send more."""
    streams = {"r1": stream("r1", 5, since=0.0), "r2": stream("r2", since=60.0)}
    assert release(streams, 60.1).wake == 60.0 + HOLD


def test_a_stream_that_runs_empty_while_it_is_released_is_waited_for() -> None:
    released = release({"r1": stream("r1", 1), "r2": stream("r2", 2)}, 7.0)
    assert said(released.records) == ["r1 1"]
    assert (released.left, released.wake) == ({"r1": 0, "r2": 1}, 7.0 + HOLD)


def test_one_stream_alone_waits_for_nobody() -> None:
    released = release({"r1": stream("r1", 1, 2)}, 0.0)
    assert (said(released.records), released.wake) == (["r1 1", "r1 2"], None)


def test_the_order_of_a_node_outlives_a_clock_that_is_set_back() -> None:
    released = release({"r1": stream("r1", 100, 3), "r2": stream("r2", 50, 200)}, 0.0)
    assert said(released.records) == ["r2 1", "r1 1", "r1 2"]


def test_a_node_whose_clock_is_ahead_is_heard_before_the_others_are_there() -> None:
    ahead = stream("r1", 3000, ceiling=at(10))
    assert said(release({"r1": ahead, "r2": stream("r2", 11, 12)}, 0.0).records) == ["r1 1"]


def test_equal_times_go_by_the_name_of_the_node() -> None:
    released = release({"r2": stream("r2", 1), "r1": stream("r1", 1)}, 0.0)
    assert said(released.records) == ["r1 1"]


SECONDS = st.lists(st.integers(0, 300), max_size=12)
LOGS = st.dictionaries(st.sampled_from(["r1", "r2", "r3", "r4"]), SECONDS, min_size=1)


def drain(logs: Mapping[str, Sequence[int]], pieces: Sequence[int]) -> list[LogRecord]:
    """Read whole logs as a reader does: piece by piece, each stream refilled when it has run empty."""
    waiting = {node: [record(node, n, s) for n, s in enumerate(seconds, 1)] for node, seconds in logs.items()}
    streams: dict[str, Stream] = {}
    sizes, out, now = iter(pieces), [], 0.0
    while True:
        for node in sorted(logs):
            if node in streams and streams[node].records:
                continue
            size = next(sizes, 3)
            piece, waiting[node] = waiting[node][:size], waiting[node][size:]
            if piece:
                streams[node] = Stream(records=tuple(piece), since=now, hold=HOLD, ceiling=LATE)
            else:
                streams.pop(node, None)  # a log that has ended is not waited for
        if not streams:
            return out
        released = release(streams, now)
        assert released.records, "something can always be released when no stream is empty"
        out += released.records
        for node, left in released.left.items():
            held = streams[node].records[len(streams[node].records) - left :]
            streams[node] = Stream(records=held, since=now, hold=HOLD, ceiling=LATE)
        now += 0.001


@given(LOGS, st.lists(st.integers(1, 5), max_size=40))
def test_nothing_is_lost_or_doubled_and_each_node_keeps_its_order(
    logs: dict[str, list[int]], pieces: list[int]
) -> None:
    out = drain(logs, pieces)
    for node, seconds in logs.items():
        assert [item.sequence for item in out if item.node == node] == list(range(1, len(seconds) + 1))
    assert len(out) == sum(map(len, logs.values()))


@given(LOGS, st.lists(st.integers(1, 5), max_size=40))
def test_logs_whose_clocks_run_are_merged_by_time(logs: dict[str, list[int]], pieces: list[int]) -> None:
    out = drain({node: sorted(seconds) for node, seconds in logs.items()}, pieces)
    assert [item.time for item in out] == sorted(item.time for item in out)


@given(LOGS, st.floats(0, 100))
def test_everything_is_out_when_nobody_sends_for_the_hold_back(
    logs: dict[str, list[int]], start: float
) -> None:
    streams = {node: stream(node, *seconds, since=start) for node, seconds in logs.items()}
    out: list[LogRecord] = []
    now = start
    while any(item.records for item in streams.values()):
        released = release(streams, now)
        out += released.records
        streams = {
            node: Stream(
                records=item.records[len(item.records) - released.left[node] :],
                since=now if item.records and not released.left[node] else item.since,
                hold=HOLD,
                ceiling=LATE,
            )
            for node, item in streams.items()
        }
        assert released.wake is None or now < released.wake <= now + HOLD
        now = released.wake or now
    assert len(out) == sum(map(len, logs.values()))
    assert now <= start + HOLD * len(logs)
