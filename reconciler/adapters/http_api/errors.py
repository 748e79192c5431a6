"""Errors as Kubernetes' Status objects. Invariants: whatever goes wrong, the client gets JSON that says what
to do; an unexpected error is in the log with its traceback, tells the client nothing of our insides, and
ends one request only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from reconciler.loops.object_views import dump_json
from reconciler.resources.errors import (
    AlreadyExists,
    ConflictError,
    ControllerUnavailable,
    Expired,
    InvalidInput,
    ManifestDirectoryError,
    NotFound,
    NotOurs,
    OutcomeUnknown,
    PoolUnavailable,
    StoreUnavailable,
    VclError,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class BadRequest(InvalidInput):
    """The request itself is wrong, not what a user wrote into a manifest."""


_STATUS: tuple[tuple[type[VclError], int, str], ...] = (
    (BadRequest, 400, "BadRequest"),
    (InvalidInput, 422, "Invalid"),
    (NotFound, 404, "NotFound"),
    (AlreadyExists, 409, "AlreadyExists"),
    (ConflictError, 409, "Conflict"),
    (NotOurs, 409, "Conflict"),
    (Expired, 410, "Expired"),
    (OutcomeUnknown, 504, "Timeout"),
    (StoreUnavailable, 503, "Unavailable"),
    (ControllerUnavailable, 503, "Unavailable"),
    (PoolUnavailable, 503, "Unavailable"),
    (ManifestDirectoryError, 503, "Unavailable"),
    (VclError, 500, "InternalError"),
)

_HTTP_REASONS = {
    400: "BadRequest",
    404: "NotFound",
    405: "MethodNotAllowed",
    413: "RequestEntityTooLarge",
}


def status_body(
    code: int, reason: str, message: str, *, cure: str = "", problems: Sequence[str] = ()
) -> dict[str, Any]:
    """A Status object."""
    details: dict[str, Any] = {}
    if cure:
        details["cure"] = cure
    if problems:
        details["problems"] = list(problems)
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
    return {**body, "details": details} if details else body


def status_of(error: VclError) -> dict[str, Any]:
    """The Status object of an expected error."""
    problems = error.problems if isinstance(error, InvalidInput) else ()
    code, reason = next((code, reason) for kind, code, reason in _STATUS if isinstance(error, kind))
    return status_body(code, reason, error.message, cure=error.cure, problems=problems)


def json_response(body: Any, *, status: int = 200) -> web.Response:
    """JSON, compact."""
    return web.Response(body=dump_json(body), status=status, content_type="application/json")


def _failure(body: dict[str, Any]) -> web.Response:
    return json_response(body, status=body["code"])


@web.middleware
async def errors_as_status(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error of a handler becomes a Status; the connection and the daemon go on."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _failure(_http_error(request, error))
    except VclError as error:
        body = status_of(error)
        if body["code"] >= 500:
            log.warning("%s %s: %s", request.method, request.path, error)
        return _failure(body)
    except ConnectionResetError:
        raise  # the client went away: there is nobody to tell
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return _failure(_internal())


def _internal() -> dict[str, Any]:
    return status_body(
        500,
        "InternalError",
        "vcld made a mistake; nothing is known about what was asked",
        cure="its log has the details: please report them",
    )


def _http_error(request: web.Request, error: web.HTTPException) -> dict[str, Any]:
    reason = _HTTP_REASONS.get(error.status, "BadRequest" if error.status < 500 else "InternalError")
    match error:
        case web.HTTPNotFound():
            message = f"there is no {request.path[:200]!r} in this API; docs/api.md lists what there is"
        case web.HTTPMethodNotAllowed():
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{request.method} is not possible on {request.path[:200]!r}; {allowed} is"
        case web.HTTPRequestEntityTooLarge():
            message = f"the request is too large: {error.text}; apply fewer files at a time"
        case _:
            message = error.text or error.reason
    return status_body(error.status, reason, message)


def within(seconds: float, handler: Handler) -> Handler:
    """The handler with a deadline; past it the client gets a Timeout."""

    async def limited(request: web.Request) -> web.StreamResponse:
        try:
            async with asyncio.timeout(seconds) as deadline:
                return await handler(request)
        except TimeoutError:
            if not deadline.expired():
                raise
            log.warning("%s %s: not done within %g s", request.method, request.path, seconds)
            cure = "look at what happened before you ask again" if request.method != "GET" else "try again"
            return _failure(status_body(504, "Timeout", f"not done within {seconds:g} s", cure=cure))

    return limited
