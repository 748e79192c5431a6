"""Manifest files over HTTP: apply, list, read, and confirming held deletions."""

from __future__ import annotations

import re
from typing import Any

from aiohttp import web

from reconciler.adapters.http_api import requests
from reconciler.adapters.http_api.errors import BadRequest, json_response
from reconciler.adapters.http_api.plans import plans_of
from reconciler.adapters.http_api.services import SERVICES
from reconciler.ports.manifests import ApplyInput, ApplyReport, ApplyResult, FileReport


async def apply(request: web.Request) -> web.StreamResponse:
    """POST manifests"""
    data = await requests.body(request, allowed=("files", "dryRun", "index"))
    files = data.get("files")
    if not isinstance(files, list) or not files:
        raise BadRequest("files: must be a list of at least one file")
    inputs = tuple(_input(entry, f"files[{index}]") for index, entry in enumerate(files))
    dry_run = requests.boolean(data, "dryRun")
    if "index" in data:
        await plans_of(request).require(requests.text(data, "index"), inputs)
    return json_response(_report(await request.app[SERVICES].manifests.apply(inputs, dry_run=dry_run)))


def _input(entry: Any, where: str) -> ApplyInput:
    if not isinstance(entry, dict):
        raise BadRequest(f"{where}: must be an object with name, content, path and expect")
    data, path = requests.content(entry, "content", f"{where}."), entry.get("path")
    if path is not None and not isinstance(path, str):
        raise BadRequest(f"{where}.path: must be a text or null")
    expect = _expect(entry.get("expect"), path, where)
    name = requests.text(entry, "name", f"{where}.")
    return ApplyInput(name=name, content=data, path=path, expect=expect)


def _expect(value: Any, path: str | None, where: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or re.fullmatch(r"[0-9a-f]{64}", value) is None:
        raise BadRequest(f"{where}.expect: must be a SHA-256 of 64 hexadecimal digits, lower case, or null")
    if path is None:
        raise BadRequest(f"{where}.expect: belongs to 'path', which is not there")
    return value


def _report(report: ApplyReport) -> dict[str, Any]:
    return {"results": [_result(result) for result in report.results], "problems": list(report.problems)}


def _result(result: ApplyResult) -> dict[str, Any]:
    return {
        "source": result.source,
        "kind": result.kind,
        "name": result.name,
        "result": result.result.value,
        "path": result.path,
        "warnings": list(result.warnings),
        "error": result.error,
    }


async def list_files(request: web.Request) -> web.StreamResponse:
    """GET manifests"""
    files = await request.app[SERVICES].manifests.files()
    return json_response({"items": [_file(file) for file in files]})


def _file(file: FileReport) -> dict[str, Any]:
    objects = [{"kind": kind, "name": name} for kind, name in file.objects]
    return {"path": file.path, "objects": objects, "valid": file.valid, "problems": list(file.problems)}


async def read_file(request: web.Request) -> web.StreamResponse:
    """GET manifests/PATH"""
    data = await request.app[SERVICES].manifests.read(request.match_info["path"])
    return web.Response(body=data, content_type="application/yaml")


async def confirm(request: web.Request) -> web.StreamResponse:
    """POST confirm"""
    data = await requests.body(request, allowed=("id",))
    id = requests.text(data, "id")
    await request.app[SERVICES].manifests.confirm(id)
    return json_response({"id": id, "confirmed": True})
