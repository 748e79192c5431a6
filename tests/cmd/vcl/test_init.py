"""`vcl init` and `vcl join`: on a real Ceph, with the nodes' files in temporary directories."""

from __future__ import annotations

import json
import shlex
import socket
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import rados
import yaml
from vcl.checks.machine import Level, Machine
from vcl.client import Client
from vcl.join_bundle import read_bundle
from vcl.verbs.doctor import ask_daemon, examine

from reconciler.adapters.mesh.options import TlsFiles
from reconciler.adapters.mesh.tls import load_contexts
from reconciler.resources.errors import VclError

THREE = ("--node", "r1=127.0.0.1", "--node", "r2=127.0.0.2", "--node", "r3=127.0.0.3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A node's files, and Ceph's configuration with keyrings of its own. `tag` keeps tests apart in Ceph."""

    root: Path
    tag: str
    ceph: Any
    port: int = field(default_factory=lambda: free_port())

    @property
    def vcl(self) -> Path:
        return self.root / "vcl"

    @property
    def conf(self) -> Path:
        return self.root / "ceph" / "ceph.conf"

    def keyring(self, user: str) -> Path:
        return self.root / "ceph" / f"ceph.client.{user}.keyring"

    def with_admin(self) -> Host:
        """The administrator's key is here."""
        self.keyring("admin").write_bytes((self.ceph.dir / "ceph.client.admin.keyring").read_bytes())
        return self

    def init(self, *more: str) -> list[str]:
        return [
            *("init", "--name", "home", "--this", "r1", "--directory", str(self.vcl)),
            *("--ceph-conf", str(self.conf), "--namespace", self.tag, "--image-pool", "vms"),
            *("--ceph-user", f"v-{self.tag}", "--qemu-user", f"q-{self.tag}"),
            *("--port", str(self.port), *more),
        ]

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}


def free_port() -> int:
    """One that nobody listens on now, on any address."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def make_host(root: Path, tag: str, ceph: Any) -> Host:
    host = Host(root=root, tag=tag, ceph=ceph)
    host.conf.parent.mkdir(parents=True)
    text = ceph.conf.read_text().replace(f"{ceph.dir}/ceph.$name", f"{host.conf.parent}/ceph.$name")
    host.conf.write_text(text)
    return host


@pytest.fixture
def host(tmp_path: Path, private_ceph: Any, request: pytest.FixtureRequest) -> Host:
    """A host without anything but Ceph's configuration."""
    tag = "".join(char for char in request.node.name if char.isalnum())[-40:]
    return make_host(tmp_path / "r1", tag, private_ceph)


def members(host: Host) -> dict[str, Any]:
    with rados.Rados(conffile=str(host.ceph.conf), name="client.admin") as cluster:
        ioctx = cluster.open_ioctx("vcl")
        ioctx.set_namespace(host.tag)
        with rados.ReadOpCtx() as read:
            page, _ = ioctx.get_omap_vals(read, "", "k/member/", 100)
            ioctx.operate_read_op(read, "state")
            found = dict(page)
        ioctx.close()
    return found


@pytest.mark.ceph
def test_a_cluster_from_nothing(vcl: Any, host: Host) -> None:
    result = vcl(*host.with_admin().init(*THREE))
    assert (result.code, result.err) == (0, "")
    assert yaml.safe_load((host.vcl / "vcld.yaml").read_text()) == {
        "node": "r1",
        "cluster": "home",
        "address": "127.0.0.1",
        "rank": 0,
        "store": {
            "type": "rados",
            "conf": str(host.conf),
            "user": f"v-{host.tag}",
            "pool": "vcl",
            "namespace": host.tag,
        },
        "mesh": {
            "port": host.port,
            "tls": "on",
            "secretFile": str(host.vcl / "secret"),
            "caFile": str(host.vcl / "ca.crt"),
            "certFile": str(host.vcl / "node.crt"),
            "keyFile": str(host.vcl / "node.key"),
        },
    }
    assert sorted(members(host)) == ["k/member/r1", "k/member/r2", "k/member/r3"]
    private = ("secret", "ca.key", "node.key", "join/r2.vcl", "join/r3.vcl")
    assert {stat.S_IMODE((host.vcl / name).stat().st_mode) for name in private} == {0o600}
    assert stat.S_IMODE(host.keyring(f"v-{host.tag}").stat().st_mode) == 0o600
    assert len((host.vcl / "secret").read_text().strip()) == 64
    assert "A majority is 2 of 3" in result.out
    assert "scp " in result.out
    assert "vcl join NODE.vcl" in result.out
    own = TlsFiles(ca=host.vcl / "ca.crt", cert=host.vcl / "node.crt", key=host.vcl / "node.key")
    load_contexts(own, "r1")


