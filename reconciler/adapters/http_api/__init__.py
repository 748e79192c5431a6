"""The HTTP API of docs/api.md on aiohttp: `build_app` makes it, `serve` puts it on a UNIX socket."""

from reconciler.adapters.http_api.app import build_app
from reconciler.adapters.http_api.services import ApiServices
from reconciler.adapters.http_api.sockets import serve
from reconciler.adapters.http_api.waiting import waiting_app

__all__ = ["ApiServices", "build_app", "serve", "waiting_app"]
