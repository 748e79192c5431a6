"""The store of a cluster, in one RADOS object; the parts are read in this order: records, replica, link,
follow, requests, worker, hints, store."""

from reconciler.adapters.rados.link import Place
from reconciler.adapters.rados.store import RadosStore

__all__ = ["Place", "RadosStore"]