@pytest.mark.ceph
def test_the_second_time_nothing_changes(vcl: Any, host: Host) -> None:
    vcl(*host.with_admin().init(*THREE))
    files, records = host.files(), members(host)
    result = vcl(*host.init(*THREE))
    assert result.code == 0
    assert "made " not in result.out
    assert (host.files(), members(host)) == (files, records)


@pytest.mark.ceph
def test_a_node_that_comes_later_gets_only_what_it_needs(vcl: Any, host: Host) -> None:
    vcl(*host.with_admin().init(*THREE))
    files, records = host.files(), members(host)
    qemu = ("--qemu-user", f"q-{host.tag}")
    result = vcl("init", "--directory", str(host.vcl), "--node", "r4=127.0.0.4", *qemu)
    assert result.code == 0
    new = {path: data for path, data in host.files().items() if path not in files}
    assert list(new) == [str(host.vcl / "join/r4.vcl")]
    assert {path: data for path, data in host.files().items() if path in files} == files
    assert sorted(set(members(host)) - set(records)) == ["k/member/r4"]
    bundle = read_bundle(host.vcl / "join/r4.vcl")
    assert (bundle.node, bundle.config["rank"], bundle.config["address"]) == ("r4", 3, "127.0.0.4")
    assert sorted(bundle.keyrings) == [f"q-{host.tag}", f"v-{host.tag}"]


@pytest.mark.ceph
def test_two_nodes_are_told_that_nothing_fails_over(vcl: Any, host: Host) -> None:
    result = vcl(*host.with_admin().init(*THREE[:4]))
    assert "Two nodes have NO AUTOMATIC FAILOVER" in result.out


@pytest.mark.ceph
def test_without_rights_the_exact_commands_are_told_and_then_it_goes_on(vcl: Any, host: Host) -> None:
    result = vcl(*host.init(*THREE))
    assert result.code == 1
    assert "Ceph cannot be set up from here" in result.err
    assert "bring the keyring files" in result.err
    assert host.vcl.exists() is False
    for line in result.err.splitlines():
        if line.startswith("ceph auth "):
            host.ceph.command(*shlex.split(line)[1:])
    result = vcl(*host.init(*THREE))
    assert (result.code, result.err) == (0, "")
    assert f"kept  Ceph user client.v-{host.tag}, with all rights that vcl needs" in result.out


@pytest.mark.ceph
def test_without_rights_what_is_still_missing_is_named(vcl: Any, host: Host) -> None:
    host.ceph.command(
        *("auth", "get-or-create", f"client.v-{host.tag}", "mon", "profile rbd", "osd"),
        *(f"allow rw pool=vcl namespace={host.tag}, profile rbd pool=vms",),
        *("-o", str(host.keyring(f"v-{host.tag}"))),
    )
    result = vcl(*host.init(*THREE))
    assert result.code == 1
    assert f"client.v-{host.tag} may not do 'osd down': access denied" in result.err


@pytest.mark.ceph
def test_a_dry_run_changes_nothing(vcl: Any, host: Host) -> None:
    files = host.with_admin().files()
    result = vcl(*host.init("--dry-run", *THREE))
    assert result.code == 0
    assert f"would make  {host.vcl}/join/r3.vcl" in result.out
    assert f"ceph auth get-or-create client.v-{host.tag} mon" in result.out
    assert host.files() == files
    assert f"client.v-{host.tag}" not in host.ceph.command("auth", "ls")


