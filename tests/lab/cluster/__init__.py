"""A cluster of whole machines in one: hosts in namespaces, each with libvirtd and vcld, a real Ceph between
them, and everything that can go wrong with them at a call.

    make lab; tools/lab help        to use it by hand
    fixtures.cluster_lab(...)       in tests; see tests/lab/test_cluster_lab.py

It never touches this machine's own network, mounts, libvirt or Ceph; docs/lab.md tells more.
"""

from .api import STATUS, ask, ask_for
from .audit import WriterAudit
from .faults import Faults, Way
from .host import Address, Host
from .lab import ClusterLab, cluster_lab, sweep
from .node import Node
from .processes import LabFailed, first_process, processes, until
from .records import BLOCK, Written, foreign, records
from .settings import CephSettings, LabSettings, Layout, kept
from .storage import Storage

__all__ = [
    "BLOCK",
    "STATUS",
    "Address",
    "CephSettings",
    "ClusterLab",
    "Faults",
    "Host",
    "LabFailed",
    "LabSettings",
    "Layout",
    "Node",
    "Storage",
    "Way",
    "WriterAudit",
    "Written",
    "ask",
    "ask_for",
    "cluster_lab",
    "first_process",
    "foreign",
    "kept",
    "processes",
    "records",
    "sweep",
    "until",
]
