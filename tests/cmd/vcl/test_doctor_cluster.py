"""`vcl doctor` on a node of a cluster that is ill in one way each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from vcl.checks.cluster import cluster, configuration, other_clients
from vcl.checks.machine import Daemon, Finding, Level, Machine
from vcl.here import REFUSED

from reconciler.adapters.pki import make_ca, make_node_certificate
from reconciler.adapters.rados import Place
from reconciler.adapters.rados.probe import Diagnosis, PoolFacts, Right
from reconciler.resources.errors import StoreUnavailable
from reconciler.resources.membership import Member
from reconciler.resources.records import dump

CONFIG = """\
node: r1
address: 10.0.0.1
store: {type: rados}
mesh: {port: 7480}
"""
GOOD = Diagnosis(
    fsid="f",
    status="HEALTH_OK",
    pools={
        "vcl": PoolFacts(name="vcl", size=3, min_size=2),
        "vms": PoolFacts(name="vms", size=3, min_size=2, applications=("rbd",)),
    },
    rights=(Right(name="osd blocklist add"), Right(name="osd down"), Right(name="lock break in vms")),
    settings={"osd_heartbeat_grace": "8", "mon_lease": "2.000000"},
    members={f"r{n}": dump(Member(address=f"10.0.0.{n}", rank=n - 1)) for n in (1, 2, 3)},
    keyring="/etc/ceph/ceph.client.vcl.keyring",
)
VCLD = Daemon(socket="/run/vcl/vcld.sock", version={"node": "r1"})
DOWN = Daemon(socket="/run/vcl/vcld.sock", error="no vcld")


@dataclass(slots=True, kw_only=True)
class Ceph:
    """Answers with a diagnosis, or the error; remembers what was asked."""

    answer: Diagnosis | StoreUnavailable = GOOD
    asked: list[tuple[Place, Sequence[str]]] = field(default_factory=list)

    def __call__(self, place: Place, pools: Sequence[str]) -> Diagnosis:
        self.asked.append((place, pools))
        if isinstance(self.answer, StoreUnavailable):
            raise self.answer
        return self.answer


@pytest.fixture
def well(tmp_path: Path) -> Machine:
    """A node on which all is well."""
    vcl, ceph = tmp_path / "etc/vcl", tmp_path / "etc/ceph"
    for directory in (vcl, ceph, tmp_path / "proc/1"):
        directory.mkdir(parents=True)
    (vcl / "vcld.yaml").write_text(CONFIG)
    make_ca(vcl)
    make_node_certificate(vcl, "r1", ["10.0.0.1"], into=vcl)
    for secret in (vcl / "secret", ceph / "ceph.client.vcl.keyring"):
        secret.touch(mode=0o600)
        secret.write_text("0123456789abcdef" * 4)
    return Machine(
        root=tmp_path,
        ceph=Ceph(),
        dial=lambda address, port: "",
        address=lambda address: "",
        port=lambda address, port: "",
    )


def found(machine: Machine, vcld: Daemon = VCLD) -> list[Finding]:
    return [finding for check in (configuration, cluster, other_clients) for finding in check(machine, vcld)]


def bad(machine: Machine, vcld: Daemon = VCLD) -> list[Finding]:
    return [finding for finding in found(machine, vcld) if finding.level is not Level.OK]


def only(machine: Machine, vcld: Daemon = VCLD) -> Finding:
    [finding] = bad(machine, vcld)
    assert finding.cure
    return finding


def with_ceph(machine: Machine, **changes: Any) -> Machine:
    return replace(machine, ceph=Ceph(answer=replace(GOOD, **changes)))


def test_a_node_that_is_well_has_no_findings(well: Machine) -> None:
    assert bad(well) == []
    assert {finding.check for finding in found(well)} >= {
        *("config", "ceph", "ceph-space", "ceph-health", "ceph-pool", "ceph-rights", "ceph-settings"),
        *("mesh-secret", "mesh-certificate", "mesh-port", "peers"),
    }


def test_a_host_without_a_cluster_is_not_asked_about_one(well: Machine) -> None:
    config = well.path("/etc/vcl/vcld.yaml")
    config.write_text("node: r1\n")
    assert [finding.check for finding in found(well)] == ["config"]
    config.unlink()
    assert found(well) == []


def test_a_configuration_that_is_not_valid_is_a_failure(well: Machine) -> None:
    well.path("/etc/vcl/vcld.yaml").write_text("nodes: r1\n")
    finding = only(well)
    assert (finding.check, finding.level) == ("config", Level.FAIL)
    assert "vcld --config /etc/vcl/vcld.yaml --check" in finding.cure


def test_the_pools_of_storage_pools_are_tried(well: Machine) -> None:
    pool = {"metadata": {"name": "fast"}, "spec": {"type": "rbd", "rbd": {"pool": "ssd"}}}
    finding = only(well, replace(VCLD, pools=(pool,)))
    assert finding.message == "Ceph has no pool ssd"
    assert isinstance(well.ceph, Ceph)
    assert well.ceph.asked[0][1] == ["ssd"]


def test_a_ceph_that_does_not_answer_is_one_failure(well: Machine) -> None:
    away = StoreUnavailable("cannot connect to Ceph", cure="look at `ceph status`")
    finding = only(replace(well, ceph=Ceph(answer=away)))
    assert (finding.check, finding.level, finding.cure) == ("ceph", Level.FAIL, "look at `ceph status`")


@pytest.mark.parametrize(
    ("changes", "check", "level", "words"),
    [
        (
            {"status": "HEALTH_WARN", "health": {"MON_DOWN": "1/3 down"}},
            "ceph-health",
            Level.WARN,
            "1/3 down",
        ),
        ({"status": "HEALTH_ERR", "health": {"PG_DAMAGED": "1 pg"}}, "ceph-health", Level.FAIL, "HEALTH_ERR"),
        ({"health": {"OSD_NEARFULL": "1 nearfull"}}, "ceph-space", Level.WARN, "1 nearfull (OSD_NEARFULL)"),
        ({"health": {"POOL_FULL": "1 full"}}, "ceph-space", Level.FAIL, "POOL_FULL"),
        ({"pools": {}}, "ceph-pool", Level.FAIL, "no pool vcl"),
        (
            {"pools": {"vcl": PoolFacts(name="vcl", size=2, min_size=1)}},
            "ceph-pool",
            Level.WARN,
            "keeps 2 copies and writes with 1",
        ),
        (
            {"pools": {"vcl": PoolFacts(name="vcl", size=3, min_size=2, erasure=True)}},
            "ceph-pool",
            Level.FAIL,
            "erasure-coded",
        ),
        (
            {"pools": {"vcl": PoolFacts(name="vcl", size=3, min_size=2, used=0.9)}},
            "ceph-pool",
            Level.WARN,
            "90% full",
        ),
        ({"state": "it does not exist"}, "state", Level.FAIL, "it does not exist"),
        (
            {"settings": {"osd_heartbeat_grace": "20"}},
            "ceph-settings",
            Level.WARN,
            "osd_heartbeat_grace 20 (8)",
        ),
        (
            {"settings": {"auth_allow_insecure_global_id_reclaim": "true"}},
            "ceph-settings",
            Level.WARN,
            "is true",
        ),
    ],
)
def test_each_illness_of_ceph_is_found(
    well: Machine, changes: dict[str, Any], check: str, level: Level, words: str
) -> None:
    finding = only(with_ceph(well, **changes))
    assert (finding.check, finding.level) == (check, level)
    assert words in finding.message


def test_a_right_that_is_refused_comes_with_the_command_that_gives_it(well: Machine) -> None:
    rights = (*GOOD.rights, Right(name="osd blocklist rm", refused="access denied"))
    finding = only(with_ceph(well, rights=rights))
    assert (finding.check, finding.level) == ("ceph-rights", Level.FAIL)
    assert "client.vcl may not do 'osd blocklist rm', which failover needs: access denied" in finding.message
    assert """ceph auth caps client.vcl mon 'profile rbd, allow command "osd blocklist",""" in finding.cure
    assert "osd 'allow rw pool=vcl namespace=vcl, profile rbd pool=vms'" in finding.cure


