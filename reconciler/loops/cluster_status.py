"""Gathers what this node knows of the cluster into one value to show."""

from __future__ import annotations

from reconciler.loops.assembly import Node
from reconciler.planning.cluster_view import ClusterView, Connection, Known, cluster_view


def view_of(node: Node) -> ClusterView:
    """The cluster as this node sees it now."""
    now = node.ports.clock.monotonic()
    transport = node.ports.transport
    links = transport.links() if transport is not None else {}
    bearing = node.membership.bearing
    return cluster_view(
        Known(
            me=node.name,
            members=node.membership.members(),
            sights=node.membership.sights(),
            links={
                name: Connection(
                    state=link.state.value, seconds=round(now - link.since, 1), reason=link.reason
                )
                for name, link in sorted(links.items())
            },
            epoch=node.views.epoch(),
            master=bearing.master,
            election=node.elector.reason,
        ),
        node.ports.timers,
    )
