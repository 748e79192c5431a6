"""What the documents refer to exists: files, sections, and verbs of the command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vcl.registry import VERBS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^ {4,}|`)vcl ([a-z]+)\b", re.MULTILINE)
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_a_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, section = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (section and section not in anchors(target)):
            broken.append(link)
    assert broken == []


@every_document
def test_a_command_that_is_shown_exists(path: Path) -> None:
    planned = {"init"} if path.name == "README.md" else set()
    known = {verb.name for verb in VERBS} | planned
    assert set(COMMAND.findall(path.read_text(encoding="utf-8"))) - known == set()


def test_the_readme_names_every_verb() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Verbs")[2].partition("## ")[0]
    named = {word for code in re.findall(r"`([^`]+)`", table) for word in code.split()[:1]}
    assert {verb.name for verb in VERBS} <= named


def test_the_operations_manual_names_every_setting() -> None:
    import json

    schema = json.loads((ROOT / "schemas/vcld.json").read_text(encoding="utf-8"))
    manual = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for name, field in schema["properties"].items():
        inner = field.get("properties", {})
        for setting in [f"{name}.{key}" for key in inner] or [name]:
            assert f"`{setting}`" in manual, setting


def test_every_decision_is_a_short_page_with_its_consequences() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [page.name[:4] for page in pages]
    assert len(set(numbers)) == len(numbers)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "onsequences" in text, page.name
        assert len(text.splitlines()) < 120, page.name
