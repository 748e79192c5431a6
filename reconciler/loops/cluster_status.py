"""Gathers what this node knows of the cluster into one value to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reconciler.loops.assembly import Node
from reconciler.loops.fencing_samples import fencing_samples
from reconciler.planning.cluster_view import ClusterView, Connection, Known, cluster_view
from reconciler.planning.liveness import Standing
from reconciler.planning.merge_fencing import fencing_status
from reconciler.planning.snapshots import Reader
from reconciler.ports.metrics import Sample
from reconciler.resources import keys


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
            held=node.isolation.held,
            ending=node.isolation.ending,
        ),
        node.ports.timers,
    )


def fencing_of(node: Node) -> dict[str, str]:
    """What there is to say of each node that is being fenced, or is and has not returned."""
    names = (item.key.removeprefix(keys.FENCES) for item in node.cache.prefix(keys.FENCES))
    return {name: str(fencing_status(Reader(node.cache), name).get("message")) for name in names}


def samples_of(node: Node) -> Iterator[Sample]:
    """The same as metrics: an alert on them needs no CLI."""
    view = view_of(node)
    standings = Counter(line.standing for line in view.nodes)
    for standing in Standing:
        yield Sample(
            name="vcl_nodes",
            help="Members of the cluster by what this node knows of them.",
            value=standings[standing.value],
            labels={"standing": standing.value},
        )
    yield Sample(
        name="vcl_quorum_nodes_seen", help="Members that this node counts.", value=len(view.quorum.seen)
    )
    yield Sample(
        name="vcl_quorum_nodes_needed", help="Members that are a majority.", value=view.quorum.needed
    )
    yield from fencing_samples(node.views)
    yield Sample(name="vcl_epoch", help="The epoch of the last master.", value=view.epoch)
    yield Sample(
        name="vcl_master", help="1 on the node that is master.", value=int(node.elector.epoch is not None)
    )
    for line in view.nodes:
        for name, age in (
            ("vcl_heartbeat_age_seconds", line.heartbeat_age),
            ("vcl_lease_age_seconds", line.lease_age),
        ):
            if age is not None and line.name != view.node:
                yield Sample(
                    name=name,
                    help="Seconds since it was last heard of.",
                    value=age,
                    labels={"node": line.name},
                )
