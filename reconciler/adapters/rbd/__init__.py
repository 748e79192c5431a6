"""Pools of RBD images: `RbdBackend` is a DiskBackend, `Clusters` the connections that pools share.

Only this package imports rbd, and with adapters/rados only it imports rados.
"""

from reconciler.adapters.rbd.backend import RbdBackend
from reconciler.adapters.rbd.cluster import Clusters, Limits

__all__ = ["Clusters", "Limits", "RbdBackend"]
