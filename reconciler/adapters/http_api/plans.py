"""POST plan and capacity: what would happen, and how many more VMs fit. Nothing is changed by either."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import BadRequest, json_response
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.plans import Like, Plans
from reconciler.planning.prospect import Supposed
from reconciler.ports.manifests import ApplyInput
from reconciler.resources.codec import encode
from reconciler.resources.errors import ConflictError


async def plan(request: web.Request) -> web.StreamResponse:
    """POST plan"""
    data = await requests.body(request, allowed=("files", "nodesDown", "drain", "repair", "balance"))
    files = tuple(_file(entry, f"files[{i}]") for i, entry in enumerate(requests.listed(data, "files")))
    supposed = Supposed(
        down=_names(data, "nodesDown"),
        drained=_names(data, "drain"),
        repair=requests.boolean(data, "repair"),
        balance=requests.boolean(data, "balance"),
    )
    planned = await plans_of(request).plan(files, supposed)
    found = encode(planned.prospect)
    empty: dict[str, Any] = {"changes": [], "waiting": [], "nodes": []}
    return json_response(
        {**empty, **found, "differs": planned.prospect.differs, "warnings": list(planned.warnings)}
    )


async def capacity(request: web.Request) -> web.StreamResponse:
    """POST capacity"""
    data = await requests.body(request, allowed=("vm", "file"))
    if len(data) != 1:
        raise BadRequest("give either vm, the name of a VM, or file, the manifest of one")
    file = data.get("file")
    like = Like(vm=requests.text(data, "vm")) if file is None else Like(file=_file(file, "file"))
    return json_response(encode(await plans_of(request).room(like)))


def plans_of(request: web.Request) -> Plans:
    """Raises ConflictError when this daemon places nothing."""
    plans = request.app[SERVICES].plans
    if plans is None:
        raise ConflictError("this daemon plans nothing")
    return plans


def _file(entry: Any, where: str) -> ApplyInput:
    if not isinstance(entry, dict) or set(entry) - {"name", "content"}:
        raise BadRequest(f"{where}: must be an object with name and content")
    name = requests.text(entry, "name", f"{where}.")
    return ApplyInput(name=name, content=requests.content(entry, "content", f"{where}."))


def _names(data: dict[str, Any], name: str) -> frozenset[str]:
    names = requests.listed(data, name)
    if not all(isinstance(each, str) for each in names):
        raise BadRequest(f"{name}: must be a list of names of nodes")
    return frozenset(names)
