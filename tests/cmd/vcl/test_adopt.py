"""vcl adopt: what becomes of XML files, what is printed, what is asked of the daemon and of the person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vcl.adopting import Source, is_uri, make_manifests

from reconciler.adapters.schema_files import load_schemas
from reconciler.domainxml.adopt import Places
from reconciler.resources.manifest import parse_manifest

FIXTURES = Path(__file__).parents[2] / "domainxml" / "fixtures"
MAIL = str(FIXTURES / "pacemaker-virtualdomain.xml")
NT4 = str(FIXTURES / "ide-2009.xml")
POOL = {
    "kind": "StoragePool",
    "metadata": {"name": "ceph"},
    "spec": {"type": "rbd", "rbd": {"pool": "vms"}},
}
CLUSTER = {"kind": "Cluster", "metadata": {"name": "cluster"}, "spec": {"defaultPool": "ceph"}}


def test_a_dry_run_prints_manifests_that_can_be_kept_as_they_are(vcl: Any, api: Any) -> None:
    api.add(POOL, CLUSTER)
    result = vcl("adopt", "--from", MAIL, "--from", NT4, "--dry-run=client", "-o", "yaml")
    assert (result.code, api.requests("POST")) == (0, [])
    parsed = parse_manifest("vms.yaml", result.out.encode(), load_schemas())
    assert [problem.message for problem in parsed.problems] == []
    assert [document.name for document in parsed.documents] == ["pcmk-mail", "nt4"]
    assert parsed.documents[0].spec["disks"] == [{"name": "vda", "image": "mail", "cache": "writeback"}]
    assert f"# Adopted from {MAIL}\n# - its UUID is a0000000-" in result.out
    assert "# - only on its host: disk hda: /srv/images/nt4.raw" in result.out


def test_without_a_daemon_a_dry_run_goes_on_without_pools(command: Any, tmp_path: Path) -> None:
    result = command("adopt", "--from", MAIL, "--dry-run=client", VCL_SOCKET=str(tmp_path / "none.sock"))
    assert result.returncode == 0
    assert b"disks are matched to no StoragePool" in result.stderr
    assert b'name="vms/mail"' in result.stdout


def test_a_file_becomes_a_vm_that_is_off_and_keeps_its_uuid(vcl: Any, api: Any) -> None:
    api.add(POOL, CLUSTER)
    result = vcl("adopt", "--from", MAIL)
    assert (result.code, result.out) == (0, "virtualmachine/pcmk-mail created\n")
    assert "Ceph user admin" in result.err
    ((_, _, body),) = api.requests("POST")
    (domain,) = body["domains"]
    assert (domain["domain"], domain["running"], body["dryRun"]) == ("pcmk-mail", False, False)
    assert domain["uuid"].startswith("a0000000-")
    assert "runStrategy: Manual" in domain["content"]


def test_domains_are_chosen_by_name_and_renamed(vcl: Any, api: Any) -> None:
    web = str(FIXTURES / "rbd-many-monitors.xml")
    result = vcl("adopt", "--from", MAIL, "--from", web, "web_1", "--rename", "web_1=web-1")
    assert (result.code, result.out) == (0, "virtualmachine/web-1 created\n")
    (domain,) = api.requests("POST")[0][2]["domains"]
    assert domain["domain"] == "web_1"


def test_what_is_vcls_already_is_left_out_unless_it_is_named(vcl: Any, api: Any) -> None:
    own = str(FIXTURES / "made-by-vcl.xml")
    result = vcl("adopt", "--from", own, "--from", NT4)
    assert (result.code, result.out) == (0, "virtualmachine/nt4 created\n")
    assert "Left out, since they carry the mark of vcl: returned" in result.err
    assert vcl("adopt", "--from", own, "returned").out == "virtualmachine/returned created\n"


def test_one_that_fails_does_not_hold_up_the_others(vcl: Any, api: Any) -> None:
    api.refused["pcmk-mail"] = "there is a VM 'pcmk-mail' already"
    result = vcl("adopt", "--from", MAIL, "--from", NT4, "--from", str(FIXTURES / "rbd-many-monitors.xml"))
    assert (result.code, result.out) == (1, "virtualmachine/nt4 created\n")
    assert "error: virtualmachine/pcmk-mail: there is a VM 'pcmk-mail' already" in result.err
    assert "give it another: --rename 'web_1=web-1'" in result.err


def test_a_server_dry_run_asks_the_daemon_and_nobody_else(vcl: Any, api: Any) -> None:
    result = vcl("adopt", "--from", MAIL, "--dry-run=server", "--run-strategy", "RerunOnFailure")
    assert (result.code, result.out) == (0, "virtualmachine/pcmk-mail created (server dry run)\n")
    body = api.requests("POST")[0][2]
    assert body["dryRun"] is True
    assert "runStrategy: RerunOnFailure" in body["domains"][0]["content"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say where the domains are"),
        (("--from", "nowhere.xml"), "cannot read nowhere.xml"),
        (("--from", MAIL, "other"), f"there is no domain 'other' in {MAIL}"),
        (("--from", MAIL, "--rename", "x"), "what becomes what?"),
        (("--from", MAIL, "--dry-run=maybe"), "there is no dry run 'maybe'"),
        (("--from", MAIL, "--run-strategy", "Never"), "use one of Always, RerunOnFailure"),
        (("--from", __file__), "not well-formed XML"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_asked(
    vcl: Any, api: Any, words: tuple[str, ...], said: str
) -> None:
    result = vcl("adopt", *words)
    assert result.code != 0
    assert said in result.err
    assert api.requests("POST") == []


def test_two_domains_for_one_vm_are_both_named() -> None:
    text = Path(NT4).read_text(encoding="utf-8")
    sources = [Source(label=f"{host} nt4", name="nt4", document=text) for host in ("a", "b")]
    found = make_manifests(sources, Places(), {}, None)
    assert [manifest.vm.name for manifest in found.manifests] == ["nt4"]
    assert "b nt4: a nt4 is to be the VM 'nt4' as well" in str(found.errors[0])


def test_what_runs_is_to_run_always_and_gets_the_firmware_of_its_run() -> None:
    system = "<os firmware='efi'><type>hvm</type></os>"
    text = f"<domain type='kvm'><name>u</name><memory>65536</memory>{system}</domain>"
    chosen = "<loader type='pflash'>/fw.fd</loader><nvram>/nv/u.fd</nvram>"
    live = text.replace("</os>", f"{chosen}</os>")
    (manifest,) = make_manifests([Source(label="l", document=text, live=live)], Places(), {}, None).manifests
    assert manifest.running
    assert "runStrategy" not in manifest.vm.spec
    assert "/nv/u.fd" in manifest.vm.spec["domainXML"]
    assert "/fw.fd" in manifest.vm.spec["domainXML"]


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("qemu:///system", True),
        ("qemu+ssh://host/system", True),
        ("/etc/libvirt/qemu/web.xml", False),
        ("web.xml", False),
        ("-", False),
    ],
)
def test_a_uri_is_told_from_a_file(text: str, uri: bool) -> None:
    assert is_uri(text) is uri
