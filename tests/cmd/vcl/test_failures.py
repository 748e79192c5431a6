"""What is remembered of failures is told only while it counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vcl.failures import in_force

AT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def failed(node: str, minutes: float) -> dict[str, object]:
    last = (AT - timedelta(minutes=minutes)).isoformat()
    return {"node": node, "count": 3, "reason": "StartFailed", "message": "no", "lastTime": last}


def test_a_failure_of_more_than_an_hour_ago_counts_no_more() -> None:
    recent, old = failed("r1", 59.0), failed("r2", 61.0)
    assert in_force([recent, old], AT) == [recent]
