"""What `vcl cluster status` shows is laid out from what one node sees."""

from __future__ import annotations

from reconciler.planning.cluster_view import ClusterView, Connection, Known, cluster_view
from reconciler.planning.liveness import Sight
from reconciler.planning.timers import Timers
from reconciler.resources.membership import Heartbeat, Member, NodeHealth, NodeLease
from reconciler.resources.records import Epoch


def lease(name: str) -> NodeLease:
    return NodeLease(node=name, boot_id="b", session=1, renewals=1)


def shown() -> ClusterView:
    beat = Heartbeat(
        node="r2",
        boot_id="b",
        session=1,
        sequence=1,
        version="0.2.0",
        revision=41,
        health=NodeHealth(load=0.256, disk_free=7, problems=("libvirt is gone",)),
    )
    known = Known(
        me="r1",
        members={
            name: Member(address=f"10.0.0.{rank + 1}", rank=rank)
            for rank, name in enumerate(("r1", "r2", "r3"))
        },
        sights=(
            Sight(name="r1", rank=0, heard=0.0, lease=lease("r1")),
            Sight(name="r2", rank=1, heard=0.26, heartbeat=beat, lease=lease("r2"), lease_age=1.04),
            Sight(name="r3", rank=2, heard=12.0, lease=lease("r3"), lease_age=13.0),
        ),
        links={"r3": Connection(state="Unreachable", seconds=9.5, reason="no answer")},
        epoch=Epoch(epoch=4, holder="r2"),
        master="r2",
        election="r2 is master",
    )
    return cluster_view(known, Timers())


def test_each_member_has_a_line_with_both_channels() -> None:
    one, two, three = shown().nodes
    assert (one.standing, one.heartbeat_age, one.link, one.here) == ("Ready", None, None, True)
    assert not two.here
    assert (two.standing, two.heartbeat_age, two.lease_age, two.master) == ("Ready", 0.3, 1.0, True)
    assert (two.reason, two.load, two.disk_free, two.revision) == ("libvirt is gone", 0.26, 7, 41)
    assert (three.standing, three.address) == ("Silent", "10.0.0.3:7480")
    assert three.link == Connection(state="Unreachable", seconds=9.5, reason="no answer")


def test_the_quorum_counts_who_is_seen() -> None:
    quorum = shown().quorum
    assert (quorum.nodes, quorum.needed, quorum.seen, quorum.reached) == (3, 2, ("r1", "r2"), True)


def test_a_node_that_has_lost_the_store_says_so_before_its_lease_does() -> None:
    def reason(heard_ago: float) -> str:
        health = NodeHealth(store=False)
        beat = Heartbeat(node="r2", boot_id="b", session=1, sequence=1, health=health)
        sight = Sight(name="r2", rank=0, heard=heard_ago, heartbeat=beat, lease=lease("r2"), lease_age=1.0)
        known = Known(
            me="r1",
            members={"r2": Member(address="10.0.0.2")},
            sights=(sight,),
            links={},
            epoch=None,
            master="",
            election="",
        )
        return cluster_view(known, Timers()).nodes[0].reason

    assert reason(0.3) == "it says that the store does not answer it"
    assert "does not answer it" not in reason(30.0)
