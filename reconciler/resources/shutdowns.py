"""An emergency shutdown as every node keeps it on its own disk, sends it in every heartbeat and finds it in
the store (SAFETY rule 20). Nobody owns these records: whoever hears of one adds it to his own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMemory:
    """What a node keeps on its own disk. `under_way`: ids of orders that reached it in the boot `boot_id`,
    from somebody to whom they were new as well: only those switch the host off. A host that boots, and finds
    the cluster shut down, stays on."""

    known: PowerOrders = field(default_factory=PowerOrders)
    under_way: tuple[str, ...] = ()
    boot_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerWord:
    """What a heartbeat says of shutdowns. `ages`: seconds since the node heard of each order in force;
    `under_way`: see PowerMemory. `looked`: the order under which it last saw all that runs on it; `standing`:
    the VMs that it saw."""

    known: PowerOrders = field(default_factory=PowerOrders)
    ages: Mapping[str, float] = field(default_factory=dict)
    under_way: tuple[str, ...] = ()
    looked: str = ""
    standing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerStart:
    """power/start: that VMs may run again, and how they come up. `ended`: the orders that it ended.
    `parallel`: how many VMs start at once until all that can run do; `finished`: when that was, empty before.
    Times are for people."""

    id: str
    ended: tuple[str, ...] = ()
    parallel: int = 0
    ordered: str = ""
    finished: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagRecord:
    """power/flags: the flags of Ceph that a shutdown has set, recorded before it set them."""

    flags: tuple[str, ...] = ()
