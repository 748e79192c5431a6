"""The status tree on disk: readable, whole, and only touched when something changed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import yaml

from reconciler.adapters.status_tree import StatusTree
from reconciler.resources.errors import ManifestDirectoryError

WEB = {
    "apiVersion": "vcl/v1",
    "kind": "VirtualMachine",
    "metadata": {"name": "web", "generation": 2},
    "spec": {"memory": "64Mi", "cloudInit": {"userData": "#cloud-config\nusers: []\n"}},
    "status": {"phase": "Running", "source": {"path": "web.yaml", "line": 1}, "note": "größer"},
}


async def test_an_object_is_one_readable_file(tmp_path: Path) -> None:
    tree = StatusTree(tmp_path / "status")
    await tree.write("VirtualMachine", "web", WEB)
    path = tmp_path / "status" / "virtualmachines" / "web.yaml"
    text = path.read_text()
    assert text.startswith(
        "# Written by vcld; changes here are lost. Its manifest is web.yaml.\napiVersion: vcl/v1\nkind: Virt"
    )
    assert "größer" in text
    assert yaml.safe_load(text) == WEB
    assert stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0
    assert os.listdir(path.parent) == ["web.yaml"]


async def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    tree = StatusTree(tmp_path)
    await tree.write("VirtualMachine", "web", WEB)
    before = (tmp_path / "virtualmachines" / "web.yaml").stat()
    await tree.write("VirtualMachine", "web", dict(WEB))
    assert (tmp_path / "virtualmachines" / "web.yaml").stat().st_ino == before.st_ino
    await tree.write("VirtualMachine", "web", {**WEB, "status": {"phase": "Stopped"}})
    assert (tmp_path / "virtualmachines" / "web.yaml").stat().st_ino != before.st_ino


async def test_a_file_that_somebody_removed_comes_back(tmp_path: Path) -> None:
    tree = StatusTree(tmp_path)
    await tree.write("VirtualMachine", "web", WEB)
    (tmp_path / "virtualmachines" / "web.yaml").unlink()
    await tree.write("VirtualMachine", "web", WEB)
    assert (tmp_path / "virtualmachines" / "web.yaml").exists()


async def test_what_an_earlier_run_left_is_known_and_can_be_removed(tmp_path: Path) -> None:
    await StatusTree(tmp_path).write("VirtualMachine", "web", WEB)
    await StatusTree(tmp_path).write("Node", "r1", WEB)
    (tmp_path / "virtualmachines" / ".db.yaml.tmp").write_text("half")
    tree = StatusTree(tmp_path)
    assert await tree.names() == {("VirtualMachine", "web"), ("Node", "r1")}
    assert os.listdir(tmp_path / "virtualmachines") == ["web.yaml"]
    await tree.remove("VirtualMachine", "web")
    await tree.remove("VirtualMachine", "web")
    assert await tree.names() == {("Node", "r1")}


async def test_a_tree_that_cannot_be_written_is_an_error_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    tree = StatusTree(tmp_path / "file")
    with pytest.raises(ManifestDirectoryError, match=r"status tree .* cannot be written"):
        await tree.write("VirtualMachine", "web", WEB)
    assert (tmp_path / "file").read_text() == "in the way"
