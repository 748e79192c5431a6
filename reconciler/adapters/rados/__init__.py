"""The store of a cluster, in one RADOS object."""
