"""The node's own directories fail it: full, unreadable, not writable. Nothing is lost, guests go on, and all
is well again once the cause is gone."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

NOT_ALL_POWERFUL = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root that file modes hold for, as in many containers."""


def fill(directory: Path) -> Path:
    """Take every byte that is left."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


def test_a_full_state_directory_loses_nothing_and_stops_no_guest(node: Any) -> None:
    node.tmpfs(node.state, "24m")
    node.start()
    pid = node.boot("web")
    before = node.claim("web")
    manifest = node.manifests / "web.yaml"
    text = manifest.read_bytes()
    new = node.root / "new.yaml"
    new.write_text(text.decode().replace("web", "new"))
    changed = node.root / "changed.yaml"
    changed.write_text(text.decode().replace("128Mi", "192Mi"))
    ballast = fill(node.state)

    for file in (new, changed):
        refused = node.vcl("apply", "-f", str(file))
        assert refused.returncode == 1
        assert "no space left" in (refused.stdout + refused.stderr).lower()
        assert "Traceback" not in refused.stderr
    assert manifest.read_bytes() == text
    refused = node.vcl("stop", "web")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert node.phase("web") == "Running"
    assert node.qemus("web") == [pid]
    assert node.process.poll() is None

    # A daemon that dies on a full disk comes back when there is room, and finds everything.
    node.end(signal.SIGKILL)
    node.start(wait=False)
    ballast.unlink()
    node.until(lambda: node.vcl("version").returncode == 0, what="vcld answers")
    node.until_phase("web", "Running")
    assert node.qemus("web") == [pid]
    assert node.claim("web") == before
    assert manifest.read_bytes() == text
    assert node.vcl("apply", "-f", str(new)).returncode == 0
    node.until_phase("new", "Running")
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0
    assert node.qemus("web") == []


def test_a_daemon_that_lives_through_a_full_disk_goes_on_by_itself(node: Any) -> None:
    node.tmpfs(node.state, "24m")
    node.start()
    node.save("web")
    node.until_phase("web", "Running")
    (pid,) = node.qemus("web")
    ballast = fill(node.state)
    os.kill(pid, signal.SIGKILL)
    node.until(lambda: node.qemus("web") == [], what="the guest is gone")
    assert node.vcl("get", "vms").returncode == 0
    ballast.unlink()
    node.until(lambda: node.qemus("web") != [], what="the guest is started again")
    node.until_phase("web", "Running")
    (pid,) = node.qemus("web")
    assert node.claim("web")["clients"][0].split(":")[1] == str(pid)


def test_a_manifest_that_cannot_be_read_is_not_a_deletion(node: Any) -> None:
    node.prefix = NOT_ALL_POWERFUL
    node.start()
    path = node.save("web")
    node.until_phase("web", "Running")
    (pid,) = node.qemus("web")
    path.chmod(0)
    node.save("other")
    node.until_phase("other", "Running")
    told = node.vcl("cluster", "status", "-o", "json").stdout
    assert "web.yaml" in told
    assert "ermission" in told
    assert node.qemus("web") == [pid]
    path.chmod(0o644)
    node.until(
        lambda: "ermission" not in node.vcl("cluster", "status", "-o", "json").stdout, what="it is read"
    )
    assert node.qemus("web") == [pid]


@pytest.mark.parametrize("directory", ["", "state"])
def test_a_state_directory_that_cannot_be_written_is_refused_in_words(node: Any, directory: str) -> None:
    node.prefix = NOT_ALL_POWERFUL
    (node.root / directory).mkdir(exist_ok=True)
    log = (node.root / "log").open("ab")
    log.close()
    (node.root / "vcld.yaml").touch()
    (node.root / directory).chmod(0o555)
    try:
        node.start(wait=False)
        assert node.process.wait(20) == 1
        node.process = None
    finally:
        (node.root / directory).chmod(0o755)
    said = node.log()
    assert "error: " in said
    assert str(node.state) in said
    assert "ermission denied" in said
    assert "run vcld as root" in said
    assert "Traceback" not in said


def test_an_image_directory_that_vanishes_starts_nothing_anew(node: Any) -> None:
    """An unmounted pool looks like an empty directory: no image is made in it."""
    node.start()
    node.save("web", disks=[{"name": "data", "size": "1Mi"}])
    node.until_phase("web", "Running")
    assert node.vcl("stop", "web", "--force", "--wait").returncode == 0
    aside = node.images.rename(node.root / "aside")
    node.images.mkdir()
    assert node.vcl("start", "web").returncode == 0
    node.until_said("web", str(node.images))
    assert list(node.images.iterdir()) == []
    node.images.rmdir()
    aside.rename(node.images)
    assert node.vcl("retry", "web").returncode == 0
    node.until_phase("web", "Running")
    status = json.loads(node.vcl("cluster", "status", "-o", "json").stdout)
    assert status["problems"] == []