@pytest.mark.ceph
def test_a_second_secret_is_never_made_for_a_cluster_that_has_one(vcl: Any, host: Host) -> None:
    vcl(*host.with_admin().init(*THREE))
    (host.vcl / "vcld.yaml").unlink()
    (host.vcl / "secret").unlink()
    result = vcl(*host.init(*THREE))
    assert result.code == 1
    assert "is there already, with r2, r3, and this host does not have its secret" in result.err
    assert not (host.vcl / "secret").exists()


@pytest.mark.ceph
def test_a_configuration_that_does_not_fit_is_left_alone(vcl: Any, host: Host) -> None:
    host.vcl.mkdir()
    (host.vcl / "vcld.yaml").write_text("node: r1\ncontrollers: {dummy: {}}  # mine\n")
    result = vcl(*host.with_admin().init("--store", "rados", *THREE))
    assert result.code == 1
    assert "vcld.yaml is there and does not fit; write these fields into it" in result.err
    assert "store.type: rados" in result.err
    assert f"mesh.port: {host.port}" in result.err
    assert sorted(path.name for path in host.vcl.iterdir()) == ["vcld.yaml"]


@pytest.mark.ceph
def test_a_configuration_that_fits_is_kept_with_all_else_in_it(vcl: Any, host: Host) -> None:
    vcl(*host.with_admin().init(*THREE))
    config = host.vcl / "vcld.yaml"
    config.write_text(config.read_text() + "controllers: {dummy: {}}  # mine\n")
    before = config.read_text()
    assert vcl(*host.init(*THREE)).code == 0
    assert config.read_text() == before


@pytest.mark.ceph
def test_a_keyring_with_another_key_is_not_replaced(vcl: Any, host: Host) -> None:
    user = f"v-{host.tag}"
    stale = f"[client.{user}]\n\tkey = AQCycwNrWCOEFBAAuN0xciagT5vF17vgpkwrdQ==\n"
    host.keyring(user).write_text(stale)
    result = vcl(*host.with_admin().init(*THREE))
    assert result.code == 1
    assert f"has another key than Ceph has for client.{user}; move the file away" in result.err
    assert host.keyring(user).read_text() == stale


@pytest.mark.ceph
def test_without_tls_there_is_no_authority(vcl: Any, host: Host) -> None:
    assert vcl(*host.with_admin().init("--tls", "off", *THREE)).code == 0
    assert sorted(path.name for path in host.vcl.iterdir()) == ["join", "secret", "vcld.yaml"]
    assert sorted(read_bundle(host.vcl / "join/r2.vcl").files) == ["secret"]


@pytest.fixture
def founded(vcl: Any, host: Host, tmp_path: Path) -> tuple[Host, Host]:
    """The first node, and another host that has nothing."""
    assert vcl(*host.with_admin().init(*THREE)).code == 0
    return host, make_host(tmp_path / "r2", host.tag, host.ceph)


@pytest.mark.ceph
def test_a_node_joins_with_its_bundle(vcl: Any, founded: tuple[Host, Host]) -> None:
    first, second = founded
    bundle = first.vcl / "join/r2.vcl"
    result = vcl("join", str(bundle), "--node", "r2", "--directory", str(second.vcl))
    assert (result.code, result.err) == (0, "")
    assert (second.vcl / "secret").read_bytes() == (first.vcl / "secret").read_bytes()
    own = TlsFiles(ca=second.vcl / "ca.crt", cert=second.vcl / "node.crt", key=second.vcl / "node.key")
    load_contexts(own, "r2")
    config = yaml.safe_load((second.vcl / "vcld.yaml").read_text())
    assert (config["node"], config["rank"], config["address"]) == ("r2", 1, "127.0.0.2")
    assert config["mesh"]["keyFile"] == str(second.vcl / "node.key")
    modes = {
        name: stat.S_IMODE((second.vcl / name).stat().st_mode) for name in ("secret", "node.key", "ca.crt")
    }
    assert modes == {"secret": 0o600, "node.key": 0o600, "ca.crt": 0o644}
    assert not (second.vcl / "ca.key").exists()
    assert "systemctl enable --now vcld" in result.out
    before = second.files()
    assert vcl("join", str(bundle), "--node", "r2", "--directory", str(second.vcl)).code == 0
    assert second.files() == before
    vcld = Path(sys.executable).with_name("vcld")
    checked = subprocess.run([vcld, "--config", second.vcl / "vcld.yaml", "--check"], check=False)
    assert checked.returncode == 0


