"""An emergency shutdown as every node keeps it on its own disk, sends it in every hello and finds it in the
store (SAFETY rule 20). Nobody owns these records: whoever hears of one adds it to his own.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownOrder:
    """`deadline`: seconds from when a node hears of it until its guests are ended the hard way. `power_off`:
    hosts switch themselves off afterwards; `ceph_flags`: Ceph is told first not to move data. `node`: where
    it was ordered. The time of day is for people."""

    id: str
    deadline: float
    reason: str = ""
    power_off: bool = False
    ceph_flags: bool = False
    node: str = ""
    ordered: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerOrders:
    """All that is known. `ended`: ids that a `cluster start` has ended. They are never forgotten: a node that
    was away for years may come back with an order that only it has not heard the end of."""

    orders: tuple[ShutdownOrder, ...] = ()
    ended: tuple[str, ...] = ()
