"""Every program has a deadline, and nothing that was started outlives a call that failed."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from reconciler.adapters.subprocesses import KEPT, run


async def test_output_errors_and_status_come_back() -> None:
    done = await run(["/bin/sh", "-c", "echo out; echo err >&2; exit 3"], timeout=30.0)
    assert (done.status, done.output, done.errors) == (3, "out\n", "err\n")


async def test_messages_are_english_and_input_is_empty() -> None:
    done = await run(["/bin/sh", "-c", "echo $LC_ALL; cat"], timeout=30.0)
    assert done.output == "C\n"


async def test_a_deadline_ends_the_program_and_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! $$ > {pids}; wait"
    with pytest.raises(TimeoutError):
        await run(["/bin/sh", "-c", script], timeout=0.5)
    assert [pid for pid in pids.read_text().split() if _lives(int(pid))] == []


async def test_a_cancelled_call_ends_the_program(tmp_path: Path) -> None:
    started, pid = asyncio.Event(), []

    def heard(piece: bytes) -> None:
        pid.append(int(piece))
        started.set()

    task = asyncio.create_task(
        run(["/bin/sh", "-c", "echo $$; exec sleep 600"], timeout=None, on_output=heard)
    )
    await asyncio.wait_for(started.wait(), 30.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _lives(pid[0])


async def test_a_program_is_killed_with_the_process_that_started_it(tmp_path: Path) -> None:
    pid, words = tmp_path / "pid", "from reconciler.adapters.subprocesses import run; import asyncio, sys; "
    words += "asyncio.run(run(['/bin/sh', '-c', f'echo $$ > {sys.argv[1]}; exec sleep 600'], timeout=None))"
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", words, str(pid))
    async with asyncio.timeout(30.0):
        while not (pid.exists() and pid.read_text().strip()):
            await asyncio.sleep(0.02)
        daemon.kill()
        await daemon.wait()
        while _lives(int(pid.read_text())):
            await asyncio.sleep(0.02)


async def test_a_flood_of_output_is_cut_and_does_not_block() -> None:
    done = await run(["/bin/sh", "-c", f"head -c {3 * KEPT} /dev/zero | tr '\\0' x"], timeout=30.0)
    assert len(done.output) == KEPT


async def test_a_missing_program_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        await run(["/nowhere/program"], timeout=1.0)


def _lives(pid: int) -> bool:
    """Whether it runs; one that was killed and not yet collected by its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX" and pid != os.getpid()