@pytest.mark.ceph
def test_another_configuration_is_replaced_only_by_force_and_kept(
    vcl: Any, founded: tuple[Host, Host]
) -> None:
    first, second = founded
    second.vcl.mkdir()
    (second.vcl / "vcld.yaml").write_text("node: other\n")
    words = ("join", str(first.vcl / "join/r2.vcl"), "--node", "r2", "--directory", str(second.vcl))
    result = vcl(*words)
    assert result.code == 1
    assert "vcld.yaml is there already, with another content; move it away" in result.err
    assert [path.name for path in second.vcl.iterdir()] == ["vcld.yaml"]
    assert vcl(*words, "--force").code == 0
    assert yaml.safe_load((second.vcl / "vcld.yaml").read_text())["node"] == "r2"
    [kept] = second.vcl.glob("vcld.yaml.bak-*")
    assert kept.read_text() == "node: other\n"


@pytest.mark.ceph
def test_a_key_that_ceph_does_not_know_is_found_at_once(vcl: Any, founded: tuple[Host, Host]) -> None:
    first, second = founded
    first.ceph.command("auth", "del", f"client.v-{first.tag}")
    result = vcl("join", str(first.vcl / "join/r2.vcl"), "--node", "r2", "--directory", str(second.vcl))
    assert result.code == 1
    assert f"as client.v-{first.tag}" in result.err


