"""Shutting the whole cluster down, and starting it again: what is asked before, and how it goes, followed to
its end. What was ordered goes on when this program ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from reconciler.resources.errors import VclError
from reconciler.resources.kinds import Kind, info_for
from vcl.client import Client, Unreachable
from vcl.describing import part
from vcl.progress import Progress, clear
from vcl.session import complain, warn

VM = info_for(Kind.VIRTUAL_MACHINE)
Object = Mapping[str, Any]

LOOK = 0.3
GRACE = 45.0
"""Seconds after the deadline within which guests that were ended are gone."""
AWAY = 30.0
"""Seconds for which a daemon that does not answer is asked again."""


def question_text(client: Client, *, power_off: bool) -> str:
    """What a shutdown would stop; what is not known is said as such."""
    try:
        vms = client.objects(VM).get("items") or []
    except VclError as error:
        return f"All VMs of the cluster are shut down (which ones is not known: {error.message})."
    running = [vm for vm in vms if part(vm, "status").get("phase") in ("Running", "Paused", "Migrating")]
    what = "1 VM runs" if len(running) == 1 else f"{len(running)} VMs run"
    off = " Then all hosts switch themselves off." if power_off else ""
    return f"{what}. All of them are shut down, and stay off until 'vcl cluster start'.{off}"


def shut_down_here(client: Client, deadline: float, *, reason: str, power_off: bool, config: str) -> int:
    """The VMs of this host: by its daemon, or, when none runs, by a vcld that does nothing else."""
    try:
        order = client.post(
            "power/shutdown", {"deadline": deadline, "reason": reason, "powerOffHosts": power_off}
        )
    except Unreachable as error:
        warn(f"{error.message}; going on without vcld")
        return _without_daemon(deadline, reason=reason, power_off=power_off, config=config)
    here = str(client.get("power").get("node"))
    print(f"node/{here} shutting down, within {deadline:g} s ({order.get('id')})", flush=True)
    return follow_shutdown(client, deadline, here=here)


def _without_daemon(deadline: float, *, reason: str, power_off: bool, config: str) -> int:
    import subprocess

    command = [sys.executable, "-m", "vcld.main", "--config", config, "--shut-down", str(deadline)]
    command += ["--reason", reason] if reason else []
    command += ["--power-off"] if power_off else []
    return subprocess.run(command, check=False).returncode


def follow_shutdown(client: Client, deadline: float, *, here: str = "", grace: float = GRACE) -> int:
    """Show each VM that has stopped, until none stands; `here`: on this node alone; `grace`: seconds after
    the deadline. Returns the exit code."""
    until = time.monotonic() + deadline + grace
    seen: dict[str, Sequence[str]] = {}
    progress: Progress | None = None
    last: Object = {}
    while True:
        view = _view(client, _goes_off(last))
        if view is None:
            clear(progress)
            print("this daemon does not answer any more: its host goes off", flush=True)
            return 0
        last = view
        if not view.get("order"):
            clear(progress)
            complain("the shutdown was ended: somebody has started the cluster")
            return 1
        if view.get("looked"):
            standing = {
                vm: nodes for vm, nodes in part(view, "standing").items() if not here or here in nodes
            }
            if progress is None:
                progress = Progress(len(standing))
                _tell_nodes(view)
            for vm in [vm for vm in seen if vm not in standing]:
                progress.end(f"{VM.singular}/{vm}")
                print(f"{VM.singular}/{vm} stopped", flush=True)
            seen = standing
            for vm in sorted(standing):
                words = str(part(view, "waits").get(vm) or "asked to power off")
                progress.say(f"{VM.singular}/{vm}", words.partition(";")[0])
            if not standing and (here or not view.get("silent")):
                return _shut(view, progress, here)
        if time.monotonic() >= until:
            return _unfinished(view, seen, progress)
        time.sleep(LOOK)


def follow_start(client: Client, id: str, until: float) -> int:
    """Show each VM that runs, until the master says that all do that can. Returns the exit code."""
    running: set[str] = set()
    progress: Progress | None = None
    while True:
        start = part(_view(client, False) or {}, "start")
        vms = client.objects(VM).get("items") or []
        phases = {str(part(vm, "metadata").get("name")): part(vm, "status") for vm in vms}
        if progress is None:
            progress = Progress(len(phases))
        for vm, status in sorted(phases.items()):
            if status.get("phase") == "Running" and vm not in running:
                running.add(vm)
                progress.end(f"{VM.singular}/{vm}")
                print(f"{VM.singular}/{vm} running", flush=True)
            elif vm not in running:
                progress.say(f"{VM.singular}/{vm}", str(status.get("phase") or "Pending"))
        if start.get("id") == id and start.get("finished"):
            return _started(phases, progress)
        if start.get("id") != id or time.monotonic() >= until:
            clear(progress)
            why = "timed out; it goes on" if start.get("id") == id else "something else was asked meanwhile"
            complain(VclError(f"the start was not followed to its end: {why}", cure="see 'vcl get vms'"))
            return 1
        time.sleep(LOOK)


def _view(client: Client, goes_off: bool) -> Object | None:
    """How it stands; None when the daemon went away with its host. Raises Unreachable."""
    until = time.monotonic() + AWAY
    while True:
        try:
            found: Object = client.get("power")
            return found
        except Unreachable:
            if goes_off:
                return None
            if time.monotonic() >= until:
                raise
            time.sleep(LOOK)


def _goes_off(view: Object) -> bool:
    wanted = bool(part(view, "order").get("powerOff"))
    return wanted and not part(view, "standing") and not view.get("silent")


def _tell_nodes(view: Object) -> None:
    """Who does not know of it yet."""
    heard = set(view.get("heard") or ())
    for node in sorted(set(view.get("members") or ()) - heard):
        warn(f"node {node} is not heard: it is told when it is")


def _shut(view: Object, progress: Progress, here: str) -> int:
    progress.clear()
    order = part(view, "order")
    after = "; this host goes off" if order.get("powerOff") else ""
    print(f"{f'node/{here}' if here else 'cluster'} shut down{after}")
    if not view.get("stored"):
        warn(
            "it is not in the store yet, which does not answer; this node's disk has it, and tells the others"
        )
    return 0


def _unfinished(view: Object, left: Mapping[str, Sequence[str]], progress: Progress | None) -> int:
    clear(progress)
    for vm, nodes in sorted(left.items()):
        complain(f"{VM.singular}/{vm} may still run on {', '.join(nodes)}")
    silent = ", ".join(view.get("silent") or ())
    what = f"nodes that do not say what runs on them: {silent}" if silent else "guests are left"
    complain(VclError(f"the shutdown is not complete: {what}", cure="it goes on; see 'vcl cluster status'"))
    return 1


def _started(phases: Mapping[str, Object], progress: Progress) -> int:
    progress.clear()
    late = {vm: status for vm, status in phases.items() if status.get("phase") not in ("Running", "Stopped")}
    for vm, status in sorted(late.items()):
        warn(f"{VM.singular}/{vm} is {status.get('phase') or 'Pending'}: {status.get('message') or ''}")
    print("cluster started")
    sys.stdout.flush()
    return 0


def power_line(power: Object) -> str:
    """The line of `vcl cluster status`; empty while the power is on and nothing is under way."""
    order, start = part(power, "order"), part(power, "start")
    if not order:
        if power.get("power") == "Off":
            return "Off: the Cluster's manifest says `power: Off`"
        unfinished = bool(start) and not start.get("finished")
        return "On; the cluster is being started" if unfinished else ""
    reason = f" ({order['reason']})" if order.get("reason") else ""
    told = f"Off since {order.get('ordered')}, ordered on {order.get('node')}{reason}"
    left = part(power, "standing")
    many = f"{len(left)} VMs are" if len(left) != 1 else "1 VM is"
    told += f"\n{many} left: {', '.join(sorted(left)[:8])}" if left else "\nno VM is left"
    untold = sorted(set(power.get("members") or ()) - set(power.get("told") or ()))
    told += f"\nnot told yet: {', '.join(untold)}" if untold else ""
    told += "" if power.get("stored") else "\nnot in the store yet"
    return f"{told}\n'vcl cluster start' ends it"
