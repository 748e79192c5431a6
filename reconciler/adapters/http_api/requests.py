"""Reading requests: what is in the URL and the body, or BadRequest that says what is allowed."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, NoReturn

from aiohttp import web

from reconciler.adapters.http_api.errors import BadRequest
from reconciler.planning.selectors import Requirements, parse_selector
from reconciler.resources.errors import InvalidInput, NotFound
from reconciler.resources.kinds import KINDS, Kind, find_kind

_TRUE = frozenset({"1", "true", "yes"})
_FALSE = frozenset({"", "0", "false", "no"})


def kind_of(request: web.Request) -> Kind:
    """The kind in the URL. Raises NotFound."""
    text = request.match_info["kind"]
    info = find_kind(text)
    if info is None:
        raise NotFound(
            f"there is no kind {text[:100]!r}", cure=f"there are {', '.join(i.plural for i in KINDS)}"
        )
    return info.kind


def flag(request: web.Request, name: str) -> bool:
    """A yes/no parameter of the query. Raises BadRequest."""
    text = request.query.get(name, "").lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadRequest(f"{name}={text[:40]!r} is not understood", cure=f"write {name}=1 or leave it out")


def number(request: web.Request, name: str, *, default: int | None, largest: int) -> int | None:
    """A whole number in the query, 0 to `largest`. Raises BadRequest."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise BadRequest(f"{name}={text[:40]!r} is no whole number")
    if int(text) > largest:
        raise BadRequest(f"{name}={text} is too large: {largest} at most")
    return int(text)


def as_table(request: web.Request) -> bool:
    """Whether the client wants tables. Raises BadRequest."""
    text = request.query.get("as", "")
    if text not in ("", "Table"):
        raise BadRequest(f"as={text[:40]!r} is not understood", cure="write as=Table or leave it out")
    return text == "Table"


def selector(request: web.Request) -> Requirements:
    """The label selector of the query. Raises BadRequest."""
    try:
        return parse_selector(request.query.get("labelSelector", ""))
    except InvalidInput as error:
        raise BadRequest(error.message, cure=error.cure) from error


def revision(request: web.Request) -> int | None:
    """The `resourceVersion` of the query; None (also for 0, as in Kubernetes) is "from the start"."""
    return number(request, "resourceVersion", default=None, largest=2**63) or None


async def body(request: web.Request, *, allowed: Collection[str]) -> dict[str, Any]:
    """The JSON object in the body; an empty body is an empty object. Raises BadRequest."""
    try:
        data = await request.read()
    except web.RequestPayloadError as error:
        raise BadRequest(f"the body cannot be read: {error}") from error
    if not data:
        return {}
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be a JSON object, got {type(value).__name__}")
    unknown = sorted(set(value) - set(allowed))
    if unknown:
        fields = ", ".join(sorted(allowed)) or "none"
        raise BadRequest(f"unknown field {unknown[0][:60]!r} in the body", cure=f"there are: {fields}")
    return value


def boolean(data: dict[str, Any], name: str) -> bool:
    """A boolean field, False when absent. Raises BadRequest."""
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise BadRequest(f"{name}: must be true or false, got {str(value)[:40]!r}")
    return value


def text(data: dict[str, Any], name: str, where: str = "") -> str:
    """A required text field. Raises BadRequest."""
    value = data.get(name)
    if not isinstance(value, str):
        raise BadRequest(f"{where}{name}: must be a text, got {str(value)[:40]!r}")
    return value


def content(data: dict[str, Any], name: str, where: str = "") -> bytes:
    """The bytes of a file that is carried as a text. Raises BadRequest."""
    try:
        return text(data, name, where).encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(f"{where}{name}: is not Unicode text at character {error.start}") from error


def listed(data: dict[str, Any], name: str) -> list[Any]:
    """A list, empty when absent. Raises BadRequest."""
    value = data.get(name, [])
    if not isinstance(value, list):
        raise BadRequest(f"{name}: must be a list, got {str(value)[:40]!r}")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
