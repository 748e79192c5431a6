"""parse_manifest is given anything at all, and always answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.adapters.schema_files import load_schemas
from reconciler.resources.crosscheck import KnownObjects, cross_check
from reconciler.resources.manifest import ParsedFile, parse_manifest
from reconciler.resources.problems import render, summary
from reconciler.resources.yamlreader import PARSER, read_yaml

ROOT = Path(__file__).parents[2]
EXAMPLES = [path.read_bytes() for path in sorted((ROOT / "manifests").glob("*.yaml"))]
BAD = [
    path.read_bytes()
    for path in sorted((ROOT / "tests" / "fixtures" / "bad_manifests").iterdir())
    if path.suffix != ".expected"
]
# fmt: off
PIECES = [
    b"\n---\n", b"---", b"...\n", b"\t", b"  ", b"\n", b"\r", b"\r\n", b": ", b":", b"- ", b"[", b"]", b"{",
    b"}", b"&a ", b"*a", b"!!str ", b"<<: ", b"|\n", b">-\n", b"'", b'"', b"#", b"%YAML 1.2\n", b"? ", b"~",
    b"null", b".nan", b"1e999", b"-1", b"012", b"0x" + b"f" * 50, b"9" * 60, b"\xff", b"\xfe\xff", b"\0",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\\ud800", b"\\U00110000", b"metadata:\n  name: x\n",
    b"kind: Node\n", b"spec:", b"status: 1",
]
# fmt: on
fuzz = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A real manifest with a few bytes, words and lines added, removed, doubled or moved."""
    data = draw(st.sampled_from([*EXAMPLES, *BAD]))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        piece = draw(
            st.one_of(st.sampled_from(PIECES), st.binary(max_size=3), st.just(data[at : at + length]))
        )
        gone = draw(st.integers(0, 40)) if draw(st.booleans()) else 0
        data = data[:at] + piece + data[at + gone :]
    return data


def check(data: bytes, path: str) -> ParsedFile:
    parsed = parse_manifest(path, data, load_schemas())
    for problem in parsed.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        shown = render(problem)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert len(shown) < 3_000
    assert summary(parsed.problems)
    spans = [(d.start, d.end) for d in parsed.documents]
    for document in parsed.documents:
        assert 0 <= document.start <= document.end <= len(data)
        assert document.locate(("spec", "disks", 0, "name"))[0] >= 1
        if document.valid:
            assert spans.count((document.start, document.end)) == 1
    cross_check(parsed.documents, KnownObjects())
    return parsed


@fuzz
@given(data=st.binary(max_size=200), path=st.sampled_from(["a.yaml", "a.json"]))
def test_any_bytes_get_an_answer(data: bytes, path: str) -> None:
    check(data, path)


@fuzz
@given(text=st.text(max_size=200), path=st.sampled_from(["a.yaml", "a.json"]))
def test_any_text_gets_an_answer(text: str, path: str) -> None:
    check(text.encode("utf-8", errors="surrogatepass"), path)


@fuzz
@given(data=mutated(), path=st.sampled_from(["a.yaml", "a.yaml", "a.json"]))
def test_damaged_manifests_get_an_answer(data: bytes, path: str) -> None:
    check(data, path)


@fuzz
@given(data=st.lists(st.sampled_from([*PIECES, b"a", b"b: 1\n"]), max_size=30).map(b"".join))
def test_heaps_of_yaml_s_special_characters_get_an_answer(data: bytes) -> None:
    check(data, "a.yaml")


@fuzz
@given(data=mutated())
def test_cutting_a_valid_document_out_of_a_valid_file_touches_no_other(data: bytes) -> None:
    parsed = parse_manifest("a.yaml", data, load_schemas())
    if not parsed.valid or len(parsed.documents) < 2:
        return
    for document in parsed.documents:
        rest = parse_manifest("a.yaml", data[: document.start] + data[document.end :], load_schemas())
        assert rest.valid
        assert [(d.name, d.spec) for d in rest.documents] == [
            (d.name, d.spec) for d in parsed.documents if d is not document
        ]


@pytest.mark.parametrize("data", EXAMPLES)
def test_libyaml_and_its_stand_in_read_the_same(data: bytes) -> None:
    text = data.decode()
    assert read_yaml(text, PARSER) == read_yaml(text, yaml.SafeLoader)
