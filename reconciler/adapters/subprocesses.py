"""The one door for other programs: every call has a deadline, and nothing that we started outlives it.

Invariant: when `run` returns, the program has ended; when it raises, the program and its children were sent
SIGKILL. They are a process group of their own, ended by number. When this daemon is killed, the program is
too, by the kernel (where util-linux's setpriv is installed): a qemu-img that goes on alone would write to an
image that the next daemon makes anew. Messages are English.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

KEPT = 1 << 20
"""How many bytes of each output are kept; the rest is read and dropped."""

LAST_WORDS_SECONDS = 5.0
"""How long a killed program may take to disappear (it may be stuck in the kernel)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """How a program ended. A negative `status` is a signal."""

    status: int
    output: str
    errors: str


async def run(
    command: Sequence[str],
    *,
    timeout: float | None,
    on_output: Callable[[bytes], None] | None = None,
    input: bytes | None = None,
) -> Finished:
    """Run a program to its end, for `timeout` seconds at most (None: until this task is cancelled).

    `input` is what it reads, nothing by default; `on_output` sees each piece of standard output. Raises
    TimeoutError, or OSError when the program cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *bound(command),
        stdin=asyncio.subprocess.DEVNULL if input is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "LC_ALL": "C", "LANGUAGE": "C"},
    )
    try:
        async with asyncio.timeout(timeout):
            output, errors, status, _ = await asyncio.gather(
                _drain(process.stdout, on_output),
                _drain(process.stderr, None),
                process.wait(),
                _tell(process.stdin, input),
            )
    except BaseException:
        await _kill(process)
        raise
    return Finished(status=status, output=output, errors=errors)


def bound(command: Sequence[str]) -> list[str]:
    """The command such that the kernel kills it with the thread that starts it, which has to live as long as
    the process: that of the event loop. Raises FileNotFoundError when there is no such program."""
    program = shutil.which(command[0])
    if program is None:
        raise FileNotFoundError(f"there is no program {command[0]}")
    setpriv = _setpriv()
    return [*((setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()), program, *command[1:]]


@functools.cache
def _setpriv() -> str | None:
    return shutil.which("setpriv")


async def _drain(stream: asyncio.StreamReader | None, on_output: Callable[[bytes], None] | None) -> str:
    kept = bytearray()
    while stream is not None and (piece := await stream.read(65536)):
        if on_output is not None:
            on_output(piece)
        kept += piece[: KEPT - len(kept)]
    return kept.decode("utf-8", "replace")


async def _tell(stream: asyncio.StreamWriter | None, input: bytes | None) -> None:
    """A program that does not read to the end is none the worse for it."""
    if stream is None or input is None:
        return
    with contextlib.suppress(ConnectionError):
        stream.write(input)
        await stream.drain()
    stream.close()


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the whole group; then collect its leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), LAST_WORDS_SECONDS)
