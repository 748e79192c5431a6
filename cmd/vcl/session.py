"""What every verb shares: which daemon it talks to, and how it reports what failed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from reconciler.resources.errors import VclError

if TYPE_CHECKING:
    from vcl.client import Client

DEFAULT_SOCKET = "/run/vcl/vcld.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The global options. `timeout` in seconds, of each step of a request."""

    socket: str = DEFAULT_SOCKET
    timeout: float = 30.0


def session(ctx: typer.Context) -> Session:
    """The global options of this run."""
    value: Any = ctx.find_root().obj
    return value if isinstance(value, Session) else Session()


def connect(ctx: typer.Context) -> Client:
    """A client of the daemon that the user means; nothing is sent yet."""
    from vcl.client import Client

    chosen = session(ctx)
    return Client(chosen.socket, timeout=chosen.timeout)


def complain(error: VclError | str) -> None:
    """Say on stderr what went wrong, with the problems that the daemon found."""
    sys.stdout.flush()
    for problem in getattr(error, "problems", ()):
        print(problem, file=sys.stderr)
    print(f"error: {error}", file=sys.stderr)


def warn(message: str) -> None:
    """Say on stderr what is odd but did not stop the verb."""
    sys.stdout.flush()
    print(f"warning: {message}", file=sys.stderr)


class UsageError(VclError):
    """The command line itself makes no sense."""
