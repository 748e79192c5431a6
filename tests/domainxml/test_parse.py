"""Text that nobody has checked: refused with a line, or kept as it was written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.domainxml.parse import DomainXmlInvalid, parse, serialize

LAUGHS = """<?xml version="1.0"?>
<!DOCTYPE lolz [
 <!ENTITY lol "lol">
 <!ENTITY lol2 "&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;&lol;">
]>
<domain>&lol2;</domain>
"""


def problems(text: str) -> list[str]:
    with pytest.raises(DomainXmlInvalid) as refused:
        parse(text)
    return [str(problem) for problem in refused.value.found]


def test_a_document_type_is_refused_before_its_entities_are_read() -> None:
    assert problems(LAUGHS) == ["line 2: a document type (<!DOCTYPE ...>) is not allowed; remove it"]


def test_an_external_entity_is_refused() -> None:
    text = '<!DOCTYPE domain SYSTEM "file:///etc/passwd"><domain/>'
    assert problems(text) == ["line 1: a document type (<!DOCTYPE ...>) is not allowed; remove it"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty; expected <domain ...>"),
        (" \n\t", "empty; expected <domain ...>"),
        ("<domain>\n<name>a</nam></domain>", "line 2: not well-formed XML: mismatched tag"),
        ("hello", "line 1: not well-formed XML: syntax error"),
        ("<domain>\n  <name>a", "line 2: not well-formed XML: no element found"),
        ("<network/>", "line 1: the root element must be <domain>, got <network>"),
        ("\n\n<network/>", "line 3: the root element must be <domain>, got <network>"),
        ("<domain>&undefined;</domain>", "line 1: not well-formed XML: undefined entity"),
        (
            "<domain>\n<qemu:commandline/></domain>",
            "line 2: not well-formed XML: a prefix is used but not declared; "
            "add xmlns:PREFIX='...' to <domain>",
        ),
        ("<domain>\n\ud800</domain>", "line 2: a character that is not Unicode text"),
        ("<domain>\n\x00</domain>", "line 2: not well-formed XML: not well-formed (invalid token)"),
        ("<domain" + " a='1'" * 2 + "/>", "line 1: not well-formed XML: duplicate attribute"),
        ("<domain>" + "<a>" * 64, "line 1: elements are nested deeper than 64 levels"),
        ("<domain>" + "<a/>" * 1_200_000, "longer than 4194304 characters"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, said: str) -> None:
    assert problems(text) == [said]


def test_nesting_without_end_is_refused_quickly() -> None:
    assert problems("<domain>" + "<a>" * 100_000) == ["line 1: elements are nested deeper than 64 levels"]


def test_lines_count_from_the_start_of_the_text_that_the_user_wrote() -> None:
    document = parse("\ufeff\n\n<?xml version='1.0' encoding='UTF-16'?>\n<domain>\n<name>a</name>\n</domain>")
    assert document.line(document.root) == 4
    assert document.line(document.root[0]) == 5


def test_prefixes_comments_and_instructions_survive() -> None:
    text = (
        '<domain xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0">\n'
        "  <!-- why & how -->\n"
        "  <?editor keep?>\n"
        "  <qemu:commandline>\n"
        '    <qemu:arg value="a &lt; b" />\n'
        "  </qemu:commandline>\n"
        "</domain>\n"
    )
    assert serialize(parse(text).root) == text


def outcome(text: str) -> str:
    """What became of a text: its root's name, or the first problem."""
    try:
        return str(parse(text).root.tag)
    except DomainXmlInvalid as refused:
        return str(refused.found[0])


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, f"<domain>{text}</domain>", f"<domain a='{text}'/>"):
        assert outcome(candidate)