def test_a_pool_that_is_not_ours_may_refuse_us_as_long_as_one_does_not(well: Machine) -> None:
    foreign = Right(name="lock break in theirs", refused="denied")
    assert bad(with_ceph(well, rights=(*GOOD.rights, foreign))) == []
    finding = only(with_ceph(well, rights=(foreign,)))
    assert "lock break in theirs" in finding.message


def test_a_keyring_that_is_open_to_others_is_found(well: Machine) -> None:
    well.path(GOOD.keyring).chmod(0o644)
    assert only(well).cure == f"chmod 600 {GOOD.keyring}"


def test_a_secret_that_is_open_to_others_is_found(well: Machine) -> None:
    well.path("/etc/vcl/secret").chmod(0o644)
    finding = only(well)
    assert (finding.check, finding.level, finding.cure) == (
        "mesh-secret",
        Level.FAIL,
        "chmod 600 /etc/vcl/secret",
    )


def test_the_certificate_of_another_node_is_found(well: Machine) -> None:
    well.path("/etc/vcl/vcld.yaml").write_text(CONFIG.replace("r1", "r2"))
    finding = only(well)
    assert (finding.check, finding.level) == ("mesh-certificate", Level.FAIL)
    assert "made out to r1, and this node is r2" in finding.message


def test_another_authority_is_found(well: Machine) -> None:
    vcl = well.path("/etc/vcl")
    (vcl / "ca.crt").unlink()
    (vcl / "ca.key").unlink()
    make_ca(vcl)
    assert "other nodes would refuse this certificate" in only(well).message


