"""Cutting one document out of a file leaves the others, and every byte of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.planning.document_cut import cut_document
from reconciler.testing.manifests import parse, pool, vm

HEAD = b"# yaml-language-server: $schema=x.json\n\n"


def cut(data: bytes, name: str) -> bytes:
    document = next(d for d in parse("all.yaml", data).documents if d.name == name)
    return cut_document(data, document.start, document.end)


@pytest.mark.parametrize(
    ("data", "name", "rest"),
    [
        (vm("a") + b"---\n" + vm("b"), "a", b"---\n" + vm("b")),
        (vm("a") + b"---\n" + vm("b"), "b", vm("a")),
        (b"---\n" + vm("a") + b"---\n" + vm("b"), "a", b"---\n" + vm("b")),
        (HEAD + vm("a") + b"---\n" + vm("b"), "a", HEAD + b"---\n" + vm("b")),
        (HEAD + b"---\n" + vm("a") + b"---\n" + vm("b"), "b", HEAD + b"---\n" + vm("a")),
        (vm("a") + b"--- # the second\n" + vm("b") + b"...\n", "b", vm("a")),
        (vm("a").replace(b"\n", b"\r\n") + b"---\r\n" + vm("b"), "a", b"---\r\n" + vm("b")),
        (vm("a") + b"---\n" + vm("b").rstrip(), "b", vm("a")),
        (vm("a") + b"---\n# only a comment\n---\n" + vm("b"), "a", b"---\n# only a comment\n---\n" + vm("b")),
    ],
    ids=["first", "last", "marked", "head", "head-marked", "remark", "crlf", "no-newline", "empty"],
)
def test_only_the_document_goes(data: bytes, name: str, rest: bytes) -> None:
    assert cut(data, name) == rest


comments = st.sampled_from([b"", b"# a comment\n", b"\n\n", b"# --- not a document\n"])


@settings(max_examples=60, deadline=None)
@given(st.lists(comments, min_size=2, max_size=5), st.data())
def test_the_others_mean_the_same_and_lose_nothing(between: list[bytes], data: st.DataObject) -> None:
    documents = [(vm if number % 2 else pool)(f"o{number}") for number in range(len(between))]
    whole = b"---\n".join(remark + document for remark, document in zip(between, documents, strict=True))
    gone = data.draw(st.integers(0, len(documents) - 1))
    rest = cut(whole, f"o{gone}")
    parsed = parse("all.yaml", rest)
    assert parsed.valid
    kept = [number for number in range(len(documents)) if number != gone]
    assert [document.name for document in parsed.documents] == [f"o{number}" for number in kept]
    assert all(documents[number] in rest for number in kept)
