"""`vcld`: parse the command line and the configuration, run until a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from reconciler.adapters.log_handler import ClusterLogHandler
from reconciler.loops.power_requests import ShutdownRequest
from reconciler.resources.errors import VclError
from vcld.config import Config
from vcld.config_file import DEFAULT_PATH, read_config
from vcld.daemon import Daemon
from vcld.logs import set_up
from vcld.power_alone import shut_down_here

log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def vcld(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help=f"The configuration file [default: {DEFAULT_PATH} if it exists]"),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the configuration and end")] = False,
    accept_store: Annotated[
        bool,
        typer.Option(
            "--accept-store", help="Trust the store although it is older than, or another than, the one known"
        ),
    ] = False,
    shut_down: Annotated[
        float | None,
        typer.Option(
            "--shut-down",
            metavar="SECONDS",
            help="Run no daemon: order a shutdown of the cluster, and end this host's VMs within so long",
        ),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Of --shut-down, for the others and the log")] = "",
    power_off: Annotated[
        bool, typer.Option("--power-off", help="With --shut-down: then switch the host off")
    ] = False,
) -> None:
    """Run vcl's node daemon in the foreground.

    \b
    Examples:
      vcld                              # with defaults, or /etc/vcl/vcld.yaml
      vcld --config ./vcld.yaml --check
    """
    try:
        settings = read_config(config)
        if check:
            typer.echo("the configuration is valid")
            return
        said = set_up(settings.log)
        if shut_down is not None:
            request = ShutdownRequest(deadline=shut_down, reason=reason, power_off=power_off)
            raise typer.Exit(asyncio.run(shut_down_here(settings, request)))
        asyncio.run(_run(settings, accept_store, said))
    except VclError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


async def _run(config: Config, accept_store: bool, said: ClusterLogHandler) -> None:
    daemon = Daemon(config, said, accept_store=accept_store)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    await daemon.run(ready=_settle)


def _settle() -> None:
    """What was made at the start stays: keep the collector from walking it again and again."""
    gc.collect()
    gc.freeze()


def main() -> None:
    """The entry point."""
    app()


if __name__ == "__main__":
    main()
