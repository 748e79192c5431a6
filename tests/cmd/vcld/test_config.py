"""vcld's configuration file says what is wrong in it, and where."""

from __future__ import annotations

import pytest
from vcld.config import MeshTls, StoreType
from vcld.config_file import parse_config

from reconciler.resources.errors import InvalidInput

CLUSTER = b"""\
node: r1
address: 10.77.0.1
rank: 2
mesh: {tls: off, port: 7000}
store: {type: rados, pool: vms, namespace: state}
timers: {meshSilent: 5}
"""


def refusal(text: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse_config("vcld.yaml", text)
    return str(caught.value)


def test_a_cluster_s_configuration_is_read() -> None:
    config = parse_config("vcld.yaml", CLUSTER)
    assert config.mesh is not None
    assert (config.mesh.tls, config.mesh.port, config.rank) == (MeshTls.OFF, 7000, 2)
    assert (config.store.type, config.store.pool, config.store.object) == (StoreType.RADOS, "vms", "state")
    assert config.timers == {"meshSilent": 5.0}


def test_an_empty_file_is_a_cluster_of_one_node() -> None:
    config = parse_config("vcld.yaml", b"")
    assert config.mesh is None
    assert config.store.type is StoreType.SQLITE


def test_a_mesh_without_an_address_is_refused() -> None:
    assert "set `address`" in refusal(b"mesh: {}\n")


def test_a_misspelt_timer_is_refused_with_the_known_ones() -> None:
    assert "unknown timer meshSilnt; the timers are" in refusal(b"timers: {meshSilnt: 3}\n")


def test_timers_that_break_a_rule_are_refused() -> None:
    assert "meshSilent must be at least five times meshHeartbeat" in refusal(b"timers: {meshSilent: 2}\n")


def test_a_wrong_value_is_shown_with_its_place() -> None:
    assert refusal(b"mesh:\n  port: 0\n").startswith("vcld.yaml:2:9: mesh.port:")


def test_a_ceph_pool_is_read_with_both_users() -> None:
    config = parse_config("vcld.yaml", b"pools: {ceph: {type: rbd, rbd: {pool: vms, qemuUser: guests}}}\n")
    rbd = config.pools["ceph"].rbd
    assert rbd is not None
    assert (rbd.pool, rbd.namespace, rbd.user, rbd.qemu_user) == ("vms", "", "vcl", "guests")


def test_a_pool_without_the_section_of_its_type_is_refused() -> None:
    said = refusal(b"pools:\n  ceph: {type: rbd, directory: {path: /x}}\n")
    assert "pools.ceph.rbd: is required for type rbd, for example 'rbd: {pool: vms}'" in said
    assert "pools.ceph.directory: does not belong to type rbd" in said
