"""Ceph on the nodes themselves: a host's death stalls the store of all, Ceph is told of its OSDs, and all
goes on; the node returns with its OSD. Real vcld, Ceph and libvirt; figures are printed, bounds are loose."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
PATIENCE = 90.0
CLUSTER = """\
apiVersion: vcl/v1
kind: Cluster
metadata: {name: cluster}
spec: {fencing: {markOsdsDown: true}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Any]:
    settings = cluster.LabSettings(
        layout=cluster.Layout.HYPERCONVERGED, config={"timers": {"masterSettle": 3}}
    )
    with cluster.cluster_lab(settings) as made:
        made.nodes["r1"].save("cluster.yaml", CLUSTER)
        yield made


def until(holds: Callable[[], object], what: str, lab: Any) -> float:
    """Seconds that it took. The nodes' logs are shown when it does not come."""
    began = time.monotonic()
    try:
        cluster.until(holds, PATIENCE, what)
    except cluster.LabFailed:
        for node in lab.nodes.values():
            print(f"--- {node.name}\n{node.host.log('vcld').read_text(errors='replace')[-2500:]}")
        raise
    return time.monotonic() - began


def well(lab: Any) -> bool:
    nodes = lab.nodes
    return all(nodes[one].standing(other) == "Ready" for one in nodes for other in nodes) and all(
        node.master() == "r1" for node in nodes.values()
    )


def settings_everywhere(lab: Any) -> bool:
    return all((node.manifests / "cluster.yaml").exists() for node in lab.nodes.values())


@pytest.mark.parametrize(("victim", "speaker"), [("r3", "r1"), ("r1", "r2")], ids=["worker", "master"])
def test_a_host_takes_its_osd_and_monitor_along_and_returns_with_them(
    lab: Any, victim: str, speaker: str
) -> None:
    until(lambda: well(lab) and settings_everywhere(lab), "all is well", lab)
    time.sleep(16.0)  # every node has asked where the OSDs are
    osd, log = int(victim[1:]) - 1, lab.nodes[speaker].host.log("vcld")
    rest = [node for name, node in lab.nodes.items() if name != victim]
    lab.fault.power_cut(victim)
    told = until(lambda: f"osd.{osd} down (" in log.read_text(), "Ceph is told", lab)
    mastered = until(lambda: all(node.master() in ("r1", "r2") for node in rest), "one is master", lab)
    print(f"{victim}: Ceph was told after {told:.1f} s, somebody is master after {told + mastered:.1f} s")
    until(lambda: osd not in up(lab), "its OSD is down", lab)
    lab.fault.power_on(victim)
    until(lambda: osd in up(lab) and lab.storage.clean(), "its OSD is back, and complete", lab)
    until(lambda: well(lab), "all is well again", lab)


def up(lab: Any) -> set[int]:
    words = lab.storage.command("osd", "dump").splitlines()
    return {int(line[4:].split()[0]) for line in words if line.startswith("osd.") and " up " in line}


def test_what_would_lose_data_is_refused(lab: Any) -> None:
    with pytest.raises(cluster.LabFailed, match="two nodes without power"):
        lab.fault.power_cut("r1", "r2")
    with pytest.raises(cluster.LabFailed, match="only runs the manager"):
        lab.fault.power_cut("ceph")
    with pytest.raises(cluster.LabFailed, match="cut it from them"):
        lab.fault.cut_from_ceph("r1")
