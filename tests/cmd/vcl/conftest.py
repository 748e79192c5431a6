"""A daemon's API with canned answers, on a real UNIX socket, and the CLI run against it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from vcl.main import main

from reconciler.resources.kinds import KINDS

API = "/apis/vcl/v1"

COLUMNS = {
    "virtualmachines": [
        ("NAME", 0), ("STATUS", 0), ("READY", 0), ("NODE", 0), ("AGE", 0),
        ("IP", 1), ("CPU", 1), ("MEMORY", 1), ("MESSAGE", 1),
    ],
}  # fmt: skip


def ago(**delta: float) -> str:
    """A time before now, as the API writes it; half a second early, so that its age is stable."""
    return (datetime.now(UTC) - timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")


def vm(name: str, phase: str = "Running", **more: Any) -> dict[str, Any]:
    """A merged VirtualMachine."""
    running = phase == "Running"
    status = {
        "phase": phase,
        "ready": running,
        "node": "r1",
        "message": "",
        "observedGeneration": 1,
        "ipAddresses": ["192.0.2.10"] if running else [],
        "startTime": "2026-01-31T12:00:00Z",
        "source": {"path": f"{name}.yaml", "line": 1},
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if running else "False",
                "reason": phase,
                "message": "",
                "lastTransitionTime": ago(minutes=5, seconds=3),
                "observedGeneration": 1,
            }
        ],
    }
    return {
        "apiVersion": "vcl/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": ago(**more.get("age", {"days": 5, "hours": 3, "minutes": 30})),
            "labels": more.get("labels", {"app": name}),
        },
        "spec": {"cpu": {"cores": 2}, "memory": "2Gi", **more.get("spec", {})},
        "status": {**status, **more.get("status", {})},
    }


def node(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "vcl/v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": ago(days=9, minutes=1)},
        "spec": {"rank": 0},
        "status": {"ready": True, "cpu": 8, "memory": 2**34, "virtualization": "kvm"},
    }


def failure(code: int, reason: str, message: str, **details: Any) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return web.json_response({**body, "details": details}, status=code)


@dataclass
class Api:
    """What the daemon would hold. Tests change the fields; `asked` is what the CLI asked for."""

    socket: str
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=lambda: {"storeRevision": 7, "heldDeletions": None})
    placement: dict[str, Any] = field(default_factory=lambda: {"node": "r1", "vms": [], "nodes": []})
    problems: str = ""
    watch_lines: list[dict[str, Any]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    console_output: bytes = b""
    console_refuses: str = ""
    typed: bytes = b""
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    on_verb: Callable[[dict[str, Any], str], None] | None = None
    on_get: Callable[[str, str], None] | None = None
    on_apply: Callable[[bool], None] | None = None
    raw: web.Response | None = None
    life: str = ""
    plan: dict[str, Any] = field(default_factory=lambda: {"index": "4f2a91c03b1e", "differs": False})
    capacity: dict[str, Any] = field(default_factory=dict)
    drain_plan: dict[str, Any] = field(default_factory=lambda: {"moves": [], "stays": []})
    log_streams: list[list[dict[str, Any]]] = field(default_factory=list)
    disks: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rebalance: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    """The answers to GET rebalance, one after the other; the last one stays."""
    rebalance_draft: dict[str, Any] = field(default_factory=lambda: {"moves": [], "kept": {}})
    power: list[dict[str, Any]] = field(default_factory=lambda: [{"node": "r1", "power": "On"}])
    """The answers to GET power, one after the other; the last one stays."""

    def add(self, *items: dict[str, Any]) -> None:
        for item in items:
            plural = next(info.plural for info in KINDS if info.kind.value == item["kind"])
            self.objects[plural, item["metadata"]["name"]] = item

    def requests(self, method: str) -> list[tuple[str, dict[str, str], Any]]:
        return [(path, query, body) for used, path, query, body in self.asked if used == method]

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._note], client_max_size=16 * 2**20)
        app.add_routes(
            [
                web.get("/version", self._version),
                web.get("/readyz", self._ready),
                web.get(f"{API}/status", self._status),
                web.get(f"{API}/placement", self._placement),
                web.get(f"{API}/events", self._events),
                web.get(f"{API}/logs", self._logs),
                web.get(f"{API}/manifests", self._list_files),
                web.get(f"{API}/manifests/{{path:.+}}", self._read_file),
                web.post(f"{API}/manifests", self._apply),
                web.post(f"{API}/adopt", self._adopt),
                web.post(f"{API}/confirm", self._confirm),
                web.post(f"{API}/plan", self._plan),
                web.post(f"{API}/capacity", self._capacity),
                web.post(f"{API}/nodes/{{name}}/confirm-down", self._confirm_down),
                web.post(f"{API}/nodes/{{name}}/{{verb}}", self._node_verb),
                web.get(f"{API}/nodes/{{name}}/drain", self._drain_plan),
                web.get(f"{API}/rebalance", self._rebalance),
                web.post(f"{API}/rebalance", self._begin_rebalance),
                web.post(f"{API}/rebalance/cancel", self._begin_rebalance),
                web.get(f"{API}/power", self._power),
                web.post(f"{API}/power/{{verb}}", self._power_verb),
                web.get(f"{API}/{{kind}}", self._list),
                web.get(f"{API}/{{kind}}/{{name}}", self._get),
                web.delete(f"{API}/{{kind}}/{{name}}", self._delete),
                web.get(f"{API}/virtualmachines/{{name}}/console", self._console),
                web.get(f"{API}/virtualmachines/{{name}}/console/tail", self._tail),
                web.get(f"{API}/virtualmachines/{{name}}/vnc", self._vnc),
                web.get(f"{API}/virtualmachines/{{name}}/disks", self._disks),
                web.post(f"{API}/virtualmachines/{{name}}/disks/{{disk}}/unlock", self._unlock),
                web.post(f"{API}/virtualmachines/{{name}}/{{verb}}", self._verb),
            ]
        )
        return app

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        data = await request.read() if request.can_read_body else b""
        body = json.loads(data) if data else None
        self.asked.append((request.method, request.path.removeprefix(f"{API}/"), dict(request.query), body))
        if self.raw is not None:
            return self.raw
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"version": "0.1.0", "apiVersion": "vcl/v1", "node": "r1", "libvirt": "9.0.0"}
        )

    async def _ready(self, request: web.Request) -> web.Response:
        return web.Response(text=self.problems or "ok", status=503 if self.problems else 200)

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self.status)

    async def _rebalance(self, request: web.Request) -> web.Response:
        return web.json_response(self.rebalance.pop(0) if len(self.rebalance) > 1 else self.rebalance[0])

    async def _begin_rebalance(self, request: web.Request) -> web.Response:
        return web.json_response({"id": "id1", **self.rebalance_draft})

    async def _power(self, request: web.Request) -> web.Response:
        return web.json_response(self.power.pop(0) if len(self.power) > 1 else self.power[0])

    async def _power_verb(self, request: web.Request) -> web.Response:
        if why := self.refused.get(request.match_info["verb"]):
            return failure(409, "Conflict", why)
        return web.json_response({"id": "id1", **(await request.json())})

    async def _placement(self, request: web.Request) -> web.Response:
        return web.json_response(self.placement)

    async def _plan(self, request: web.Request) -> web.Response:
        if "r9" in (await request.json())["nodesDown"]:
            return failure(404, "NotFound", "node 'r9' not found", cure="there are r1, r2")
        return web.json_response(self.plan)

    async def _capacity(self, request: web.Request) -> web.Response:
        return web.json_response(self.capacity)

    async def _confirm(self, request: web.Request) -> web.Response:
        self.status["heldDeletions"] = None
        return web.json_response({"confirmed": True})

    async def _confirm_down(self, request: web.Request) -> web.Response:
        if self.life:
            return failure(
                409, "Conflict", f"node 'r3' shows signs of life: {self.life}", cure="switch r3 off"
            )
        return web.json_response(await request.json())

    async def _events(self, request: web.Request) -> web.StreamResponse:
        wanted = {k: request.query[k] for k in ("kind", "name") if k in request.query}
        items = [e for e in self.events if all(e[key] == value for key, value in wanted.items())]
        if "watch" in request.query:
            return await self._stream(request, [{"type": "ADDED", "object": e} for e in items])
        return web.json_response({"items": items})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await self._stream(request, self.watch_lines)
        kind = request.match_info["kind"]
        wanted = request.query.get("labelSelector", "")
        items = [
            item
            for (plural, _), item in sorted(self.objects.items())
            if plural == kind and all(_matches(item, part) for part in wanted.split(",") if part)
        ]
        if request.query.get("as") == "Table":
            return web.json_response(table(kind, items))
        return web.json_response(
            {"apiVersion": "vcl/v1", "kind": "XList", "metadata": {"resourceVersion": "7"}, "items": items}
        )

    async def _stream(self, request: web.Request, lines: list[dict[str, Any]]) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(json.dumps(line).encode() + b"\n")
        return response

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        if not self.log_streams:
            return failure(404, "NotFound", "no more logs")
        return await self._stream(request, self.log_streams.pop(0))

    async def _get(self, request: web.Request) -> web.Response:
        kind, name = request.match_info["kind"], request.match_info["name"]
        if self.on_get:
            self.on_get(kind, name)
        item = self.objects.get((kind, name))
        return web.json_response(item) if item else failure(404, "NotFound", f"{kind} '{name}' not found")

    async def _delete(self, request: web.Request) -> web.Response:
        item = self.objects.pop((request.match_info["kind"], request.match_info["name"]), None)
        return web.json_response(item) if item else failure(404, "NotFound", "not found")

    async def _verb(self, request: web.Request) -> web.Response:
        item = self.objects.get(("virtualmachines", request.match_info["name"]))
        if item is None:
            return failure(404, "NotFound", "not found")
        if request.match_info["verb"].startswith("migrate"):
            return web.json_response(self.objects["migrations", f"{request.match_info['name']}-1"])
        if self.on_verb:
            self.on_verb(item, request.match_info["verb"])
        return web.json_response(item)

    async def _drain_plan(self, request: web.Request) -> web.Response:
        return web.json_response(self.drain_plan)

    async def _node_verb(self, request: web.Request) -> web.Response:
        item = self.objects.get(("nodes", request.match_info["name"]))
        if item is None:
            return failure(404, "NotFound", "not found")
        if self.on_verb:
            self.on_verb(item, request.match_info["verb"])
        return web.json_response(item)

    async def _list_files(self, request: web.Request) -> web.Response:
        return web.json_response({"items": [{"path": path, "objects": []} for path in self.files]})

    async def _read_file(self, request: web.Request) -> web.Response:
        data = self.files.get(request.match_info["path"])
        return failure(404, "NotFound", "no such file") if data is None else web.Response(body=data)

    async def _apply(self, request: web.Request) -> web.Response:
        data = await request.json()
        if self.on_apply:
            self.on_apply(data["dryRun"])
        if self.reports:
            return web.json_response(self.reports.pop(0))
        results = []
        for file in data["files"]:
            path = file["path"] or Path(file["name"]).name
            content = file["content"].encode()
            word = "unchanged" if self.files.get(path) == content else "configured"
            error = None
            if file.get("expect") not in (None, sha256(self.files.get(path, b"")).hexdigest()):
                word, error = "failed", f"{path} was changed by somebody else meanwhile"
            results.append(
                {
                    "source": file["name"],
                    "kind": "VirtualMachine",
                    "name": Path(path).stem,
                    "result": word if path in self.files else "created",
                    "path": path,
                    "warnings": [],
                    "error": error,
                }
            )
            if not data["dryRun"] and error is None:
                self.files[path] = content
        return web.json_response({"results": results, "problems": []})

    async def _adopt(self, request: web.Request) -> web.Response:
        (domain,) = (await request.json())["domains"]
        name = next(line.split()[-1] for line in domain["content"].splitlines() if line.startswith("  name:"))
        error = self.refused.get(name, "")
        word = "failed" if error else "adopted" if domain["running"] else "created"
        result = {"source": domain["name"], "name": name, "result": word, "path": "", "error": error}
        return web.json_response({"results": [result]})

    async def _tail(self, request: web.Request) -> web.Response:
        if self.console_refuses:
            return failure(409, "Conflict", self.console_refuses, cure="start it")
        return web.Response(body=self.console_output)

    async def _console(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_bytes(self.console_output)
        async for message in socket:
            assert message.type is WSMsgType.BINARY
            self.typed += message.data
            await socket.send_bytes(b"<" + message.data + b">")
            if b"poweroff" in message.data:
                await socket.close(message=b"the VM has stopped")
        return socket

    async def _disks(self, request: web.Request) -> web.Response:
        return web.json_response({"items": self.disks})

    async def _unlock(self, request: web.Request) -> web.Response:
        named = (disk for disk in self.disks if disk["name"] == request.match_info["disk"])
        return web.json_response({"items": next(named)["holders"]})

    async def _vnc(self, request: web.Request) -> web.Response:
        item = self.objects.get(("virtualmachines", request.match_info["name"]))
        if item is None:
            return failure(404, "NotFound", "not found")
        if item["status"]["phase"] != "Running":
            return failure(409, "Conflict", "virtualmachine 'web' is Stopped", cure="vcl start web")
        return web.json_response({"host": "127.0.0.1", "port": 5901, "display": ":1"})


def _matches(item: Mapping[str, Any], part: str) -> bool:
    key, _, value = part.partition("=")
    return bool((item["metadata"].get("labels") or {}).get(key) == value)


def table(kind: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The Table that the daemon would make of these objects."""
    columns = COLUMNS.get(kind, [("NAME", 0), ("AGE", 0)])
    rows = []
    for item in items:
        status, spec = item.get("status") or {}, item["spec"]
        cells = {
            "NAME": item["metadata"]["name"],
            "STATUS": status.get("phase"),
            "READY": str(bool(status.get("ready"))),
            "NODE": status.get("node"),
            "AGE": item["metadata"].get("creationTimestamp"),
            "IP": (status.get("ipAddresses") or [None])[0],
            "CPU": str((spec.get("cpu") or {}).get("cores")),
            "MEMORY": spec.get("memory"),
            "MESSAGE": status.get("message"),
        }
        rows.append(
            {"cells": [cells[name] for name, _ in columns], "object": {"name": item["metadata"]["name"]}}
        )
    return {
        "kind": "Table",
        "metadata": {"resourceVersion": "7"},
        "columnDefinitions": [
            {"name": name, "priority": priority, "format": "date" if name == "AGE" else ""}
            for name, priority in columns
        ],
        "rows": rows,
    }


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """A daemon with two VMs and a node, answering on a socket."""
    fake = Api(socket=str(tmp_path / "vcld.sock"))
    fake.add(vm("web"), vm("db", "Stopped", status={"message": "asked to stop"}), node("r1"))
    ready = threading.Event()
    stop = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        runner = web.AppRunner(fake.app(), shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, fake.socket).start()
        ready.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield fake
    loops[0].call_soon_threadsafe(stop.set)
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def vcl(api: Api, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run the CLI in this process against the fake daemon."""

    def run(*argv: str) -> Result:
        code = main([*argv, "--socket", api.socket])
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def command(api: Api) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run the real program in a process of its own; `env` adds to the environment."""

    def run(*argv: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "vcl.main", *argv],
            input=stdin,
            capture_output=True,
            timeout=30,
            env={**os.environ, "VCL_SOCKET": api.socket, **env},
            check=False,
        )

    return run
