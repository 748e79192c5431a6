"""Pools on the run's private Ceph cluster: a namespace for each test."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rados
import rbd

from reconciler.adapters.rbd import Clusters, Limits, RbdBackend
from reconciler.resources.infrastructure import RbdPool

OSDS = (0, 1, 2)


@pytest.fixture
def ceph(private_ceph: Any) -> Iterator[Any]:
    """The run's cluster, with all OSDs going before and after each test."""
    yield private_ceph
    private_ceph.thaw(*OSDS)


@pytest.fixture
def admin(ceph: Any) -> Iterator[Any]:
    """A connection of somebody else's, who may do anything."""
    with rados.Rados(conffile=str(ceph.conf), name="client.admin") as cluster:
        yield cluster


@pytest.fixture
def pool(ceph: Any, admin: Any, request: pytest.FixtureRequest) -> RbdPool:
    """A namespace of this test's own in the pool of images."""
    namespace = f"t{abs(hash(request.node.nodeid)):x}"
    with admin.open_ioctx("vms") as context:
        rbd.RBD().namespace_create(context, namespace)
    return RbdPool(pool="vms", namespace=namespace, conf=str(ceph.conf))


@pytest.fixture
def clusters() -> Clusters:
    """Patient: OSDs on a busy machine may take each other for dead for a while."""
    return Clusters(Limits(op=40, monitor=40))


@pytest.fixture
def backend(pool: RbdPool, clusters: Clusters, tmp_path: Path) -> Iterator[RbdBackend]:
    made = RbdBackend(pool, clusters=clusters, cluster_uid="c1", state=tmp_path / "ceph")
    yield made
    made.close()


@pytest.fixture
def context(admin: Any, pool: RbdPool) -> Iterator[Any]:
    """The test's own way into the pool."""
    with admin.open_ioctx(pool.pool) as opened:
        opened.set_namespace(pool.namespace)
        yield opened


def blocklist(cluster: Any, verb: str, address: str, **words: Any) -> None:
    """`ceph osd blocklist VERB ADDRESS`."""
    question = {"prefix": "osd blocklist", "blocklistop": verb, "addr": address, **words}
    code, _, complaint = cluster.mon_command(json.dumps(question), b"")
    assert code == 0, complaint


sys.modules.setdefault("vcl_rbd_conftest", sys.modules[__name__])
