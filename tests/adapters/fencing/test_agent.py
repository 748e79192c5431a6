"""Fence agents by their protocol: a stub of it that works, fails, hangs, lies and is slow."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from reconciler.adapters.fencing.agent import AgentFencer
from reconciler.ports.fencer import Fencer
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import FenceOrder, PoweredOff
from reconciler.testing.fencer_contract import CountingGuard, FencerContract

STUB = """#!/bin/sh
# A fence agent: parameters on standard input; status exits with 0 for on, 2 for off.
dir=$(dirname "$0")
while IFS='=' read -r key value; do
  case "$key" in
    action) action=$value ;;
    mode) mode=$value ;;
  esac
  echo "$key=$value" >> "$dir/heard"
done
echo "do $action" >> "$dir/heard"
case "$action/$mode" in
  off/hang) sleep 600 & echo $! > "$dir/child"; wait ;;
  off/fail) echo "Unable to connect with password hunter2" >&2; exit 1 ;;
  off/lie) exit 0 ;;
  off/slow) echo later > "$dir/state"; exit 0 ;;
  off/*) echo off > "$dir/state"; exit 0 ;;
  status/mute) exit 1 ;;
  status/slow) state=$(cat "$dir/state"); echo off > "$dir/state"; [ "$state" = off ] && exit 2; exit 0 ;;
  status/*) [ "$(cat "$dir/state" 2>/dev/null)" = off ] && exit 2; exit 0 ;;
esac
exit 1
"""


def install(directory: Path) -> Path:
    program = directory / "fence_stub"
    program.write_text(STUB)
    program.chmod(0o755)
    return program


def order(**settings: str) -> FenceOrder:
    known = {"agent": "fence_stub", "ip": "10.9.9.9", "password": "hunter2", **settings}
    return FenceOrder(id="id", node="r3", incident="r3-5", boot_id="boot-1", settings=known)


@pytest.fixture
def fencer(tmp_path: Path) -> AgentFencer:
    install(tmp_path)
    return AgentFencer(path=f"{tmp_path}:{os.environ['PATH']}")


class TestAgentFencer(FencerContract):
    @pytest.fixture(autouse=True)
    def _stub(self, fencer: AgentFencer) -> None:
        self.fencer = fencer

    def ready(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        return _with(self.fencer, order())

    def broken(self) -> AbstractAsyncContextManager[tuple[Fencer, FenceOrder]]:
        return _with(self.fencer, order(mode="hang"))


@asynccontextmanager
async def _with(fencer: Fencer, what: FenceOrder) -> AsyncIterator[tuple[Fencer, FenceOrder]]:
    yield fencer, what
    await fencer.close()


async def test_it_is_switched_off_and_then_asked_and_never_rebooted(
    fencer: AgentFencer, tmp_path: Path
) -> None:
    proof = await fencer.fence(order(action="reboot"), CountingGuard(), timeout=10.0)
    assert proof == PoweredOff(agent="fence_stub")
    heard = (tmp_path / "heard").read_text().splitlines()
    assert [line for line in heard if line.startswith("do ")] == ["do off", "do status"]
    assert {"ip=10.9.9.9", "password=hunter2"} <= set(heard)
    assert not any("reboot" in line or line.startswith("agent=") for line in heard)


async def test_an_agent_that_says_off_while_the_host_is_on_is_no_proof(fencer: AgentFencer) -> None:
    with pytest.raises(FenceFailed, match="says that it is still on"):
        await fencer.fence(order(mode="lie"), CountingGuard(), timeout=1.5)


async def test_a_host_that_takes_a_moment_to_go_off_is_waited_for(fencer: AgentFencer) -> None:
    assert await fencer.fence(order(mode="slow"), CountingGuard(), timeout=10.0) == PoweredOff(
        agent="fence_stub"
    )


async def test_a_status_that_fails_is_no_proof(fencer: AgentFencer) -> None:
    with pytest.raises(FenceFailed, match="failed at `status`"):
        await fencer.fence(order(mode="mute"), CountingGuard(), timeout=5.0)


async def test_a_failure_is_told_without_the_password(fencer: AgentFencer) -> None:
    with pytest.raises(FenceFailed) as failed:
        await fencer.fence(order(mode="fail"), CountingGuard(), timeout=5.0)
    assert "Unable to connect with password ***" in failed.value.message
    assert "hunter2" not in str(failed.value)


async def test_a_dead_bmc_ends_with_its_whole_process_group(fencer: AgentFencer, tmp_path: Path) -> None:
    with pytest.raises(FenceFailed, match="did not finish `off` of r3 in time"):
        await fencer.fence(order(mode="hang"), CountingGuard(), timeout=1.0)
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5.0
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z":
            break
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"agent": ""}, "has no fence agent"),
        ({"agent": "rm"}, "is no fence agent"),
        ({"agent": "fence_absent"}, "is not installed"),
        ({"ip": "1\naction=on"}, "cannot be given"),
        ({"a=b": "1"}, "cannot be given"),
    ],
)
async def test_what_cannot_be_tried_is_said(fencer: AgentFencer, settings: dict[str, str], why: str) -> None:
    assert why in fencer.unready(order(**settings))
    with pytest.raises(FenceFailed):
        await fencer.fence(order(**settings), CountingGuard(), timeout=1.0)


async def test_the_password_may_be_in_a_file_and_is_told_to_the_agent_alone(
    fencer: AgentFencer, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    given = order(password="", passwordFile=str(file))
    await fencer.fence(given, CountingGuard(), timeout=10.0)
    heard = (tmp_path / "heard").read_text().splitlines()
    assert "password=hunter2" in heard
    assert not any(line.startswith("passwordFile") for line in heard)
    with pytest.raises(FenceFailed) as failed:
        await fencer.fence(
            order(password="", passwordFile=str(file), mode="fail"), CountingGuard(), timeout=5.0
        )
    assert "Unable to connect with password ***" in failed.value.message


async def test_a_password_file_of_two_lines_or_none_is_refused(fencer: AgentFencer, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content in ("", "hunter2\nmore\n"):
        file.write_text(content)
        with pytest.raises(FenceFailed, match="must hold one line") as failed:
            await fencer.fence(order(password="", passwordFile=str(file)), CountingGuard(), timeout=5.0)
        assert "hunter2" not in str(failed.value)


def test_what_is_wrong_with_the_settings_is_said_before_anything_is_tried(
    fencer: AgentFencer, tmp_path: Path
) -> None:
    program = install(tmp_path)
    program.rename(tmp_path / "fence_ipmilan")
    ipmi = {"agent": "fence_ipmilan", "password": ""}
    assert "needs `ip`" in fencer.unready(order(**ipmi, ip=""))
    assert "absolute path" in fencer.unready(order(**ipmi, passwordFile="secret"))
    assert "is not there on this node" in fencer.unready(order(**ipmi, passwordFile="/nowhere/secret"))
    both = order(agent="fence_ipmilan", passwordFile="/nowhere/secret")
    assert "one is enough" in fencer.unready(both)
    assert fencer.unready(order(**ipmi)) == ""
