"""What orders to shut down, heard from the own disk, from other nodes and from the store, come to.

Invariants (SAFETY rule 20): an order is in force until a start names its id as ended, whoever was away in
between; what is ended never comes back; and the result does not depend on who was heard first or how often.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.resources.shutdowns import PowerOrders, ShutdownOrder


def merge(one: PowerOrders, other: PowerOrders) -> PowerOrders:
    """What both know, ordered by id. An order that has ended is dropped, and its id kept."""
    ended = {*one.ended, *other.ended}
    orders: dict[str, ShutdownOrder] = {}
    for order in (*one.orders, *other.orders):
        if order.id not in ended:
            known = orders.get(order.id)
            orders[order.id] = order if known is None else _both(known, order)
    return PowerOrders(orders=tuple(orders[id] for id in sorted(orders)), ended=tuple(sorted(ended)))


def _both(one: ShutdownOrder, other: ShutdownOrder) -> ShutdownOrder:
    """Two records of one id, which nobody should have made: the stricter of each."""
    return replace(
        min(one, other, key=repr),
        deadline=min(one.deadline, other.deadline),
        power_off=one.power_off or other.power_off,
        ceph_flags=one.ceph_flags or other.ceph_flags,
    )


def started(known: PowerOrders) -> PowerOrders:
    """After `vcl cluster start`: every order that is known has ended; one that is heard of later has not."""
    return merge(known, PowerOrders(ended=tuple(order.id for order in known.orders)))


def in_force(known: PowerOrders) -> ShutdownOrder | None:
    """The order to obey, or None when VMs may run. Of several: the first by id, with the shortest deadline
    and all that any of them asks for."""
    orders = merge(known, PowerOrders()).orders
    if not orders:
        return None
    return replace(
        orders[0],
        deadline=min(order.deadline for order in orders),
        power_off=any(order.power_off for order in orders),
        ceph_flags=any(order.ceph_flags for order in orders),
    )
