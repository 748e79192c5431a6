"""A real vcld from the outside: what a person, a supervisor and a crash see of it."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_file_in_the_directory_becomes_a_running_vm_and_its_removal_ends_it(node) -> None:
    node.start()
    path = node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    assert node.guests() == ["web"]
    path.unlink()
    node.until(lambda: node.vm("web") == {})
    assert node.guests() == []


def test_a_broken_file_keeps_the_vm_running_and_says_what_is_wrong(node) -> None:
    node.start()
    path = node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    node.save("web", path.read_text().replace("cores: 1", "coers: 1"))
    node.until(lambda: "coers" in node.vm("web")["status"]["message"])
    status = node.vm("web")["status"]
    assert status["phase"] == "Running"
    assert "web.yaml:6" in status["message"]
    assert "did you mean 'cores'?" in json.dumps(status)
    node.save("web")
    node.until(lambda: "coers" not in node.vm("web")["status"].get("message", ""))


def test_one_bad_file_does_not_keep_the_others_from_running(node) -> None:
    node.start()
    node.save("bad", "apiVersion: vcl/v1\nkind: VirtualMachine\nspec: [\n")
    node.save("good")
    node.until(lambda: node.phase("good") == "Running")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_guests_outlive_the_daemon_and_the_next_one_takes_them_over(node, number: int) -> None:
    node.start()
    node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    before = node.vm("web")["status"]
    code = node.end(number)
    assert code == (0 if number != signal.SIGKILL else -signal.SIGKILL)
    assert node.guests() == ["web"]
    node.start()
    node.until(lambda: node.phase("web") == "Running")
    after = node.vm("web")["status"]
    assert after["claim"]["claimed"] == before["claim"]["claimed"]
    assert after["restarts"] == 0
    assert after["startTime"] == before["startTime"]


def test_a_second_daemon_on_the_same_node_is_refused_by_name(node) -> None:
    node.start()
    first = node.process
    node.process = None
    node.start(wait=False)
    assert node.process is not None
    assert node.process.wait(20) == 1
    node.process = first
    assert f"error: vcld runs already on this node (process {first.pid}" in node.log()
    assert node.vcl("get", "vms").returncode == 0


def test_a_socket_left_by_a_killed_daemon_is_no_obstacle(node) -> None:
    node.start()
    node.end(signal.SIGKILL)
    assert node.socket.exists()
    node.start()
    assert node.vcl("get", "vms").returncode == 0


def test_a_wrong_configuration_is_refused_with_every_problem(node) -> None:
    node.configure()
    node.config.write_text("nodee: r1\nlog: {level: loud}\n")
    node.configure = lambda: None
    node.start(wait=False)
    assert node.process is not None
    assert node.process.wait(20) == 1
    node.process = None
    log = node.log()
    assert "vcld.yaml:1:1: nodee: unknown field; did you mean 'node'?" in log
    assert "vcld.yaml:2:14: log.level" in log
    assert "Traceback" not in log


def test_an_unknown_controller_names_the_known_ones(node) -> None:
    node.options = {"dumy": {}}
    node.start(wait=False)
    assert node.process is not None
    assert node.process.wait(20) == 1
    node.process = None
    assert "dummy" in node.log()
    assert "Traceback" not in node.log()


def test_a_store_that_was_restored_from_a_backup_freezes_the_node(node, tmp_path: Path) -> None:
    node.start()
    node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    node.end()
    state = node.root / "state"
    backup = tmp_path / "backup.db"
    shutil.copy(state / "store.db", backup)
    node.start()
    node.save("web2")
    node.until(lambda: node.phase("web2") == "Running")
    node.until(lambda: json.loads((state / "seen.json").read_text())["revision"] > 0)
    node.end()
    for leftover in state.glob("store.db*"):
        leftover.unlink()
    shutil.copy(backup, state / "store.db")
    node.start()
    status = json.loads(node.vcl("cluster", "status", "-o", "json").stdout)
    assert "older" in status["frozen"]
    refused = node.vcl("stop", "web")
    assert refused.returncode == 1
    assert "nothing is started or stopped" in refused.stderr
    assert sorted(node.guests()) == ["web", "web2"]
    node.end()
    node.start("--accept-store")
    node.until(lambda: node.phase("web") == "Running")
    assert json.loads(node.vcl("cluster", "status", "-o", "json").stdout)["frozen"] == ""


def test_a_stopped_vm_stays_stopped_over_a_restart_of_the_daemon(node) -> None:
    node.start()
    node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    assert node.vcl("stop", "web", "--wait").returncode == 0
    node.end()
    node.start()
    assert node.phase("web") == "Stopped"
    assert node.guests() == []
    assert node.vcl("start", "web", "--wait").returncode == 0
    assert node.guests() == ["web"]


def test_the_status_tree_shows_each_object_as_yaml(node) -> None:
    node.start()
    node.save("web")
    path = node.root / "state" / "status" / "virtualmachines" / "web.yaml"
    node.until(lambda: path.exists() and "phase: Running" in path.read_text())


def test_a_directory_that_vanishes_deletes_nothing_and_is_taken_up_again(node) -> None:
    node.start()
    node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    aside = node.root / "aside"
    node.manifests.rename(aside)
    status = node.root / "state"
    node.until(lambda: json.loads(node.vcl("cluster", "status", "-o", "json").stdout)["manifests"]["problem"])
    assert node.phase("web") == "Running"
    assert status.exists()
    aside.rename(node.manifests)
    node.until(
        lambda: not json.loads(node.vcl("cluster", "status", "-o", "json").stdout)["manifests"]["problem"]
    )
    node.save("web2")
    node.until(lambda: node.phase("web2") == "Running")
    assert node.phase("web") == "Running"


def test_many_files_deleted_at_once_are_held_until_a_person_confirms(node) -> None:
    node.start()
    paths = [node.save(f"vm{number}") for number in range(8)]
    node.until(lambda: len(node.guests()) == 8)
    for path in paths:
        path.unlink()
    node.until(lambda: json.loads(node.vcl("cluster", "status", "-o", "json").stdout).get("heldDeletions"))
    assert len(node.guests()) == 8
    held = json.loads(node.vcl("cluster", "status", "-o", "json").stdout)["heldDeletions"]
    assert node.vcl("confirm", held["id"], "--yes").returncode == 0
    node.until(lambda: node.guests() == [])


def test_a_damaged_store_is_refused_in_words(node) -> None:
    node.start()
    node.end()
    store = node.root / "state" / "store.db"
    for leftover in store.parent.glob("store.db-*"):
        leftover.unlink()
    store.write_bytes(b"this is no database" * 100)
    node.start(wait=False)
    assert node.process is not None
    assert node.process.wait(30) == 1
    node.process = None
    assert "error: " in node.log()
    assert "Traceback" not in node.log()
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(store).execute("select 1 from sqlite_master")


def test_the_metrics_tell_of_the_cluster(node) -> None:
    node.start()
    node.until(lambda: "vcl_master 1" in node.metrics())
    text = node.metrics()
    assert 'vcl_nodes{standing="Ready"} 1' in text
    assert "vcl_quorum_nodes_needed 1" in text
    assert "vcl_epoch 1" in text


def test_while_its_store_cannot_be_reached_the_daemon_says_so_and_ends_when_told(
    node, tmp_path: Path
) -> None:
    conf = tmp_path / "ceph.conf"
    conf.write_text("[global]\nmon host = 127.0.0.1:1\nkeyring = /dev/null\n")
    node.settings = {"store": {"type": "rados", "conf": str(conf)}}
    node.start(wait=False)
    node.until(lambda: "vcld waits for its store" in node.vcl("get", "vms").stderr)
    answer = node.vcl("cluster", "status")
    assert answer.returncode == 1
    assert "guests run on meanwhile" in answer.stderr
    assert node.end() == 0
    assert not node.socket.exists()


def test_one_node_alone_shows_its_cluster_and_what_does_not_agree(node) -> None:
    node.start()
    node.save("web")
    node.until(lambda: node.phase("web") == "Running")
    status = node.vcl("cluster", "status").stdout
    assert "Master:            r1, epoch 1\n" in status
    assert "Quorum:            this is the only node\n" in status
    assert "Virtual machines:  1: 1 Running\n" in status
    node.until(lambda: node.told("cluster", "placement")["vms"][0]["state"] == "OK")
    shown = node.told("cluster", "placement")
    assert shown["vms"][0]["local"] == "Running"
    assert (shown["nodes"][0]["used"], shown["nodes"][0]["vms"]) == ({"cpu": 1.0, "memory": 64 * 2**20}, 1)
    wide = node.vcl("get", "nodes", "-o", "wide").stdout.splitlines()
    assert wide[0].split()[:6] == ["NAME", "STATUS", "ROLES", "RANK", "AGE", "VERSION"]
    assert wide[1].split()[:4] == ["r1", "Ready", "master", "0"]
    assert " 1/1024 " in wide[1]
