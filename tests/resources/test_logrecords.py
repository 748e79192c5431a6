"""Log records as values: their JSON, their times, what a filter wants."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from reconciler.resources.errors import InvalidInput
from reconciler.resources.logrecords import (
    MESSAGE_LIMIT,
    LogFilter,
    LogLevel,
    LogRecord,
    Position,
    earlier,
    log_time,
    parse_level,
    parse_log_time,
    position_from_json,
    position_to_json,
    record_from_json,
    record_to_json,
)

RECORD = LogRecord(
    node="r1",
    session=3,
    sequence=7,
    time="2026-01-31T12:00:00.000001Z",
    level=LogLevel.WARNING,
    logger="reconciler.loops.agent",
    message="vm web: Running -> Failed",
    vm="web",
)


def test_a_record_survives_its_json() -> None:
    assert record_from_json(record_to_json(RECORD)) == RECORD


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node", 1),
        ("session", "3"),
        ("sequence", True),
        ("sequence", -1),
        ("time", "yesterday"),
        ("level", "loud"),
        ("message", None),
        ("vm", ["web"]),
    ],
)
def test_a_record_with_a_wrong_field_is_refused(field: str, value: object) -> None:
    with pytest.raises(InvalidInput):
        record_from_json({**record_to_json(RECORD), field: value})


def test_what_is_no_map_is_no_record() -> None:
    with pytest.raises(InvalidInput, match="must be a map"):
        record_from_json(["web"])


def test_a_message_that_is_too_long_is_cut() -> None:
    data = {**record_to_json(RECORD), "message": "x" * (MESSAGE_LIMIT + 1)}
    assert len(record_from_json(data).message) == MESSAGE_LIMIT


def test_times_are_utc_with_six_digits_so_that_they_compare_as_text() -> None:
    moment = datetime(2026, 1, 31, 13, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    assert log_time(moment) == "2026-01-31T12:00:00.000005Z"
    assert parse_log_time("2026-01-31T13:00:00+01:00") == "2026-01-31T12:00:00.000000Z"
    assert parse_log_time("2026-01-31 12:00") == "2026-01-31T12:00:00.000000Z"
    with pytest.raises(InvalidInput, match="write it like"):
        parse_log_time("noon")


def test_a_duration_before_all_times_is_their_beginning() -> None:
    assert earlier("2026-01-31T12:00:00.000000Z", 90.5) == "2026-01-31T11:58:29.500000Z"
    assert earlier("2026-01-31T12:00:00.000000Z", 1e12).startswith("0001-01-01")


def test_levels_are_named_in_any_case() -> None:
    assert [parse_level(word) for word in ("INFO", "warn", "critical")] == ["info", "warning", "error"]
    with pytest.raises(InvalidInput, match="debug, info, warning, error"):
        parse_level("loud")


@pytest.mark.parametrize(
    ("wanted", "yes"),
    [
        (LogFilter(), True),
        (LogFilter(level=LogLevel.WARNING, vm="web", node="r1"), True),
        (LogFilter(level=LogLevel.ERROR), False),
        (LogFilter(vm="db"), False),
        (LogFilter(node="r2"), False),
        (LogFilter(since="2027-01-01T00:00:00.000000Z", tail=0), True),
    ],
)
def test_a_filter_wants_what_fits_all_its_parts(wanted: LogFilter, yes: bool) -> None:
    assert wanted.wants(RECORD) is yes


def test_positions_order_by_session_and_then_by_sequence() -> None:
    assert Position(1, 9) < Position(2, 1) < Position(2, 3) == RECORD.position.__class__(2, 3)
    assert position_from_json(position_to_json(Position(2, 3))) == Position(2, 3)
    for wrong in ([1], ["1", 2], [1, -2], None):
        with pytest.raises(InvalidInput):
            position_from_json(wrong)