@pytest.mark.ceph
def test_a_bundle_is_for_one_host_and_must_be_whole(vcl: Any, founded: tuple[Host, Host]) -> None:
    first, second = founded
    bundle = first.vcl / "join/r2.vcl"
    into = ("--directory", str(second.vcl))
    assert (
        f"for node r2, and this host is called {socket.gethostname()}" in vcl("join", str(bundle), *into).err
    )
    assert "for node r2, and this host is called r3" in vcl("join", str(bundle), "--node", "r3", *into).err
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[: len(whole) // 2])
    assert "is no join bundle, or not all of it; copy it again" in vcl("join", str(bundle), *into).err
    content = json.loads(whole)
    content["config"]["address"] = "127.0.0.9"
    bundle.write_text(json.dumps(content))
    assert "was damaged or changed on its way; copy it again" in vcl("join", str(bundle), *into).err
    assert not second.vcl.exists()


@pytest.mark.ceph
def test_a_port_that_is_taken_is_found_before_anything_is_written(
    vcl: Any, founded: tuple[Host, Host]
) -> None:
    first, second = founded
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", first.port))
        taken.listen()
        words = ("join", str(first.vcl / "join/r2.vcl"), "--node", "r2", "--directory", str(second.vcl))
        result = vcl(*words)
    assert result.code == 1
    assert f"port {first.port} of 127.0.0.2 is taken by another program" in result.err
    assert not second.vcl.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--this", "r1"), "no node is named: write --node NAME=ADDRESS"),
        (("--node", "r1"), "--node r1 says no node; write --node NAME=IP-ADDRESS"),
        (("--node", "-x=10.0.0.1"), "says no node"),
        (("--this", "r9", *THREE), "this host is called r9, which is none of the nodes r1, r2, r3"),
        (("--this", "r1", *THREE, "--node", "r1=127.0.0.9"), "node r1 is named 2 times"),
        (("--this", "r1", *THREE, "--node", "r4=127.0.0.1"), "2 nodes have the address 127.0.0.1"),
        (("--this", "r1", *THREE, "--store", "sqlite"), "several nodes need --store rados"),
        (("--this", "r1", *THREE, "--store", "etcd"), "--store etcd: use rados or sqlite"),
        (("--this", "r1", *THREE, "--tls", "maybe"), "--tls maybe: use on or off"),
        (("--this", "r1", "--node", "r1=192.0.2.7"), "192.0.2.7 is not an address of this host"),
        (("--this", "r1", *THREE, "--image-pool", "vcl"), "QEMU's user could write to it"),
        (("--this", "r1", *THREE, "--qemu-user", "vcl"), "vcl and QEMU need different Ceph users"),
        (("--this", "r1", *THREE, "--name", "a b"), "'a b' cannot be a cluster's name"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(
    vcl: Any, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    result = vcl("init", "--directory", str(tmp_path / "vcl"), *words)
    assert result.code == 1
    assert said in result.err
    assert not (tmp_path / "vcl").exists()


def test_all_problems_are_told_at_once(vcl: Any, tmp_path: Path) -> None:
    words = ("--this", "r9", *THREE, "--tls", "maybe", "--name", "a b")
    result = vcl("init", "--directory", str(tmp_path), *words)
    assert len(result.err.splitlines()) == 4
    assert "error: 3 things are in the way; nothing was changed" in result.err


def test_one_node_without_ceph_needs_a_configuration_only(vcl: Any, tmp_path: Path) -> None:
    words = (
        "init",
        "--store",
        "sqlite",
        "--directory",
        str(tmp_path),
        "--this",
        "r1",
        "--node",
        "r1=127.0.0.1",
    )
    result = vcl(*words)
    assert result.code == 0
    said = {"node": "r1", "cluster": "vcl", "store": {"type": "sqlite"}}
    assert yaml.safe_load((tmp_path / "vcld.yaml").read_text()) == said
    assert vcl(*words).out.startswith(f"kept  {tmp_path}/vcld.yaml")


def started(host: Host) -> subprocess.Popen[bytes]:
    """A vcld on the files of a node; three of them share this machine, so each listens on its own address."""
    config = host.vcl / "vcld.yaml"
    said = yaml.safe_load(config.read_text())
    said["mesh"]["bind"] = said["address"]
    said |= {"stateDir": str(host.root / "state"), "runDir": str(host.root / "run")}
    said["controllers"] = {"dummy": {}}
    config.write_text(yaml.safe_dump(said))
    with (host.root / "log").open("ab") as log:
        return subprocess.Popen(
            [Path(sys.executable).with_name("vcld"), "--config", config], stdout=log, stderr=log
        )


@pytest.mark.ceph
@pytest.mark.slow
def test_nodes_that_were_made_and_joined_elect_the_first_one(
    vcl: Any, founded: tuple[Host, Host], tmp_path: Path
) -> None:
    first, second = founded
    third = make_host(tmp_path / "r3", first.tag, first.ceph)
    hosts = {"r1": first, "r2": second, "r3": third}
    for name in ("r2", "r3"):
        words = ("--node", name, "--directory", str(hosts[name].vcl))
        assert vcl("join", str(first.vcl / f"join/{name}.vcl"), *words).code == 0
    running = [started(host) for host in hosts.values()]
    try:
        deadline = time.monotonic() + 60
        while master_of(third) != "r1" and time.monotonic() < deadline:
            time.sleep(0.3)
        assert master_of(third) == "r1"
        found = examine(Machine(config=str(first.vcl / "vcld.yaml")), ask_daemon(Client(socket_of(first))))
        cluster = [f for f in found if f.check.startswith(("mesh", "peers", "ceph-rights", "members"))]
        assert {finding.level for finding in cluster} == {Level.OK}, cluster
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(timeout=30)


def socket_of(host: Host) -> str:
    return str(host.root / "run/vcld.sock")


def master_of(host: Host) -> str:
    """The master, as its vcld knows it, once it sees all three nodes."""
    try:
        status = Client(socket_of(host)).get("status")
    except VclError:
        return ""
    cluster = status.get("cluster") or {}
    all_seen = len((cluster.get("quorum") or {}).get("seen") or ()) == 3
    return str(cluster.get("master") or "") if all_seen else ""
