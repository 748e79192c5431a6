"""Connecting to Ceph with limits on everything: librados' own defaults wait for ever.

Shared by the store and by the pools of images. A process that ends while connected is aborted by librados:
call `shutdown` on what is returned here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import rados

IMPATIENCE: Mapping[str, object] = {
    "mon_client_ping_interval": 1,
    "mon_client_ping_timeout": 2,
    "mon_client_hunt_interval": 1,
    "mon_client_hunt_interval_backoff": 1,
    "objecter_tick_interval": 0.5,
    "objecter_timeout": 1,
}
"""A client whose monitor died looks for another one within seconds; one whose OSD does not answer asks for
the newest map. By default it does so after 10 s: with a shorter limit for each operation it never would, and
would go on asking an OSD that has long been marked down."""

FENCE_SECONDS = 10 * 365 * 86400
"""How long an entry of the blocklist lasts (SAFETY rule 11): a client that outlived its entry would write
again. Clients that blocklist others by themselves (RBD, to break a lock) are told the same."""


def connect(
    conf: str,
    user: str,
    *,
    op_timeout: int,
    connect_timeout: int,
    settings: Mapping[str, object] | None = None,
) -> Any:
    """A connected handle as client.USER; `settings` are Ceph options on top. Whole seconds (librados takes no
    others). Blocks for `connect_timeout` at most. Raises rados.Error."""
    limits = {
        "rados_osd_op_timeout": op_timeout,
        "rados_mon_op_timeout": connect_timeout,
        "client_mount_timeout": connect_timeout,
        **IMPATIENCE,
        **(settings or {}),
    }
    cluster = rados.Rados(conffile=conf, name=f"client.{user}")
    for name, value in limits.items():
        cluster.conf_set(name, str(value))
    cluster.connect()
    return cluster
