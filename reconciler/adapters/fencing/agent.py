"""Fences by power, with any program of the fence-agents project: `off`, and then `status` must agree.

The protocol (FenceAgentAPI.md of fence-agents): parameters as `key=value` lines on standard input; an exit
code of 0 for success; of `status`, 0 for on and 2 for off. Invariants (SAFETY rule 14): never `reboot`, never
a proof without a `status` after the `off`, and never longer than the time-out - the program's whole process
group is killed. A password is in no command line, no message and, with `passwordFile`, in no manifest.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace

from reconciler.adapters.subprocesses import Finished, run
from reconciler.ports.fencer import Guard
from reconciler.resources.errors import FenceFailed
from reconciler.resources.fencing import FenceMethod, FenceOrder, PoweredOff, Proof

ON, OFF = 0, 2
LOOK = 1.0
"""Seconds between looks whether the power is off: a BMC may take a while."""

_NAME = re.compile(r"(/[A-Za-z0-9_./+-]+/)?fence_[A-Za-z0-9_-]+")
PASSWORD_FILE = "passwordFile"
"""vcl's own parameter: a file on the node that fences, whose content is given as `password`."""
PASSWORD_MOST = 4096

_OWN = frozenset({"agent", "action", PASSWORD_FILE})
_NEEDS_IP = re.compile(r"fence_(ipmilan|ipmilanplus|idrac|ilo[0-9a-z_]*|imm|redfish|apc|apc_snmp|eaton_snmp)")
_SECRET = re.compile(r"passw|secret|token|key", re.IGNORECASE)


class AgentFencer:
    """The node's settings say which agent, and its parameters. `path`: where programs are looked for."""

    id = "agent"
    method = FenceMethod.AGENT
    fsid = ""

    def __init__(self, *, path: str | None = None) -> None:
        self._path = path

    def unready(self, order: FenceOrder) -> str:
        """See Fencer."""
        name = order.settings.get("agent", "")
        if not name:
            return f"node {order.node} has no fence agent (`fencing: {{agent: fence_ipmilan, ...}}`)"
        if not _NAME.fullmatch(name):
            return f"{name!r} is no fence agent: their names begin with fence_"
        if shutil.which(name, path=self._path) is None:
            return f"the fence agent {name} is not installed on this node"
        bad = sorted(key for key, value in order.settings.items() if "\n" in f"{key}{value}" or "=" in key)
        if bad:
            return f"the parameters {', '.join(bad)} cannot be given to a fence agent"
        return _unusable(order.settings)

    async def fence(self, order: FenceOrder, guard: Guard, *, timeout: float) -> Proof:
        """See Fencer."""
        if why := self.unready(order):
            raise FenceFailed(why)
        deadline = time.monotonic() + timeout
        await guard()
        done = await self._run(order, "off", deadline)
        if done.status != 0:
            raise self._failure(order, "off", done)
        await self._until_off(order, deadline)
        return PoweredOff(agent=order.settings["agent"])

    async def settle(self, order: FenceOrder, proof: Proof, *, timeout: float) -> None:
        """See Fencer."""
        await self._until_off(order, time.monotonic() + timeout)

    async def break_locks(self, order: FenceOrder, guard: Guard, *, timeout: float) -> tuple[str, ...]:
        """See Fencer."""
        return ()

    async def lift(self, order: FenceOrder, guard: Guard, *, clients: bool, timeout: float) -> None:
        """See Fencer. Whoever wants the host on switches it on."""

    async def close(self) -> None:
        """See Fencer."""

    async def _until_off(self, order: FenceOrder, deadline: float) -> None:
        while True:
            done = await self._run(order, "status", deadline)
            if done.status == OFF:
                return
            if done.status != ON:
                raise self._failure(order, "status", done)
            if deadline - time.monotonic() < LOOK:
                raise FenceFailed(
                    f"{order.settings['agent']} has switched {order.node} off, and says that it is still on",
                    cure="look at the host, and at the plug or BMC that the node's `fencing` names",
                )
            await asyncio.sleep(LOOK)

    async def _run(self, order: FenceOrder, action: str, deadline: float) -> Finished:
        name, left = order.settings["agent"], deadline - time.monotonic()
        program = shutil.which(name, path=self._path)
        if program is None:
            raise FenceFailed(f"the fence agent {name} is not installed on this node")
        settings = _with_password(order.settings)
        try:
            if left <= 0:
                raise TimeoutError
            done = await run([program], timeout=left, input=_parameters(settings, action))
            return replace(
                done, output=_censored(done.output, settings), errors=_censored(done.errors, settings)
            )
        except TimeoutError as error:
            raise FenceFailed(
                f"{name} did not finish `{action}` of {order.node} in time",
                cure="look at the BMC or power switch, and at the network to it",
            ) from error
        except OSError as error:
            raise FenceFailed(f"{name} cannot be started: {error.strerror}") from error

    @staticmethod
    def _failure(order: FenceOrder, action: str, done: Finished) -> FenceFailed:
        said = " ".join((done.errors or done.output).split())[-300:]
        name = order.settings["agent"]
        return FenceFailed(
            f"{name} failed at `{action}` of {order.node} (exit code {done.status}): {said or 'no message'}",
            cure=f"try it by hand: echo the node's parameters into {name} with action=status",
        )


def _unusable(settings: Mapping[str, str]) -> str:
    """What can be seen to be wrong without asking the agent; empty when nothing is."""
    name, file = settings["agent"].rpartition("/")[2], settings.get(PASSWORD_FILE, "")
    if _NEEDS_IP.fullmatch(name) and not (settings.get("ip") or settings.get("ipaddr")):
        return f"{name} needs `ip`, the address of the BMC or power switch"
    if file and settings.get("password"):
        return f"both `password` and `{PASSWORD_FILE}` are given: one is enough"
    if file and not file.startswith("/"):
        return f"`{PASSWORD_FILE}` must be an absolute path: {file!r}"
    if file and not os.access(file, os.R_OK):
        return f"the password file {file} is not there on this node, or cannot be read"
    return ""


def _with_password(settings: Mapping[str, str]) -> Mapping[str, str]:
    """With the content of the password file, without the end of its line. Raises FenceFailed."""
    file = settings.get(PASSWORD_FILE, "")
    if not file:
        return settings
    try:
        with open(file, encoding="utf-8") as opened:
            password = opened.read(PASSWORD_MOST).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise FenceFailed(
            f"the password file {file} cannot be read on this node",
            cure="put it on every node, readable for root only",
        ) from error
    if not password or "\n" in password:
        raise FenceFailed(f"the password file {file} must hold one line", cure="write the password into it")
    return {**settings, "password": password}


def _censored(said: str, settings: Mapping[str, str]) -> str:
    """Without the secrets, before anything is cut off or joined."""
    for key, secret in settings.items():
        if _SECRET.search(key) and secret and key != PASSWORD_FILE:
            said = said.replace(secret, "***")
    return said


def _parameters(settings: Mapping[str, str], action: str) -> bytes:
    lines = [f"action={action}", *(f"{k}={v}" for k, v in sorted(settings.items()) if k not in _OWN)]
    return "".join(f"{line}\n" for line in lines).encode()
