"""Ceph on the nodes themselves: a host's death stalls the store of all, Ceph is told of its OSDs, and all
goes on; the node returns with its OSD. Real vcld, Ceph and libvirt; figures are printed, bounds are loose."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

pytestmark = [pytest.mark.ceph, pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
CLUSTER = """\
apiVersion: vcl/v1
kind: Cluster
metadata: {name: cluster}
spec: {fencing: {markOsdsDown: true}}
"""


@pytest.fixture(scope="module")
def lab(hyperconverged: Any) -> Any:
    lab = hyperconverged
    lab.nodes["r1"].save("cluster.yaml", CLUSTER)
    lab.until(lambda: well(lab) and lab.everywhere("cluster.yaml", CLUSTER), "all is well")
    time.sleep(16.0)  # every node has asked where the OSDs are
    return lab


def well(lab: Any) -> bool:
    return bool(lab.master() == "r1" and lab.settled())


@pytest.mark.parametrize(("victim", "speaker"), [("r3", "r1"), ("r1", "r2")], ids=["worker", "master"])
def test_a_host_takes_its_osd_and_monitor_along_and_returns_with_them(
    lab: Any, victim: str, speaker: str
) -> None:
    osd, log = int(victim[1:]) - 1, lab.nodes[speaker].host.log("vcld")
    rest = lab.others(victim)
    lab.fault.power_cut(victim)
    told = lab.until(lambda: f"osd.{osd} down (" in log.read_text(), "Ceph is told")
    mastered = lab.until(lambda: all(lab.master(name) in ("r1", "r2") for name in rest), "one is master")
    print(f"{victim}: Ceph was told after {told:.1f} s, somebody is master after {told + mastered:.1f} s")
    lab.until(lambda: osd not in up(lab), "its OSD is down")
    lab.fault.power_on(victim)
    lab.until(lambda: osd in up(lab) and lab.lab.storage.clean(), "its OSD is back, and complete")
    lab.until(lambda: well(lab), "all is well again")


def up(lab: Any) -> set[int]:
    words = lab.lab.storage.command("osd", "dump").splitlines()
    return {int(line[4:].split()[0]) for line in words if line.startswith("osd.") and " up " in line}


def test_what_would_lose_data_is_refused(lab: Any) -> None:
    with pytest.raises(cluster.LabFailed, match="two nodes without power"):
        lab.fault.power_cut("r1", "r2")
    with pytest.raises(cluster.LabFailed, match="only runs the manager"):
        lab.fault.power_cut("ceph")
    with pytest.raises(cluster.LabFailed, match="cut it from them"):
        lab.fault.cut_from_ceph("r1")
