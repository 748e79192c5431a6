"""The first lines of a document: apiVersion, kind and name - what it is, before its schema is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from reconciler.resources.kinds import API_VERSION, WRITTEN, Kind, find_kind, valid_name
from reconciler.resources.problems import Finding, short
from reconciler.resources.suggest import did_you_mean, one_of

# At the start of a line, as in YAML, or in double quotes, as in JSON.
_KIND = re.compile(r"""(?:^["']?kind["']?|"kind")\s*:\s*["']?([A-Za-z]+)""")
_METADATA = re.compile(r"""(?:^["']?metadata["']?|"metadata")\s*:(.*)""")
_NAME = re.compile(r"""(?:^|[\s{,])["']?name["']?\s*:\s*["']?([A-Za-z0-9][A-Za-z0-9.-]*)""")


def examine_header(value: Any) -> tuple[Kind | None, tuple[Finding, ...]]:
    """The document's kind, or None and why it cannot be checked any further."""
    if not isinstance(value, dict):
        found = "a list" if isinstance(value, list) else f"the single value {short(value)}"
        message = f"a document must be a map that starts with 'apiVersion: {API_VERSION}', got {found}"
        return None, (Finding(path=(), message=message),)
    kind = next((kind for kind in WRITTEN if kind.value == value.get("kind")), None)
    if kind is not None:
        return kind, ()
    return None, tuple(finding for finding in (_api_version(value), _unknown_kind(value)) if finding)


def _api_version(value: dict[str, Any]) -> Finding | None:
    if "apiVersion" not in value:
        message = f"is required, for example 'apiVersion: {API_VERSION}'"
        return Finding(path=("apiVersion",), message=message, at_key=True)
    if value["apiVersion"] == API_VERSION:
        return None
    message = f"must be '{API_VERSION}', got {short(value['apiVersion'])}"
    return Finding(path=("apiVersion",), message=message)


def _unknown_kind(value: dict[str, Any]) -> Finding:
    kinds = [kind.value for kind in WRITTEN]
    if "kind" not in value:
        message = f"is required, and {one_of(kinds)}"
        return Finding(path=("kind",), message=message, at_key=True)
    wanted = value["kind"]
    if not isinstance(wanted, str):
        return Finding(path=("kind",), message=f"{one_of(kinds)}, got {short(wanted)}")
    if wanted.endswith("List"):
        message = f"lists are not supported, got {short(wanted)}; separate the objects by lines of '---'"
        return Finding(path=("kind",), message=message)
    known = find_kind(wanted)
    if known is not None and known.kind not in WRITTEN:
        message = f"{short(wanted)} is no kind to write: vcl makes these itself; {one_of(kinds)}"
        return Finding(path=("kind",), message=message)
    guess = known.kind.value if known is not None else did_you_mean(wanted, kinds)
    cure = f"did you mean '{guess}'?" if guess else one_of(kinds)
    return Finding(path=("kind",), message=f"unknown kind {short(wanted)}; {cure}")


def guess_identity(value: Any, lines: Sequence[str]) -> tuple[Kind | None, str | None]:
    """The kind and name of a document. `lines`: the text of one that is broken, to guess from when what could
    be read of it (`value`) does not tell. Either is None when it cannot be made out."""
    document = value if isinstance(value, dict) else {}
    metadata = document.get("metadata")
    names = (metadata.get("name") if isinstance(metadata, dict) else None, _name_in(lines))
    kinds = (document.get("kind"), _first(_KIND, lines))
    kind = next((kind for text in kinds for kind in WRITTEN if kind.value == text), None)
    return kind, next((name for name in names if isinstance(name, str) and valid_name(name)), None)


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> str | None:
    return next((match[1] for match in map(pattern.search, lines) if match), None)


def _name_in(lines: Sequence[str]) -> str | None:
    """The first `name:` on or below the line of `metadata:`, before the next field of the top level."""
    inside = False
    for line in lines:
        start = _METADATA.search(line)
        if start is None and (not inside or (line[:1].strip() and not line.startswith("#"))):
            inside = False
            continue
        inside = True
        match = _NAME.search(start[1] if start else line)
        if match:
            return match[1]
    return None
