"""What a node keeps of its log in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.loops.log_ring import OVERHEAD, LogRing
from reconciler.resources.logrecords import LogFilter, LogLevel, LogRecord, Position

ALL = LogFilter(follow=True)


def record(sequence: int, *, session: int = 1, second: int = 0, vm: str | None = None) -> LogRecord:
    return LogRecord(
        node="r1",
        session=session,
        sequence=sequence,
        time=f"2026-01-31T12:00:{second:02}.000000Z",
        level=LogLevel.INFO,
        logger="test",
        message=f"{session}.{sequence}",
        vm=vm,
    )


def filled(*sequences: int, most: int = 100) -> LogRing:
    ring = LogRing(records=most)
    for sequence in sequences:
        ring.append(record(sequence))
    return ring


def read(ring: LogRing, wanted: LogFilter = ALL, after: Position | None = None) -> list[str]:
    """All that the ring has for a reader, in pages of two."""
    found = []
    while True:
        page = ring.page(wanted, after, records=2, size=10**6)
        found += [item.message for item in page.records]
        after = page.upto
        if not page.more:
            return found


def test_a_reader_gets_everything_page_by_page_and_then_only_what_is_new() -> None:
    ring = filled(1, 2, 3)
    assert read(ring) == ["1.1", "1.2", "1.3"]
    end = ring.page(ALL, None, records=10, size=10**6).upto
    assert read(ring, after=end) == []
    ring.append(record(4))
    assert read(ring, after=end) == ["1.4"]


def test_the_oldest_records_make_room_and_a_slow_reader_learns_how_many() -> None:
    ring = filled(1, 2, most=3)
    slow = ring.page(ALL, None, records=1, size=10**6).upto
    for sequence in range(3, 8):
        ring.append(record(sequence))
    page = ring.page(ALL, slow, records=10, size=10**6)
    assert ([item.sequence for item in page.records], page.dropped) == ([5, 6, 7], 3)
    assert ring.page(ALL, page.upto, records=10, size=10**6).dropped == 0


def test_large_records_make_room_too() -> None:
    ring = LogRing(records=1000, size=4 * (OVERHEAD + 100))
    for sequence in range(1, 100):
        ring.append(record(sequence))
    assert 3 <= len(ring) <= 4


def test_a_page_is_bounded_in_bytes_but_never_empty() -> None:
    page = filled(1, 2, 3).page(ALL, None, records=10, size=1)
    assert ([item.sequence for item in page.records], page.more) == ([1], True)


def test_a_tail_begins_with_the_last_records_that_are_wanted() -> None:
    ring = LogRing()
    for sequence, vm in enumerate(["web", "db", "web", "db", "db"], 1):
        ring.append(record(sequence, vm=vm))
    assert read(ring, LogFilter(tail=2)) == ["1.4", "1.5"]
    assert read(ring, LogFilter(tail=1, vm="web")) == ["1.3"]
    assert read(ring, LogFilter(tail=9, vm="web")) == ["1.1", "1.3"]


def test_a_tail_of_nothing_is_only_what_comes() -> None:
    for ring in (filled(), filled(1, 2)):
        page = ring.page(LogFilter(tail=0, follow=True), None, records=10, size=10**6)
        assert page.records == ()
        ring.append(record(3))
        assert read(ring, after=page.upto) == ["1.3"]


def test_since_begins_at_a_time_and_never_leaves_out_what_comes_after() -> None:
    ring = LogRing()
    for sequence, second in enumerate([1, 5, 9, 3], 1):  # the clock was set back
        ring.append(record(sequence, second=second))
    assert read(ring, LogFilter(since="2026-01-31T12:00:05.000000Z")) == ["1.2", "1.3", "1.4"]
    assert read(ring, LogFilter(since="2027-01-31T12:00:05.000000Z")) == []


def test_what_earlier_runs_said_goes_before_what_this_one_has_said_already() -> None:
    ring = LogRing(records=4)
    ring.append(record(1, session=3))
    ring.prepend([record(1, session=2), record(2, session=2), record(1, session=1), record(2, session=3)])
    assert read(ring) == ["1.1", "2.1", "2.2", "3.1"]
    ring.append(record(2, session=3))
    assert read(ring) == ["2.1", "2.2", "3.1", "3.2"]


def test_a_reader_of_an_earlier_session_goes_on_in_this_one() -> None:
    ring = LogRing()
    ring.append(record(1, session=5))
    assert read(ring, after=Position(4, 999)) == ["5.1"]


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 12))
def test_read_and_dropped_add_up_to_what_was_said(steps: list[int], most: int) -> None:
    """0 reads a page, anything else says so many records."""
    ring, said, got, dropped = LogRing(records=most), 0, [], 0
    after = Position(1, 0)
    for step in [*steps, *[0] * 40]:
        for _ in range(step):
            said += 1
            ring.append(record(said))
        if not step:
            page = ring.page(ALL, after, records=3, size=10**6)
            got += [item.sequence for item in page.records]
            dropped += page.dropped
            after = page.upto
    assert got == sorted(set(got))
    assert len(got) + dropped == said
    assert len(ring) <= most
