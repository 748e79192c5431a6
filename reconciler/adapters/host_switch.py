"""Switches this host off by the command that the configuration names."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from reconciler.adapters.subprocesses import run
from reconciler.resources.errors import VclError

WITHIN = 30.0
"""Seconds for the command, which only begins the shutdown."""


class CommandSwitch:
    """A HostSwitch."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    async def off(self) -> None:
        """See HostSwitch."""
        told = shlex.join(self._command)
        cure = "set `power.offCommand` in vcld.yaml to what switches this host off"
        try:
            done = await run(self._command, timeout=WITHIN)
        except (OSError, TimeoutError) as error:
            raise VclError(f"`{told}`: {error or 'no end in time'}", cure=cure) from error
        if done.status:
            raise VclError(f"`{told}`: exit status {done.status}: {done.errors.strip()[-300:]}", cure=cure)
