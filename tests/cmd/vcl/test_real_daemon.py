"""The CLI and the daemon together: a manifest becomes a VM of the dummy controller, and goes again."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from vcl.main import main

WEB = """\
# a comment that stays
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: web, labels: {app: shop}}
spec: {cpu: {cores: 1}, memory: 64Mi, controller: dummy}
"""


POWER = (
    ("pause", "paused"),
    ("resume", "running"),
    ("reset", "reset"),
    ("restart", "running"),
    ("stop", "stopped"),
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a running vcld: state/, run/vcld.sock."""
    top = tmp_path_factory.mktemp("vcld")
    config = {"node": "r1", "stateDir": f"{top}/state", "runDir": f"{top}/run", "controllers": {"dummy": {}}}
    (top / "vcld.yaml").write_text(yaml.safe_dump(config))
    with (top / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "vcld.main", "--config", str(top / "vcld.yaml")], stdout=log, stderr=log
        )
    limit = time.monotonic() + 30
    while not (top / "run/vcld.sock").exists():
        assert process.poll() is None, (top / "log").read_text()
        assert time.monotonic() < limit, (top / "log").read_text()
        time.sleep(0.05)
    yield top
    process.terminate()
    process.wait(30)


@pytest.fixture
def vcl(daemon: Path, capfd: pytest.CaptureFixture[str]) -> Any:
    def run(*argv: str, code: int = 0) -> str:
        got = main([*argv, "--socket", str(daemon / "run/vcld.sock")])
        out, err = capfd.readouterr()
        assert got == code, f"{argv}: {out}{err}"
        return out + err

    return run


@pytest.mark.slow
def test_a_vm_lives_from_file_to_deletion(
    vcl: Any, daemon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(WEB)
    manifests = daemon / "state/manifests"
    new = vcl("diff", "-f", str(file), code=1)
    assert new.startswith("--- /dev/null\n+++ merged/virtualmachine-web.yaml\n")
    tried = vcl("apply", "-f", str(file), "--dry-run=server")
    assert tried == "virtualmachine/web created (server dry run)\n"
    planned = vcl("plan", "--apply", str(file), code=1)
    assert "1 change: 1 to start." in planned
    index = planned.split("Index: ")[1].strip()
    assert "not as they were" in vcl("apply", "-f", str(file), "--check-index", "0" * 12, code=1)
    made = vcl("apply", "-f", str(file), "--wait", "--check-index", index)
    assert made == "virtualmachine/web created\nvirtualmachine/web ready\n"
    assert (manifests / "virtualmachine-web.yaml").read_text() == WEB
    assert vcl("apply", "-f", str(file)) == "virtualmachine/web unchanged\n"
    assert vcl("diff", "-f", str(file)) == ""
    assert vcl("plan").startswith("Nothing would change.\n")
    assert "1 VM would lose its place." in vcl("plan", "--node-down", "r1", code=1)
    assert "VMs like web (1 vCPU, 64Mi) fit" in vcl("capacity", "web")
    assert vcl("get", "vms", "--no-headers").split()[:4] == ["web", "Running", "True", "r1"]
    assert vcl("get", "vms", "-l", "app in (shop)", "-o", "name") == "virtualmachine/web\n"
    assert json.loads(vcl("get", "vm", "web", "-o", "json"))["status"]["phase"] == "Running"
    assert "web login:" in vcl("console", "web", "--tail", "5")
    assert vcl("vnc", "web").startswith("127.0.0.1:59")
    for verb, done in POWER:
        assert f"virtualmachine/web {done}\n" in vcl(verb, "web", "--wait", "--timeout=20s")
    assert vcl("wait", "vm/web", "--for=jsonpath={.status.phase}=Stopped").endswith("condition met\n")
    assert "is Stopped" in vcl("vnc", "web", code=1)
    assert vcl("start", "web", "--wait", "--timeout=20s").endswith("running\n")
    monkeypatch.setenv("VISUAL", "sed -i s/64Mi/32Mi/")
    assert vcl("edit", "vm", "web") == "virtualmachine/web configured\n"
    assert (manifests / "virtualmachine-web.yaml").read_text() == WEB.replace("64Mi", "32Mi")
    assert "Virtual machines:  1: 1 Running" in vcl("cluster", "status")
    assert "Generation:   2" in vcl("describe", "vm", "web")
    assert vcl("delete", "-f", str(file)) == 'virtualmachine "web" deleted\n'
    assert vcl("get", "vms") == "No resources found\n"
    assert not list(manifests.glob("*.yaml"))


@pytest.mark.slow
def test_what_happened_is_told(vcl: Any, tmp_path: Path) -> None:
    file = tmp_path / "db.yaml"
    file.write_text(WEB.replace("web", "db"))
    vcl("apply", "-f", str(file), "--wait")
    limit = time.monotonic() + 20
    while "Started" not in vcl("events", "vm/db"):
        assert time.monotonic() < limit
    assert "Normal  Started" in vcl("describe", "vm", "db")
    vcl("delete", "vm", "db")


@pytest.mark.slow
def test_a_node_without_others_keeps_its_vms_and_says_why_and_takes_no_more(vcl: Any, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / f"{name}.yaml").write_text(WEB.replace("web", name))
    vcl("apply", "-f", str(tmp_path / "old.yaml"), "--wait")
    foreseen = "These cannot leave r1:\n  old: there is no other node\n"
    assert vcl("drain", "r1", "--dry-run") == foreseen
    told = vcl("drain", "r1", code=1)
    assert told.startswith(f"{foreseen}node/r1 draining\n")
    assert "error: virtualmachine/old is still on r1: there is no other node\n" in told
    assert "r1 is not empty: 1 VM cannot leave" in told
    assert "Ready,Draining,SchedulingDisabled" in vcl("get", "nodes")
    assert "Still to go" in vcl("describe", "node", "r1")
    vcl("apply", "-f", str(tmp_path / "new.yaml"))
    vcl("wait", "vm/new", "--for=jsonpath={.status.phase}=Unschedulable")
    assert vcl("uncordon", "r1") == "node/r1 uncordoned\n"
    vcl("wait", "vm/new", "--for=condition=Ready")
    assert "Cancelled" in vcl("describe", "node", "r1")
    vcl("delete", "vm", "old", "new")


@pytest.mark.slow
def test_mistakes_are_told_by_the_daemon_in_the_words_of_validate(vcl: Any, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    file.write_text(WEB.replace("cores: 1", "cores: many"))
    told = vcl("apply", "-f", str(file), code=1)
    offline = vcl("validate", str(file), code=1)
    assert offline.splitlines()[0] in told
    assert "error: " in told
    vcl("diff", "-f", str(file), code=2)
    assert "no deletions are held" in vcl("confirm", "--yes", code=1)
    assert "error: " in vcl("get", "vms", "-l", "a b c", code=1)
