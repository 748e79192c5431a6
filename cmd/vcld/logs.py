"""The daemon's own log: on stderr, one line a record, as text or as JSON; and for the cluster log."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from reconciler.adapters.log_handler import ClusterLogHandler
from vcld.config import LogConfig, LogFormat


class JsonFormatter(logging.Formatter):
    """time, level, logger, message, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(config: LogConfig) -> ClusterLogHandler:
    """Log to stderr from now on, and to the cluster log when there is one."""
    said = ClusterLogHandler()
    handler = logging.StreamHandler(sys.stderr)
    if config.format is LogFormat.JSON:
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
        )
    root = logging.getLogger()
    root.handlers[:] = [handler, said]
    root.setLevel(config.level.value.upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("watchdog").setLevel(logging.INFO)  # at debug it tells every look at a file
    return said
