"""The API of docs/api.md, as calls. Every failure becomes an error that says what to do.

Only this module knows that there is a socket. Nothing is retried here: what a lost answer means differs from
verb to verb.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import KindInfo
from vcl import http1
from vcl.session import DEFAULT_SOCKET

ROOT = "/apis/vcl/v1"

Object = dict[str, Any]


class Unreachable(VclError):
    """The daemon did not answer, so nothing is known."""


class ApiError(VclError):
    """The daemon said no. `code` as in HTTP, `reason` a CamelCase word, `problems` rendered lines."""

    def __init__(self, message: str, *, code: int, reason: str, cure: str, problems: tuple[str, ...]) -> None:
        super().__init__(message, cure=cure)
        self.code = code
        self.reason = reason
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One line of a watch: ADDED, MODIFIED, DELETED or BOOKMARK; ERROR lines raise ApiError instead. Those of
    logs: RECORD, MISSING, BACK, DROPPED or BOOKMARK."""

    type: str
    object: Object


class Client:
    """One daemon. `timeout` in seconds counts for each step of a request: connect, send, each read."""

    def __init__(self, path: str = DEFAULT_SOCKET, *, timeout: float = 30.0) -> None:
        self.path = path
        self.timeout = timeout

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The JSON under `path`, which is relative to /apis/vcl/v1 unless it starts with '/'."""
        return self._json("GET", path, query)

    def post(self, path: str, body: Any, *, at_least: float = 0.0) -> Any:
        """Send JSON, get JSON. `at_least`: seconds that the daemon may take for it, whatever `timeout` is."""
        patient = max(self.timeout, at_least)
        return self._json("POST", path, None, json.dumps(body).encode(), timeout=patient)

    def delete(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self._json("DELETE", path, query)

    def read(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """The bytes under `path`."""
        with self._asked("GET", path, query) as response:
            return response.read()

    def watch(self, path: str, query: Mapping[str, str], *, silence: float = 30.0) -> Iterator[WatchEvent]:
        """The lines of a watch, until the daemon ends it. Unreachable after `silence` seconds of nothing."""
        return self.stream(path, {**query, "watch": "1"}, silence=silence)

    def stream(self, path: str, query: Mapping[str, str], *, silence: float = 30.0) -> Iterator[WatchEvent]:
        """Lines with a type and an object, until the daemon ends them; otherwise as `watch`."""
        with self._asked("GET", path, query, timeout=silence) as response:
            for line in response.lines():
                event = self._parse(line)
                if event.get("type") == "ERROR":
                    raise _api_error(int(event["object"].get("code", 500)), event["object"])
                yield WatchEvent(type=str(event.get("type", "")), object=event.get("object") or {})

    def objects(self, info: KindInfo, selector: str = "") -> Object:
        """The list of a kind, with `items`."""
        return self._expect(self.get(info.plural, {"labelSelector": selector} if selector else None))

    def object(self, info: KindInfo, name: str) -> Object:
        """One object; ApiError with code 404 when there is none."""
        return self._expect(self.get(f"{info.plural}/{quote(name, safe='')}"))

    def table(self, info: KindInfo, selector: str = "") -> Object:
        """The list of a kind as a Table, with `columnDefinitions` and `rows`."""
        return self._expect(
            self.get(info.plural, {"as": "Table"} | ({"labelSelector": selector} if selector else {}))
        )

    def verb(self, name: str, verb: str, body: Mapping[str, Any]) -> Object:
        """Ask for start, stop, restart, reset, pause, resume or retry of a VM."""
        return self._expect(self.post(f"virtualmachines/{quote(name, safe='')}/{verb}", body))

    def node_verb(self, name: str, verb: str, body: Mapping[str, Any]) -> Object:
        """Ask for cordon, uncordon, drain, maintenance-on, maintenance-off or shutdown of a node."""
        return self._expect(self.post(f"nodes/{quote(name, safe='')}/{verb}", body))

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None = None,
        timeout: float | None = None,
    ) -> Any:
        with self._asked(method, path, query, body, timeout) as response:
            data = response.read()
        return self._parse(data) if data else {}

    @contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: bytes | None = None,
        timeout: float | None = None,
    ) -> Iterator[http1.Response]:
        target = (path if path.startswith("/") else f"{ROOT}/{path}") + (
            f"?{urlencode(query)}" if query else ""
        )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(self.timeout)
            try:
                sock.connect(self.path)
                sock.settimeout(timeout or self.timeout)
                with closing(http1.send(sock, method, target, body)) as response:
                    if response.status >= 400:
                        raise _api_error(response.status, _status_object(response.read()))
                    yield response
            except OSError as error:
                raise self._unreachable(error) from error
            except http1.ProtocolError as error:
                raise Unreachable(
                    f"vcld at {self.path} broke off: {error}",
                    cure="look at the daemon's log, then try again; what was asked may have happened",
                ) from error

    def _parse(self, data: bytes) -> Any:
        try:
            return json.loads(data)
        except ValueError as error:
            raise Unreachable(
                f"what {self.path} answered is not JSON: {data[:60]!r}",
                cure="is this vcld's socket? name the right one with --socket or VCL_SOCKET",
            ) from error

    def _expect(self, value: Any) -> Object:
        if isinstance(value, dict):
            return value
        raise Unreachable(
            f"what {self.path} answered is not an object",
            cure="is vcld as new as this program? see 'vcl version'",
        )

    def _unreachable(self, error: OSError) -> Unreachable:
        name_it = "or name its socket with --socket or VCL_SOCKET"
        if isinstance(error, TimeoutError):
            return Unreachable(
                f"vcld at {self.path} did not answer in time",
                cure="look at the daemon's log, or allow more with --request-timeout",
            )
        if isinstance(error, FileNotFoundError):
            why, cure = "no such file", f"is the daemon running? start it with 'vcld', {name_it}"
        elif isinstance(error, ConnectionRefusedError):
            why, cure = "nobody listens on it", f"the daemon is not running: start it with 'vcld', {name_it}"
        elif isinstance(error, PermissionError):
            why = "permission denied"
            cure = "run this as root, or as a member of the group that the daemon's configuration names"
        elif error.errno == errno.ENOTSOCK:
            why, cure = "not a socket", name_it.removeprefix("or ")
        else:
            why, cure = error.strerror or str(error), f"look at the daemon's log, {name_it}"
        return Unreachable(f"cannot reach vcld at {self.path}: {why}", cure=cure)


def is_not_found(error: VclError) -> bool:
    """Whether the daemon says that the object does not exist."""
    return isinstance(error, ApiError) and error.code == 404


def _status_object(data: bytes) -> Object:
    try:
        value = json.loads(data)
    except ValueError:
        return {"message": data[:200].decode("utf-8", "replace").strip()}
    return value if isinstance(value, dict) else {}


def _api_error(code: int, status: Object) -> ApiError:
    details = status.get("details") or {}
    return ApiError(
        str(status.get("message") or f"vcld answered {code}"),
        code=code,
        reason=str(status.get("reason") or ""),
        cure=str(details.get("cure") or ""),
        problems=tuple(str(problem) for problem in details.get("problems") or ()),
    )
