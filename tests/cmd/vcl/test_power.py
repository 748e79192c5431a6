"""Shutting the cluster down and starting it, against a daemon with canned answers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from vcl.client import Client
from vcl.powering import follow_shutdown

from tests.cmd.vcl.conftest import vm

ORDER = {"id": "id1", "deadline": 300.0, "reason": "battery", "node": "r1", "ordered": "2026-01-31T12:00:00Z"}
OFF = {
    "node": "r1",
    "power": "Off",
    "stored": True,
    "order": ORDER,
    "looked": True,
    "members": ["r1", "r2", "r3"],
    "heard": ["r1", "r2"],
    "told": ["r1", "r2"],
    "standing": {},
    "silent": [],
    "waits": {},
}


def off(**changes: Any) -> dict[str, Any]:
    return {**OFF, **changes}


def test_a_shutdown_is_followed_until_no_vm_is_left(vcl: Any, api: Any) -> None:
    api.power = [
        off(looked=False),
        off(standing={"db": ["r1"], "web": ["r2"]}, waits={"db": "it stops after web; at the latest in 9 s"}),
        off(standing={"db": ["r1"]}),
        off(),
    ]
    done = vcl("cluster", "shutdown", "--yes", "--reason", "battery", "--deadline", "2m", "--ceph-flags")
    assert done.code == 0
    assert done.out == (
        "cluster shutting down, within 120 s (id1)\n"
        "virtualmachine/web stopped\nvirtualmachine/db stopped\ncluster shut down\n"
    )
    assert "warning: node r3 is not heard: it is told when it is\n" in done.err
    body = {"deadline": 120.0, "reason": "battery", "powerOffHosts": False, "cephFlags": True}
    assert api.requests("POST") == [("power/shutdown", {}, body)]


def test_it_is_asked_for_first(vcl: Any, api: Any) -> None:
    done = vcl("cluster", "shutdown")
    assert (done.code, done.out) == (1, "")
    assert "shutting the cluster down needs a confirmation, and this is no terminal; add --yes" in done.err
    assert api.requests("POST") == []


def test_one_that_does_not_end_names_what_is_left(api: Any, capsys: pytest.CaptureFixture[str]) -> None:
    api.power = [off(standing={"db": ["r3"]}, silent=["r3"])]
    assert follow_shutdown(Client(api.socket), 0.0, grace=0.5) == 1
    told = capsys.readouterr().err
    assert "error: virtualmachine/db may still run on r3\n" in told
    assert "the shutdown is not complete: nodes that do not say what runs on them: r3" in told


def test_somebody_who_starts_the_cluster_meanwhile_is_told_of(vcl: Any, api: Any) -> None:
    api.power = [off(standing={"db": ["r1"]}), {"node": "r1", "power": "On"}]
    done = vcl("cluster", "shutdown", "--yes")
    assert done.code == 1
    assert "the shutdown was ended: somebody has started the cluster" in done.err


def test_nobody_has_to_wait(vcl: Any, api: Any) -> None:
    assert (
        vcl("cluster", "shutdown", "--yes", "--no-wait").out == "cluster shutting down, within 300 s (id1)\n"
    )
    assert vcl("cluster", "start", "--no-wait", "--parallel=3").out == "cluster starting\n"
    assert api.requests("POST")[-1] == ("power/start", {}, {"parallel": 3})


def test_a_start_is_followed_until_the_master_says_that_all_is_up(vcl: Any, api: Any) -> None:
    api.add(vm("web"), vm("db"), vm("old", phase="Stopped"), vm("bad", phase="Pending"))
    start = {"id": "id1", "parallel": 10, "finished": ""}
    api.power = [{"power": "On", "start": start}, {"power": "On", "start": {**start, "finished": "now"}}]
    done = vcl("cluster", "start")
    assert done.code == 0
    assert done.out == (
        "cluster starting\nvirtualmachine/db running\nvirtualmachine/web running\ncluster started\n"
    )
    assert "warning: virtualmachine/bad is Pending: \n" in done.err


def test_a_start_of_what_was_not_shut_down_says_so(vcl: Any, api: Any) -> None:
    api.refused["start"] = "the cluster is not shut down, so there is nothing to start"
    done = vcl("cluster", "start")
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: the cluster is not shut down, so there is nothing to start\n"


def test_the_status_of_the_cluster_says_that_it_is_off(vcl: Any, api: Any) -> None:
    api.status = {"node": "r1", "power": off(standing={"db": ["r1"]}, stored=False)}
    told = vcl("cluster", "status").out
    assert "Off since 2026-01-31T12:00:00Z, ordered on r1 (battery)" in told
    assert "1 VMs are left: db" not in told
    assert "1 VM is left: db" in told
    assert "not told yet: r3" in told
    assert "not in the store yet" in told
    api.status = {"node": "r1", "power": {"power": "On"}}
    assert "Power:" not in vcl("cluster", "status").out


def test_the_vms_of_one_host_alone(vcl: Any, api: Any) -> None:
    both = off(standing={"db": ["r1"], "web": ["r2"]})
    api.power = [both, both, off(standing={"web": ["r2"]}, silent=["r3"])]
    done = vcl("node", "shutdown", "--local", "--yes")
    assert done.code == 0
    assert done.out.endswith("virtualmachine/db stopped\nnode/r1 shut down\n")
    refused = vcl("node", "shutdown", "--local", "r2", "--yes")
    assert refused.code == 1
    assert "--local is for this host" in refused.err


def test_without_vcld_the_host_is_shut_down_all_the_same(tmp_path: Path) -> None:
    """Nothing of a cluster ever ran here; the order is left for the vcld to come."""
    config = {"node": "r1", "stateDir": f"{tmp_path}/state", "runDir": f"{tmp_path}/run"}
    (tmp_path / "vcld.yaml").write_text(yaml.safe_dump({**config, "controllers": {"dummy": {}}}))
    (tmp_path / "state").mkdir()
    command = [sys.executable, "-m", "vcl.main", "--socket", f"{tmp_path}/run/vcld.sock", "node", "shutdown"]
    command += ["--local", "--yes", "--deadline=5", "--config", f"{tmp_path}/vcld.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "going on without vcld" in done.stderr
    assert "no VM of the cluster is left on this host" in done.stdout
    assert '"deadline": 5.0' in (tmp_path / "state/power.json").read_text()


@pytest.mark.slow
def test_a_vcld_that_hangs_is_killed_and_its_vms_end_all_the_same(tmp_path: Path) -> None:
    config = {"node": "r1", "stateDir": f"{tmp_path}/state", "runDir": f"{tmp_path}/run"}
    (tmp_path / "vcld.yaml").write_text(yaml.safe_dump({**config, "controllers": {"dummy": {}}}))
    (tmp_path / "state/manifests").mkdir(parents=True)
    (tmp_path / "state/manifests/web.yaml").write_text(
        "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: web}\n"
        "spec: {cpu: {cores: 1}, memory: 64Mi, controller: dummy}\n"
    )
    vcl = [sys.executable, "-m", "vcl.main", "--socket", f"{tmp_path}/run/vcld.sock"]
    with (tmp_path / "log").open("wb") as log:
        vcld = subprocess.Popen(
            [sys.executable, "-m", "vcld.main", "--config", f"{tmp_path}/vcld.yaml"], stdout=log, stderr=log
        )
    try:
        until(lambda: (tmp_path / "run/vcld.sock").exists())
        ready = [*vcl, "wait", "vm/web", "--for=condition=Ready", "--timeout=30s"]
        until(lambda: subprocess.run(ready, capture_output=True, check=False).returncode == 0)
        vcld.send_signal(signal.SIGSTOP)
        command = [*vcl, "--request-timeout=1s", "node", "shutdown", "--local", "--yes", "--deadline=10"]
        command += ["--config", f"{tmp_path}/vcld.yaml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert f"vcld (process {vcld.pid}) does not answer: killing it" in done.stderr
        assert "virtualmachine/web stopped" in done.stdout
        assert vcld.wait(10) == -signal.SIGKILL
    finally:
        vcld.kill()
        vcld.wait(10)


def until(holds: Any) -> None:
    ends = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)
