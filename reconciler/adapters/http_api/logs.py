"""GET of the cluster log: what all nodes say, as lines of JSON, to its end or as it comes."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from aiohttp import web

from reconciler.adapters.http_api import requests, streams
from reconciler.adapters.http_api.errors import BadRequest
from reconciler.adapters.http_api.services import SERVICES
from reconciler.loops.log_reader import LogReader
from reconciler.loops.object_views import dump_json
from reconciler.resources.codec import encode
from reconciler.resources.errors import InvalidInput, NotFound
from reconciler.resources.logrecords import (
    LogFilter,
    LogLevel,
    earlier,
    log_time,
    parse_level,
    parse_log_time,
    record_to_json,
)


class LogLineType(StrEnum):
    """Besides those of notices."""

    RECORD = "RECORD"


async def read(request: web.Request) -> web.StreamResponse:
    """GET logs"""
    logs = request.app[SERVICES].logs
    if logs is None:
        raise NotFound("this vcld keeps no log for readers", cure="look at its standard error")
    reader = logs.read(_filter(request))
    try:
        return await streams.stream(request, "LogRecord", _lines(reader))
    finally:
        reader.close()


def _filter(request: web.Request) -> LogFilter:
    level = request.query.get("level")
    try:
        return LogFilter(
            node=request.query.get("node") or None,
            vm=request.query.get("vm") or None,
            level=parse_level(level) if level else LogLevel.DEBUG,
            since=_since(request.query.get("since", "")),
            tail=requests.number(request, "tail", default=None, largest=10**6),
            follow=requests.flag(request, "follow"),
        )
    except InvalidInput as error:
        raise BadRequest(error.message, cure=error.cure) from error


def _since(text: str) -> str | None:
    """A time, or so many seconds before now."""
    if text.isascii() and text.isdigit():
        return earlier(log_time(datetime.now(UTC)), int(text[:12]))
    return parse_log_time(text) if text else None


def _lines(reader: LogReader) -> streams.Lines:
    begun = ended = False

    async def next_lines(timeout: float) -> tuple[list[streams.Line], int] | None:
        nonlocal begun, ended
        if not begun:
            begun = True
            return [], 0  # a BOOKMARK: the client knows at once that it is heard
        if ended:
            return None
        batch = await reader.next(timeout)
        ended = batch.ended
        found: list[streams.Line] = [(notice.kind, dump_json(encode(notice))) for notice in batch.notices]
        found += [(LogLineType.RECORD, dump_json(record_to_json(record))) for record in batch.records]
        return None if ended and not found else (found, 0)

    return next_lines
