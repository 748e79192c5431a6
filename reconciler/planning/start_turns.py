"""Which VMs may start now after the cluster was shut down, and what the others wait for.

Invariants: a VM waits for those that it starts after only while they may still come up, so that one that is
broken, halted or unknown holds nobody for ever; and no more start at once than was asked for, the more
important ones first.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from reconciler.resources.startorder import Order


class Standing(StrEnum):
    """How far a VM is. Out: it is not to run, or it failed, and nobody waits for it."""

    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"
    OUT = "Out"


def start_turns(order: Order, standings: Mapping[str, Standing], parallel: int) -> dict[str, str]:
    """By VM that is to start and has not: what it waits for, or nothing when it may start now. A VM without
    a standing is out. `parallel`: at least 1."""
    waiting = [vm for vm in order.places if standings.get(vm) is Standing.WAITING]
    room = parallel - sum(each is Standing.STARTING for each in standings.values())
    turns: dict[str, str] = {}
    for vm in sorted(waiting, key=lambda vm: (-order.places[vm].wave, vm)):
        before = [
            other
            for other in order.places[vm].after
            if standings.get(other) in (Standing.WAITING, Standing.STARTING)
        ]
        if before:
            turns[vm] = f"it starts after {', '.join(before)} (startAfter)"
        elif room <= 0:
            turns[vm] = f"it waits for its turn: {parallel} start at once"
        else:
            turns[vm], room = "", room - 1
    return turns
