"""The verbs about manifests: apply, diff, edit, validate, explain, schema. Bytes stay as they are."""

from __future__ import annotations

import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest

WEB = """\
# my web server
apiVersion: vcl/v1
kind: VirtualMachine
metadata: {name: web}
spec:
  cpu: {cores: 2}
  memory: 2Gi   # enough
"""
BROKEN = WEB.replace("  cpu: {cores: 2}\n", "  vcpu: 4\n").replace("2Gi ", "8Gb ")


@pytest.fixture
def web(tmp_path: Path) -> Path:
    path = tmp_path / "web.yaml"
    path.write_text(WEB)
    return path


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes EDITOR a program that runs this shell text on the file, `$1`; `$2` counts its runs from 1."""

    def use(script: str) -> Path:
        log = tmp_path / "seen"
        program = tmp_path / "editor"
        program.write_text(
            f'#!/bin/sh\necho run >> {log}.runs\ncp "$1" {log}.$(wc -l < {log}.runs)\n'
            f'set -- "$1" $(wc -l < {log}.runs)\n{script}\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", str(program))
        return log

    return use


def report(result: str, **more: Any) -> dict[str, Any]:
    entry = {
        "source": "web.yaml",
        "kind": "VirtualMachine",
        "name": "web",
        "result": result,
        "path": "web.yaml",
    }
    return {
        "results": [{**entry, "warnings": [], "error": None, **more}],
        "problems": more.pop("problems", []),
    }


def test_files_may_be_joined_with_commas(vcl: Any, api: Any, web: Path) -> None:
    odd, other = web.parent / "a,b.yaml", web.parent / "other.yaml"
    odd.write_text(WEB)
    other.write_text(WEB)
    assert vcl("apply", "-f", f"{web},{other}", "-f", str(odd)).code == 0
    [(_, _, body)] = api.requests("POST")
    assert [file["name"] for file in body["files"]] == [str(web), str(other), str(odd)]


def test_apply_sends_the_bytes_and_says_what_became_of_each_object(vcl: Any, api: Any, web: Path) -> None:
    assert vcl("apply", "-f", str(web)).out == "virtualmachine/web created\n"
    assert api.files["web.yaml"] == WEB.encode()
    assert vcl("apply", "-f", str(web)).out == "virtualmachine/web unchanged\n"
    web.write_text(WEB + "# more\n")
    assert (
        vcl("apply", "-f", str(web), "--dry-run=server").out
        == "virtualmachine/web configured (server dry run)\n"
    )
    assert api.files["web.yaml"] == WEB.encode()
    assert vcl("apply", "-f", str(web), "-o", "name").out == "virtualmachine/web\n"


def test_apply_takes_only_manifests_of_a_directory(vcl: Any, api: Any, web: Path) -> None:
    folder = web.parent / "many"
    (folder / "sub").mkdir(parents=True)
    for name in (
        "a.yaml",
        "b.yml",
        "c.json",
        "d.yaml~",
        "e.yaml.bak",
        ".f.yaml",
        "g.txt",
        "h.conflict-r1.yaml",
    ):
        (folder / name).write_text(WEB)
    (folder / "sub" / "i.yaml").write_text(WEB)
    vcl("apply", "-f", str(folder))
    assert sorted(api.files) == ["a.yaml", "b.yml", "c.json"]
    vcl("apply", "-R", "-f", str(folder))
    assert "i.yaml" in api.files
    empty = web.parent / "empty"
    empty.mkdir()
    assert f"error: there is no manifest in {empty}; manifests end in" in vcl("apply", "-f", str(empty)).err


def test_apply_goes_on_past_what_it_cannot_read(vcl: Any, api: Any, web: Path) -> None:
    bad = web.parent / "latin.yaml"
    bad.write_bytes(b"name: caf\xe9\n")
    result = vcl("apply", "-f", "/nonexistent.yaml", "-f", str(bad), "-f", str(web))
    assert result.code == 1
    assert result.out == "virtualmachine/web created\n"
    assert "cannot read /nonexistent.yaml: No such file or directory" in result.err
    assert "is not UTF-8 (byte 10 is 0xE9); save it as UTF-8" in result.err


def test_apply_tells_problems_and_warnings_on_stderr(vcl: Any, api: Any, web: Path) -> None:
    problem = "web.yaml:6:3: spec.vcpu: unknown field; did you mean 'cpu'?\n   6 |   vcpu: 4"
    failed = report("failed", error="2 errors; correct them")["results"]
    fine = report("created", name="db", warnings=["db.yaml:9:1: status: is ignored"])["results"]
    api.reports = [{"results": [*failed, *fine], "problems": [problem]}]
    result = vcl("apply", "-f", str(web))
    assert result.code == 1
    assert result.out == "virtualmachine/db created\n"
    assert result.err == (
        "warning: db.yaml:9:1: status: is ignored\n"
        f"{problem}\n"
        "error: web.yaml: virtualmachine/web: 2 errors; correct them\n"
    )


def test_apply_waits_until_the_vms_are_ready(vcl: Any, web: Path) -> None:
    assert (
        vcl("apply", "--wait", "-f", str(web)).out == "virtualmachine/web created\nvirtualmachine/web ready\n"
    )


def test_a_client_dry_run_needs_no_daemon(vcl: Any, api: Any, web: Path) -> None:
    result = vcl("apply", "-f", str(web), "--dry-run=client")
    assert (result.code, result.out) == (0, "virtualmachine/web valid (client dry run)\n")
    web.write_text(BROKEN)
    result = vcl("apply", "-f", str(web), "--dry-run=client")
    assert result.code == 1
    assert "error: 2 errors in 1 file; correct the lines above and try again" in result.err
    assert not api.asked


def test_many_files_go_in_several_requests(vcl: Any, api: Any, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.yaml").write_text("#" * 900_000)
    vcl("apply", "-f", str(tmp_path))
    assert [len(body["files"]) for _, _, body in api.requests("POST")] == [2, 2, 1]


def test_validate_names_every_problem_with_its_line(vcl: Any, web: Path) -> None:
    web.write_text(BROKEN)
    result = vcl("validate", str(web))
    assert result.code == 1
    assert f"{web}:6:3: spec.vcpu: unknown field; did you mean 'cpu'?\n   6 |   vcpu: 4\n" in result.out
    assert f"{web}:7:11: spec.memory: must be a quantity such as 512Mi or 4Gi, got '8Gb'\n" in result.out
    assert result.out.endswith("\n2 errors in 1 file; the running VM keeps its last valid spec\n")
    found = json.loads(vcl("validate", "-o", "json", str(web)).out)
    assert [(p["line"], p["column"], p["path"]) for p in found] == [
        (6, 3, "spec.vcpu"),
        (7, 11, "spec.memory"),
    ]


def test_validate_is_content_with_good_files_and_warnings(vcl: Any, web: Path) -> None:
    assert vcl("validate", str(web)).out == "1 object in 1 file: no problems\n"
    web.write_text(f"{WEB}status: {{}}\n")
    result = vcl("validate", str(web))
    assert result.code == 0
    assert "warning: status:" in result.out


def test_validate_finds_an_object_that_two_files_define(vcl: Any, web: Path) -> None:
    (web.parent / "other.yaml").write_text(WEB)
    result = vcl("validate", str(web.parent))
    assert result.code == 1
    assert "VirtualMachine 'web' is defined twice" in result.out
    assert f"it is also in VirtualMachine 'web' ({web.parent}/other.yaml:4)" in result.out


DISK = "  disks: [{name: root, image: shared}]\n  interfaces: [{name: lan, mac: '52:54:00:12:34:56'}]\n"
APART = """\
apiVersion: vcl/v1
kind: PlacementConstraint
metadata: {name: apart}
spec: {type: AntiAffinity, vms: {names: [web, db]}}
---
apiVersion: vcl/v1
kind: PlacementConstraint
metadata: {name: together}
spec: {type: Affinity, vms: {names: [web, db]}}
"""


@pytest.fixture
def clashing(tmp_path: Path) -> Path:
    """Files that are valid by themselves, and not together."""
    folder = tmp_path / "clashing"
    folder.mkdir()
    (folder / "web.yaml").write_text(WEB + DISK)
    (folder / "db.yaml").write_text(WEB.replace("name: web", "name: db") + DISK)
    (folder / "rules.yaml").write_text(APART)
    return folder


def test_validate_holds_files_against_each_other(vcl: Any, clashing: Path) -> None:
    result = vcl("validate", str(clashing))
    assert result.code == 1
    assert f"{clashing}/web.yaml:8:31: spec.disks[0].image: image 'shared' of pool 'default'" in result.out
    assert f"it is also used by VirtualMachine 'web' ({clashing}/web.yaml:9)" in result.out
    assert "spec.type: contradicts PlacementConstraint 'together'" in result.out
    assert "6 errors in 3 files" in result.out


def test_a_client_dry_run_holds_files_against_each_other(vcl: Any, clashing: Path) -> None:
    result = vcl("apply", "-f", str(clashing), "--dry-run=client")
    assert result.code == 1
    assert result.out == ""
    assert "MAC address 52:54:00:12:34:56 must be unique" in result.err


def test_a_thousand_files_are_validated_at_once(vcl: Any, tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"vm{number}.yaml").write_text(WEB.replace("web", f"vm{number}"))
    began = time.monotonic()
    assert vcl("validate", str(tmp_path)).out == "1000 objects in 1000 files: no problems\n"
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"a: &x 1\nb: *x\n",
        b"a: 1\na: 2\n",
        b"- 1\n",
        b"\x00",
        b"x" * (2**20 + 5),
    ],
)
def test_no_file_makes_validate_stumble(vcl: Any, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "odd.yaml"
    path.write_bytes(data)
    result = vcl("validate", str(path))
    assert result.code == (1 if data else 0)
    assert "odd.yaml:1" in result.out or "odd.yaml:2" in result.out


def test_explain_speaks_of_every_field_on_the_way(vcl: Any) -> None:
    out = vcl("explain", "vm.spec.disks").out
    assert out.startswith("KIND:       VirtualMachine\nVERSION:    vcl/v1\n\nFIELD: disks <[]Object>\n")
    assert "  name\t<string> -required-\n" in out
    assert "      cores\t<integer> -required-\n" in vcl("explain", "vm", "--recursive").out
    assert "did you mean 'disks'?" in vcl("explain", "vm.spec.dsks").err
    assert "there is no type 'vmm'" in vcl("explain", "vmm").err
    assert "FIELD: memory <quantity> -required-" in vcl("explain", "vm.spec.memory").out
    assert "Range: 1 to 1024" in vcl("explain", "vm.spec.cpu.cores").out


@pytest.mark.parametrize("kind", ["vm", "pc", "node", "cluster", "pool", "image"])
def test_every_kind_has_a_schema_and_an_explanation(vcl: Any, kind: str) -> None:
    assert json.loads(vcl("schema", kind).out)["$schema"].endswith("2020-12/schema")
    assert "spec\t<Object>" in vcl("explain", kind).out


def test_schema_lists_the_kinds(vcl: Any) -> None:
    assert "storagepool\n" in vcl("schema").out
    assert vcl("schema", "vm/web").code == 1


def test_diff_shows_what_would_change_and_exits_as_diff_does(vcl: Any, api: Any, web: Path) -> None:
    api.files["web.yaml"] = WEB.encode()
    assert vcl("diff", "-f", str(web)) == type(vcl("version"))(0, "", "")
    web.write_text(WEB.replace("2Gi", "4Gi"))
    result = vcl("diff", "-f", str(web))
    assert result.code == 1
    assert "--- live/web.yaml\n+++ merged/web.yaml\n" in result.out
    assert "-  memory: 2Gi   # enough\n+  memory: 4Gi   # enough\n" in result.out
    assert api.files["web.yaml"] == WEB.encode()


def test_diff_of_a_new_file_is_all_of_it(vcl: Any, web: Path) -> None:
    web.write_text("no newline at the end")
    result = vcl("diff", "-f", str(web))
    assert result.code == 1
    assert result.out.startswith("--- /dev/null\n+++ merged/web.yaml\n")
    assert result.out.endswith("+no newline at the end\n\\ No newline at end of file\n")


@pytest.mark.parametrize("argv", [("diff",), ("diff", "--wrong"), ("diff", "-f", "/nonexistent.yaml")])
def test_trouble_with_diff_is_no_difference(vcl: Any, argv: tuple[str, ...]) -> None:
    assert vcl(*argv).code == 2


def test_diff_refuses_what_the_daemon_refuses(vcl: Any, api: Any, web: Path) -> None:
    api.reports = [{**report("failed", error="1 error"), "problems": ["web.yaml:6:3: wrong"]}]
    result = vcl("diff", "-f", str(web))
    assert result.code == 2
    assert result.err.startswith("web.yaml:6:3: wrong\nerror: ")


def test_diff_can_be_shown_by_the_users_own_program(
    vcl: Any, api: Any, web: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.files["web.yaml"] = b"old\n"
    monkeypatch.setenv("VCL_EXTERNAL_DIFF", "diff -r -q")
    result = vcl("diff", "-f", str(web))
    assert result.code == 1
    assert "LIVE/web.yaml" in result.out
    monkeypatch.setenv("VCL_EXTERNAL_DIFF", "/nonexistent")
    assert vcl("diff", "-f", str(web)).code == 2


def test_edit_saves_the_bytes_of_the_editor(vcl: Any, api: Any, editor: Any) -> None:
    api.files["web.yaml"] = WEB.encode()
    editor("sed -i s/2Gi/4Gi/ $1")
    result = vcl("edit", "vm", "web")
    assert (result.code, result.out, result.err) == (0, "virtualmachine/web configured\n", "")
    assert api.files["web.yaml"] == WEB.replace("2Gi", "4Gi").encode()


def test_edit_without_a_change_changes_nothing(vcl: Any, api: Any, editor: Any) -> None:
    api.files["web.yaml"] = WEB.encode()
    editor("true")
    assert vcl("edit", "vm/web").out == "Edit cancelled, no changes made\n"
    assert not api.requests("POST")


def test_edit_opens_again_with_the_problems_on_top(vcl: Any, api: Any, editor: Any) -> None:
    api.files["web.yaml"] = WEB.encode()
    problem = "web.yaml:7:11: spec.memory: must be a quantity\n   7 |   memory: lots"
    api.reports = [{**report("failed", error="1 error"), "problems": [problem]}]
    log = editor("if [ $2 = 1 ]; then sed -i s/2Gi/lots/ $1; else sed -i s/lots/4Gi/ $1; fi")
    assert vcl("edit", "vm", "web").code == 0
    assert api.files["web.yaml"] == WEB.replace("2Gi", "4Gi").encode()
    again = Path(f"{log}.2").read_text()
    assert again.startswith("# vcl: this was not saved, because:\n# vcl:   web.yaml:7:11: spec.memory")
    assert again.endswith(WEB.replace("2Gi", "lots"))


def test_edit_gives_up_but_keeps_the_text(vcl: Any, api: Any, editor: Any) -> None:
    api.files["web.yaml"] = WEB.encode()
    api.reports = [report("failed", error="memory: must be a quantity")]
    editor("sed -i s/2Gi/lots/ $1")
    result = vcl("edit", "vm", "web")
    assert result.code == 1
    assert result.err.startswith("error: edit cancelled, what you wrote is not valid; your text is kept in ")
    kept = Path(result.err.strip().rpartition(" ")[2])
    assert kept.read_text() == WEB.replace("2Gi", "lots")
    assert api.files["web.yaml"] == WEB.encode()
    kept.unlink()
    kept.parent.rmdir()


def test_edit_does_not_rename_an_object(vcl: Any, api: Any, editor: Any) -> None:
    api.files["web.yaml"] = WEB.encode()
    log = editor("sed -i 's/name: web/name: shop/' $1")
    api.reports = [report("created", name="shop")]
    result = vcl("edit", "vm", "web")
    assert result.code == 1
    assert "virtualmachine/web is not in the file any more" in Path(f"{log}.2").read_text()
    assert api.files["web.yaml"] == WEB.encode()
    kept = Path(result.err.strip().rpartition(" ")[2])
    kept.unlink()
    kept.parent.rmdir()


def test_edit_does_not_overwrite_what_somebody_else_saved(vcl: Any, api: Any, editor: Any) -> None:
    api.files["web.yaml"] = WEB.encode()
    editor("sed -i s/2Gi/4Gi/ $1")

    def somebody(dry_run: bool) -> None:
        if not dry_run:
            api.files["web.yaml"] = b"other\n"

    api.on_apply = somebody
    result = vcl("edit", "vm", "web")
    assert result.code == 1
    assert "web.yaml was changed by somebody else meanwhile" in result.err
    kept = Path(result.err.strip().rpartition(" ")[2])
    assert "4Gi" in kept.read_text()
    assert api.files["web.yaml"] == b"other\n"
    kept.unlink()
    kept.parent.rmdir()


def test_edit_says_when_the_editor_fails(
    vcl: Any, api: Any, editor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.files["web.yaml"] = WEB.encode()
    editor("exit 3")
    assert "failed with code 3; nothing was saved" in vcl("edit", "vm", "web").err
    monkeypatch.setenv("EDITOR", "/nonexistent/editor")
    assert "cannot run the editor" in vcl("edit", "vm", "web").err
    assert "virtualmachines 'nope' not found" in vcl("edit", "vm", "nope").err