def test_a_certificate_that_ends_soon_is_found(well: Machine) -> None:
    later = replace(well, now=lambda: datetime.now(UTC) + timedelta(days=3620))
    finding = only(later)
    assert (finding.check, finding.level) == ("mesh-certificate", Level.WARN)
    assert "then the others refuse it" in finding.message


def test_without_tls_no_certificate_is_needed(well: Machine) -> None:
    well.path("/etc/vcl/vcld.yaml").write_text(CONFIG.replace("port: 7480", "tls: off"))
    for name in ("ca.crt", "node.crt", "node.key"):
        well.path(f"/etc/vcl/{name}").unlink()
    assert bad(well) == []


def test_an_address_that_is_not_this_hosts_is_found(well: Machine) -> None:
    machine = replace(well, address=lambda address: f"{address} is not an address of this host")
    assert only(machine).message.startswith("10.0.0.1 is not an address of this host")


def test_a_port_that_is_taken_is_found_while_vcld_does_not_run(well: Machine) -> None:
    machine = replace(
        well, port=lambda address, port: f"port {port} of {address} is taken by another program"
    )
    assert bad(machine) == []
    assert only(machine, DOWN).message == "port 7480 of 10.0.0.1 is taken by another program"


def test_a_daemon_whose_port_does_not_answer_is_found(well: Machine) -> None:
    machine = replace(well, dial=lambda address, port: REFUSED if address == "10.0.0.1" else "")
    assert only(machine).message == "vcld runs, but nobody answers on 10.0.0.1:7480: refused"


@pytest.mark.parametrize(
    ("problem", "words", "cure"),
    [
        (REFUSED, "r2 (10.0.0.2:7480) is there, but nobody listens", "start vcld on r2"),
        ("timed out", "r2 (10.0.0.2:7480) cannot be reached: timed out", "firewalls"),
    ],
)
def test_a_peer_that_is_down_is_told_from_one_that_is_away(
    well: Machine, problem: str, words: str, cure: str
) -> None:
    finding = only(replace(well, dial=lambda address, port: problem if address == "10.0.0.2" else ""))
    assert (finding.check, finding.level, finding.message) == ("peers", Level.WARN, words)
    assert cure in finding.cure


def test_a_node_that_is_no_member_is_told(well: Machine) -> None:
    members = {name: value for name, value in GOOD.members.items() if name != "r1"}
    more = {**members, "r4": dump(Member(address="10.0.0.4", rank=3))}
    assert "this node, r1, is none of the members r2, r3, r4" in only(with_ceph(well, members=more)).message


def test_two_nodes_are_told_that_nothing_fails_over(well: Machine) -> None:
    members = {name: value for name, value in GOOD.members.items() if name != "r3"}
    assert "nothing fails over" in only(with_ceph(well, members=members)).message


def test_what_else_fencing_would_cut_off_is_named(well: Machine) -> None:
    well.path("/proc/1/comm").write_text("ceph-mgr\n")
    well.path("/proc/mounts").write_text("10.0.0.9:/ /srv/share ceph rw 0 0\n")
    finding = only(well)
    assert finding.check == "ceph-clients"
    assert "a Ceph manager, CephFS at /srv/share" in finding.message


@pytest.mark.parametrize(
    ("name", "section"),
    [("rbd_blocklist_expire_seconds", "client"), ("mon_osd_blocklist_default_expire", "mon")],
)
def test_entries_that_others_make_for_an_hour_are_found(well: Machine, name: str, section: str) -> None:
    finding = only(with_ceph(well, settings={name: "3600"}))
    assert (finding.check, finding.level) == ("ceph-blocklist", Level.WARN)
    assert f"for 3600 s only, and then it writes again ({name})" in finding.message
    assert finding.cure == f"ceph config set {section} {name} 315360000"
    lasting = with_ceph(well, settings={name: "315360000.000000"})
    assert bad(lasting) == []
    assert "ceph-blocklist" in {finding.check for finding in found(lasting)}


def test_rbd_clients_that_are_told_no_time_take_the_monitors(well: Machine) -> None:
    told = {"rbd_blocklist_expire_seconds": "0", "mon_osd_blocklist_default_expire": "3600.000000"}
    assert [finding.message.split(" shuts")[0] for finding in bad(with_ceph(well, settings=told))] == [
        "`ceph osd blocklist add` by hand",
        "an RBD client that takes over a dead one's image",
    ]
    told["mon_osd_blocklist_default_expire"] = "315360000.000000"
    assert bad(with_ceph(well, settings=told)) == []
