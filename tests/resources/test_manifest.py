"""One manifest file: its documents and everything that is wrong with it.

tests/fixtures/bad_manifests holds a file for each family of mistakes, and in NAME.expected what vcl says.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.kinds import Kind
from reconciler.resources.manifest import MAX_PROBLEMS, ParsedFile, parse_manifest
from reconciler.resources.problems import Finding, render, summary
from reconciler.resources.validation import MAX_FINDINGS

BAD = Path(__file__).parent.parent / "fixtures" / "bad_manifests"
VM = "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: %s}\nspec: {cpu: {cores: 1}, memory: 1Gi}\n"


def parse(text: str | bytes, path: str = "web.yaml") -> ParsedFile:
    return parse_manifest(path, text if isinstance(text, bytes) else text.encode(), load_schemas())


def messages(text: str | bytes, path: str = "web.yaml") -> list[str]:
    return [render(problem).splitlines()[0] for problem in parse(text, path).problems]


def spec(lines: str) -> str:
    return f"apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata:\n  name: web\nspec:\n{lines}"


def described(parsed: ParsedFile) -> str:
    objects = [
        f"{d.kind} {d.name}, lines {d.line} to {d.end_line}: {'valid' if d.valid else 'not valid'}"
        for d in parsed.documents
    ]
    return "\n".join([*map(render, parsed.problems), summary(parsed.problems), *objects, ""])


@pytest.mark.parametrize("name", sorted(p.name for p in BAD.iterdir() if p.suffix != ".expected"))
def test_a_bad_file_gives_exactly_these_problems(name: str) -> None:
    expected = (BAD / f"{name}.expected").read_text(encoding="utf-8")
    assert described(parse((BAD / name).read_bytes(), name)) == expected


def test_the_example_of_the_design() -> None:
    assert [render(p) for p in parse(spec("  vcpu: 4\n  memory: 8Gb\n")).problems] == [
        "web.yaml:6:3: spec.vcpu: unknown field; did you mean 'cpu'?\n   6 |   vcpu: 4",
        "web.yaml:7:11: spec.memory: must be a quantity such as 512Mi or 4Gi, got '8Gb'\n"
        "   7 |   memory: 8Gb",
    ]


def test_a_document_carries_what_the_user_wrote_as_plain_data() -> None:
    (document,) = parse(
        "# first\n"
        "apiVersion: vcl/v1\n"
        "kind: VirtualMachine\n"
        "metadata:\n"
        "  name: web\n"
        "  labels: {app: web}\n"
        '  annotations: {note: "12"}\n'
        "spec:\n"
        "  cpu: {cores: 2}\n"
        "  memory: 2Gi\n"
        "  boot:\n"
        "  interfaces:\n"
        "    - {name: lan, mac: 52:54:00:12:34:56}\n"
    ).documents
    assert document.valid
    assert (document.kind, document.name) == (Kind.VIRTUAL_MACHINE, "web")
    assert document.labels == {"app": "web"}
    assert document.annotations == {"note": "12"}
    assert document.spec == {
        "cpu": {"cores": 2},
        "memory": "2Gi",
        "interfaces": [{"name": "lan", "mac": "52:54:00:12:34:56"}],
    }
    assert (document.line, document.end_line) == (2, 13)


def test_a_document_locates_its_values_in_the_file_also_when_it_is_not_the_first() -> None:
    second = parse(f"{VM % 'a'}---\n# note\n{VM % 'b'}").documents[1]
    assert second.line == 7
    assert second.locate(("spec", "memory")) == (10, 33)
    assert second.locate(("spec", "memory"), key=True) == (10, 25)
    problem = second.problem(Finding(path=("metadata", "name"), message="is taken"))
    assert render(problem) == ("web.yaml:9:18: metadata.name: is taken\n   9 | metadata: {name: b}")


def test_cutting_a_document_out_leaves_the_others_as_they_were() -> None:
    head, tail = "# web servers\n", "# about c\n"
    data = (
        f"{head}{VM % 'a'}---\r\n{VM % 'ü'.replace('ü', 'b')}# after b: ü\n--- # c\n{tail}{VM % 'c'}".encode()
    )
    parsed = parse(data)
    a, b, c = parsed.documents
    assert data[a.start : a.end] == f"{head}{VM % 'a'}".encode()
    assert data[b.start : b.end].decode() == f"---\r\n{VM % 'b'}# after b: ü\n"
    assert data[c.start : c.end].decode() == f"--- # c\n{tail}{VM % 'c'}"
    for document in parsed.documents:
        rest = parse(data[: document.start] + data[document.end :])
        assert rest.valid
        assert [d.spec for d in rest.documents] == [d.spec for d in parsed.documents if d is not document]


def test_a_file_of_several_documents_is_valid_when_all_are() -> None:
    parsed = parse(f"---\n{VM % 'a'}---\n---\n{VM % 'b'}---\n")
    assert parsed.valid
    assert [d.name for d in parsed.documents] == ["a", "b"]


def test_each_document_knows_whether_it_is_valid() -> None:
    parsed = parse(
        f"{VM % 'a'}---\n{VM % 'b'}  nope: 1\n---\n{(VM % 'c').replace('1Gi', '1GiB')}---\n{VM % 'd'}"
    )
    assert not parsed.valid
    assert [(d.name, d.valid) for d in parsed.documents] == [
        ("a", True),
        ("b", False),
        ("c", False),
        ("d", True),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "kind: VirtualMachine\nmetadata:\n  name: web\nspec: [\n",
        "kind: VirtualMachine\nmetadata: {name: web\nspec: 1\n",
        "spec: [\nmetadata:\n  # its name\n  name: web\nkind: VirtualMachine\n",
        "\tx\nkind: 'VirtualMachine'\nmetadata: {labels: {a: b}, 'name': \"web\"}\n",
        "kind: VirtualMachine\nmetadata:\n  name: web\n<<<<<<< HEAD\nspec:\n  memory: 1Gi\n=======\n",
        "kind: VirtualMachine\nmetadata: {name: web}\nspec: " + "[" * 100,
    ],
)
def test_a_broken_file_still_names_its_object(text: str) -> None:
    parsed = parse(text)
    assert not parsed.valid
    assert [(d.kind, d.name, d.valid) for d in parsed.documents] == [(Kind.VIRTUAL_MACHINE, "web", False)]


def test_broken_json_still_names_its_object() -> None:
    for text in (
        '{"kind":"VirtualMachine","metadata":{"name":"web"},',
        '{\n "kind": "VirtualMachine",\n "metadata": {\n  "name": "web"\n',
    ):
        (document,) = parse(text, "web.json").documents
        assert (document.kind, document.name, document.valid) == (Kind.VIRTUAL_MACHINE, "web", False)


def test_a_name_elsewhere_in_a_broken_file_is_not_taken_for_the_object_s() -> None:
    assert parse("kind: VirtualMachine\nmetadata:\nspec:\n  disks: [{name: root\n").documents == ()


def test_json_is_checked_like_yaml() -> None:
    text = (
        '{"apiVersion": "vcl/v1", "kind": "VirtualMachine", "metadata": {"name": "web"},\n"spec": {"cpu": 1}}'
    )
    assert messages(text, "web.json") == [
        "web.json:2:1: spec.memory: is required, for example 'memory: 2Gi'",
        "web.json:2:17: spec.cpu: must be a map, got 1",
    ]


def test_unquoted_macs_no_and_012_mean_what_they_look_like() -> None:
    text = spec(
        "  cpu: {cores: 012}\n"
        "  memory: 1Gi\n"
        "  nodeSelector: {spare: no}\n"
        "  interfaces: [{name: lan, mac: 52:54:00:12:34:56}]\n"
    )
    parsed = parse(text)
    assert parsed.problems == ()
    assert parsed.documents[0].spec["cpu"] == {"cores": 12}
    assert parsed.documents[0].spec["nodeSelector"] == {"spare": "no"}
    assert parsed.documents[0].spec["interfaces"][0]["mac"] == "52:54:00:12:34:56"


def test_what_only_vcl_sets_is_ignored_with_a_warning() -> None:
    parsed = parse(f"{VM % 'web'}status: {{phase: [Running, 1]}}\n")
    assert parsed.valid
    assert [p.message for p in parsed.warnings] == ["is set by vcl and ignored here; remove it"]
    assert parsed.documents[0].valid


def test_a_file_of_10_mib_says_what_a_manifest_may_be() -> None:
    data = b"# " + b"x" * (10 * 2**20)
    assert messages(data) == [
        "web.yaml:1:1: the file is 10.0 MiB; a manifest is 1 MiB at most, split it into several files"
    ]
    assert parse(data).documents == ()


def test_100_000_nested_brackets_are_one_problem() -> None:
    for path in ("web.yaml", "web.json"):
        (message,) = messages("[" * 100_000, path)
        assert message == f"{path}:1:65: lists and maps are nested more than 64 deep here"


@pytest.mark.parametrize(
    "text",
    [
        "---\nkind: Node\napiVersion: vcl/v1\nmetadata: {name: a}\nspec: {a1: 1, b2: 2}\n" * 10_000,
        "- {<<: 1, a: 1, a: 2}\n" * 20_000,
        "--- {}\n" * 20_000,
    ],
)
def test_a_file_of_endless_mistakes_is_given_up_with_a_word(text: str) -> None:
    parsed = parse(text)
    assert len(parsed.errors) == MAX_PROBLEMS + 1
    assert parsed.errors[-1].message == "there are more problems from here on; correct those above first"
    assert not any(document.valid for document in parsed.documents)


def test_one_document_of_endless_mistakes_is_given_up_with_a_word() -> None:
    parsed = parse(spec("".join(f"  field{n}: 1\n" for n in range(60_000))))
    assert len(parsed.errors) == MAX_FINDINGS + 1
    assert parsed.errors[0].message == "has more problems; correct these first"


def test_a_valid_document_after_too_many_problems_does_not_count_as_checked() -> None:
    bad = "---\nkind: VirtualMachine\napiVersion: vcl/v1\nmetadata: {name: a}\nspec: {a1: 1, b2: 2, c3: 3}\n"
    parsed = parse(f"{bad * MAX_PROBLEMS}---\n{VM % 'last'}")
    assert parsed.documents[-1].name == "last"
    assert not parsed.documents[-1].valid


def test_reading_without_checking_does_not_import_jsonschema() -> None:
    code = (
        "import sys\n"
        "import reconciler.resources.crosscheck, reconciler.resources.explain\n"
        "import reconciler.adapters.schema_files as files\n"
        "files.load_schemas()\n"
        "sys.exit('jsonschema' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
