"""A connection is not left while a notification is under way: librados crashes the process then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from reconciler.adapters.rados.hints import Hints


class SlowLink:
    """Its notifications are heard when `answer` is called."""

    place = "vcl/vcl/state"

    def __init__(self) -> None:
        self.told = threading.Event()
        self._done: list[Callable[[], None]] = []

    def notify(self, message: str, *, timeout: float, done: Callable[[], None]) -> None:
        self._done.append(done)
        self.told.set()

    def answer(self) -> None:
        while self._done:
            self._done.pop()()


def begun(drain: float = 30.0) -> tuple[Hints, SlowLink]:
    link: Any = SlowLink()
    hints = Hints(link, lambda revision: None, drain=drain)
    hints.start()
    hints.tell(7)
    assert link.told.wait(30.0)
    hints.stop()
    return hints, link


def test_the_end_waits_for_a_notification_under_way() -> None:
    hints, link = begun()
    late = threading.Timer(0.3, link.answer)
    late.start()
    assert hints.join(30.0)
    assert not late.is_alive()


def test_one_that_is_never_answered_is_told_of() -> None:
    hints, link = begun(drain=0.1)
    assert not hints.join(30.0)
    link.answer()
