"""When a host may take its own address off the blocklist."""

from __future__ import annotations

import pytest

from reconciler.planning.homecoming import LastRun, may_let_itself_in

BEFORE = LastRun(boot_id="boot-1", machine_id="m")
AFTER = LastRun(boot_id="boot-2", machine_id="m")


def test_a_new_boot_of_the_same_machine_without_guests_may() -> None:
    assert may_let_itself_in(BEFORE, AFTER, guests=False) == ""


@pytest.mark.parametrize(
    ("last", "now", "guests", "why"),
    [
        (None, AFTER, False, "nothing is known"),
        (BEFORE, BEFORE, False, "has not booted"),
        (BEFORE, LastRun(boot_id="boot-2", machine_id="other"), False, "another machine"),
        (
            LastRun(boot_id="boot-1", machine_id=""),
            LastRun(boot_id="boot-2", machine_id=""),
            False,
            "machine",
        ),
        (LastRun(boot_id="", machine_id="m"), AFTER, False, "has not booted"),
        (BEFORE, AFTER, True, "a guest is left"),
        (BEFORE, AFTER, None, "not known"),
    ],
)
def test_nobody_else_may(last: LastRun | None, now: LastRun, guests: bool | None, why: str) -> None:
    assert why in may_let_itself_in(last, now, guests)
