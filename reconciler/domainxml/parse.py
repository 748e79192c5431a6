"""Domain XML as text <-> tree, for text that nobody has checked before.

Why not ElementTree's own reader: a user's definition must survive with its prefixes (`qemu:commandline`) and
comments, errors must name a line, and a document type is refused, since with it come entities that grow
without bound or read files ("billion laughs", XXE). Names stay as written: a tag is 'qemu:arg', never
'{uri}arg'; `expand` gives the namespace where it matters.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.parsers import expat

from reconciler.resources.errors import InvalidInput

MAX_CHARS = 4 * 1024 * 1024
"""A domain's XML with hundreds of devices has 300,000; what is longer is no domain."""
MAX_DEPTH = 64

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class XmlProblem:
    """One thing wrong with a text. `line` and `column` count from 1 within the text; 0: not at one place."""

    line: int
    message: str
    column: int = 0

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


class DomainXmlInvalid(InvalidInput):
    """The text is no domain XML that vcl can use; `found` are the problems with their places."""

    def __init__(self, found: Sequence[XmlProblem]) -> None:
        lines = tuple(str(problem) for problem in found)
        super().__init__("domain XML: " + "; ".join(lines), problems=lines)
        self.found = tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A parsed text. `lines`: the line that each element starts on, without the `lead` blank ones before."""

    root: ET.Element
    lines: Mapping[ET.Element, int]
    lead: int = 0

    def line(self, element: ET.Element | None) -> int:
        """The line of an element of the text; 0 for one that was added later."""
        line = 0 if element is None else self.lines.get(element, 0)
        return line + self.lead if line else 0


class _Reader:
    """Feeds expat's events to a TreeBuilder, and refuses what must not be there."""

    def __init__(self) -> None:
        self.lines: dict[ET.Element, int] = {}
        self.builder = ET.TreeBuilder(insert_comments=True, insert_pis=True)
        self.depth = 0
        parser = expat.ParserCreate("utf-8")  # whatever the text's own declaration says
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self.builder.data
        parser.CommentHandler = self._comment
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartDoctypeDeclHandler = self._doctype
        self.parser = parser

    def fail(self, message: str) -> DomainXmlInvalid:
        line, column = self.parser.CurrentLineNumber, self.parser.CurrentColumnNumber + 1
        return DomainXmlInvalid([XmlProblem(line=line, column=column, message=message)])

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(f"elements are nested deeper than {MAX_DEPTH} levels")
        self.lines[self.builder.start(tag, attributes)] = self.parser.CurrentLineNumber

    def _end(self, tag: str) -> None:
        self.depth -= 1
        self.builder.end(tag)

    def _comment(self, text: str) -> None:
        if self.depth:
            self.builder.comment(text)

    def _instruction(self, target: str, text: str) -> None:
        if self.depth:
            self.builder.pi(target, text)

    def _doctype(self, name: str, system: str | None, public: str | None, internal: bool) -> None:
        raise self.fail("a document type (<!DOCTYPE ...>) is not allowed; remove it")


def parse(text: str) -> Document:
    """The document whose root is <domain>. Raises DomainXmlInvalid, and nothing else."""
    body = text.removeprefix("\ufeff")
    start = len(body) - len(body.lstrip())
    if len(body) > MAX_CHARS:
        raise DomainXmlInvalid([XmlProblem(line=0, message=f"longer than {MAX_CHARS} characters")])
    if start == len(body):
        raise DomainXmlInvalid([XmlProblem(line=0, message="empty; expected <domain ...>")])
    lead = body[:start].count("\n")
    reader = _Reader()
    try:
        raw = _utf8(body[start:])
        reader.parser.Parse(raw, True)
        expat.ParserCreate("utf-8", "}").Parse(raw, True)  # once more, for undeclared prefixes
    except expat.ExpatError as error:
        raise DomainXmlInvalid([_syntax(error, lead)]) from error
    except DomainXmlInvalid as error:
        raise DomainXmlInvalid([_shifted(problem, lead) for problem in error.found]) from None
    root = reader.builder.close()
    if root.tag != "domain":
        message = f"the root element must be <domain>, got <{root.tag}>"
        raise DomainXmlInvalid([XmlProblem(line=reader.lines[root] + lead, column=1, message=message)])
    return Document(root=root, lines=reader.lines, lead=lead)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise DomainXmlInvalid(
            [XmlProblem(line=line, message="a character that is not Unicode text")]
        ) from error


def _syntax(error: expat.ExpatError, lead: int) -> XmlProblem:
    text = expat.errors.messages[error.code]
    if text == expat.errors.XML_ERROR_UNBOUND_PREFIX:
        text = "a prefix is used but not declared; add xmlns:PREFIX='...' to <domain>"
    message = f"not well-formed XML: {text}"
    return XmlProblem(line=error.lineno + lead, column=error.offset + 1, message=message)


def _shifted(problem: XmlProblem, lines: int) -> XmlProblem:
    return XmlProblem(line=problem.line + lines, column=problem.column, message=problem.message)


def serialize(root: ET.Element) -> str:
    """The tree as indented text, with a final newline. Same tree, same bytes."""
    ET.indent(root)
    root.tail = "\n"
    return ET.tostring(root, encoding="unicode")


def unprintable(root: ET.Element) -> tuple[str, str] | None:
    """(element or attribute name, character) of the first character that XML cannot hold, or None."""
    for element in root.iter():
        values = [(str(element.tag), element.text or ""), *element.attrib.items()]
        for name, value in values:
            if bad := _NOT_XML.search(value):
                return name, f"U+{ord(bad[0]):04X}"
    return None


def expand(element: ET.Element, scope: Mapping[str, str]) -> tuple[str, str, Mapping[str, str]]:
    """(namespace, local name, scope for its children) of an element; `scope`: prefix -> namespace outside."""
    if not isinstance(element.tag, str):
        return "", "", scope
    declared = {
        key.partition(":")[2]: value
        for key, value in element.attrib.items()
        if key == "xmlns" or key.startswith("xmlns:")
    }
    inner = {**scope, **declared} if declared else scope
    prefix, colon, local = element.tag.partition(":")
    return (inner.get(prefix, ""), local, inner) if colon else (inner.get("", ""), element.tag, inner)
