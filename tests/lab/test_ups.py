"""A UPS of NUT's dummy driver says that it is on battery, and low: all VMs are shut down, then the host.

With NUT's own daemons, and contrib/ups as README.md there installs it. The first test has a vcl that only
writes down how it was called, in namespaces of its own; the second real hosts with guests.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]

cluster = sys.modules["vcl_lab_cluster"]
UPS = Path(__file__).resolve().parents[2] / "contrib/ups"
DAEMONS = Path("/lib/nut")
PORT = 34930
FILES = {
    "ups.conf": "[ups]\ndriver = dummy-ups\nport = {conf}/ups.dev\nmode = dummy-loop\npollinterval = 1\n",
    "ups.dev": "ups.status: OL\n",
    "upsd.conf": "LISTEN 127.0.0.1 {port}\n",
    "upsd.users": "[mon]\npassword = pass\nupsmon primary\n",
    "upsmon.conf": """\
MONITOR ups@127.0.0.1:{port} 1 mon pass primary
SHUTDOWNCMD "{shutdown} battery low"
NOTIFYCMD /sbin/upssched
NOTIFYFLAG ONBATT EXEC
NOTIFYFLAG ONLINE EXEC
POWERDOWNFLAG {state}/killpower
POLLFREQ 1
POLLFREQALERT 1
HOSTSYNC 1
FINALDELAY 0
""",
    "upssched.conf": """\
CMDSCRIPT {conf}/vcl-upssched
PIPEFN {state}/upssched.pipe
LOCKFN {state}/upssched.lock
AT ONBATT * START-TIMER vcl-on-battery 1
AT ONLINE * CANCEL-TIMER vcl-on-battery
""",
}
START = """\
set -e
export NUT_CONFPATH={conf} NUT_STATEPATH={state} PATH={daemons}:$PATH VCL_UPS_CONF={conf}/vcl.conf
mkdir -p /run/nut
mount -t tmpfs -o mode=777 tmpfs /run/nut
ip link set lo up
{daemons}/dummy-ups -a ups
{daemons}/upsd
{daemons}/upsmon
sleep 600
"""


def configure(conf: Path, *, seen: str, state: str, settings: str) -> None:
    """NUT's files, and the settings of vcl-ups-shutdown. `seen`: where NUT's daemons see `conf`."""
    conf.mkdir(parents=True, exist_ok=True)
    conf.chmod(0o755)
    for name in ("vcl-ups-shutdown", "nut/vcl-upssched"):
        shutil.copy(UPS / name, conf)
    values = {"conf": seen, "state": state, "port": PORT, "shutdown": f"{seen}/vcl-ups-shutdown"}
    for name, text in FILES.items():
        (conf / name).write_text(text.format(**values))
        (conf / name).chmod(0o644)
    (conf / "vcl.conf").write_text(settings)


def says(conf: Path, status: str) -> None:
    """What the UPS says from now on, seen by its driver in one piece."""
    fresh = conf / "ups.fresh"
    fresh.write_text(f"ups.status: {status}\n")
    fresh.rename(conf / "ups.dev")


@pytest.fixture
def alone() -> Iterator[Path]:
    """The directory of a NUT that runs; its daemons, which are no root, may read it, and end with their
    namespaces."""
    with tempfile.TemporaryDirectory(prefix="vcl-ups-") as made:
        Path(made).chmod(0o755)
        with nut_in(Path(made)):
            yield Path(made)


@contextlib.contextmanager
def nut_in(place: Path) -> Iterator[None]:
    """NUT runs there meanwhile."""
    vcl = place / "vcl"
    vcl.write_text(f'#!/bin/sh\necho "$@" >> {place}/calls\n')
    vcl.chmod(0o755)
    conf = place / "conf"
    settings = f'VCL={vcl}\nOFF_COMMAND="touch {place}/off"\n'
    configure(conf, seen=str(conf), state="/run/nut", settings=settings)
    script = START.format(conf=conf, state="/run/nut", daemons=DAEMONS)
    namespaces = ("--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
    with (place / "log").open("wb") as log:
        started = subprocess.Popen(["unshare", *namespaces, "sh", "-c", script], stdout=log, stderr=log)
    try:
        cluster.until(lambda: "UPS: ups@" in (place / "log").read_text(), 30.0, "upsmon runs", every=0.1)
        yield
    finally:
        started.kill()
        started.wait()


def test_a_time_on_battery_shuts_all_down_before_the_battery_is_low(alone: Path) -> None:
    says(alone / "conf", "OB")
    cluster.until((alone / "off").exists, 60.0, f"the host goes off; see {alone}/log", every=0.1)
    (call,) = (alone / "calls").read_text().splitlines()
    assert call == (
        "--request-timeout=10s cluster shutdown --yes --reason=UPS: battery low --deadline=120"
        " --power-off-hosts"
    )


@pytest.mark.ceph
def test_a_low_battery_shuts_down_the_vms_of_all_hosts_and_they_come_back_when_told(proof: Any) -> None:
    proof.spread({"near": "r1", "far": "r2"}, grace=60)
    before = {vm: proof.last(vm) for vm in ("near", "far")}
    host = proof.nodes["r1"].host
    conf, seen = host.files / "var/lib/vcl/nut", "/var/lib/vcl/nut"
    settings = f'DEADLINE=60\nPOWER_OFF_HOSTS=no\nOFF_COMMAND="touch {seen}/off"\n'
    configure(conf, seen=seen, state="/run/nut", settings=settings)
    host.run("chmod", "755", "/var/lib/vcl")
    host.run("mkdir", "-p", "-m", "777", "/run/nut")
    environment = {"NUT_CONFPATH": seen, "NUT_STATEPATH": "/run/nut", "VCL_UPS_CONF": f"{seen}/vcl.conf"}
    host.spawn("nut-driver", str(DAEMONS / "dummy-ups"), "-F", "-a", "ups", env=environment)
    host.spawn("nut-server", str(DAEMONS / "upsd"), "-F", env=environment)
    host.spawn("nut-monitor", str(DAEMONS / "upsmon"), "-F", env=environment)
    began = time.monotonic()
    says(conf, "OB LB")
    proof.until((conf / "off").exists, "the host of the UPS goes off")
    print(f"battery low -> all guests off: {time.monotonic() - began:.1f} s")
    for vm, node in (("near", "r1"), ("far", "r2")):
        assert proof.homes(vm) == []
        assert "vcl-guest: bye" in proof.nodes[node].console(vm)
    assert "UPS: battery low" in proof.nodes["r3"].vcl("cluster", "status").stdout
    for daemon in ("nut-monitor", "nut-server", "nut-driver"):
        host.end(daemon, signal.SIGTERM)
    proof.nodes["r3"].vcl("cluster", "start", "--no-wait")
    for vm in before:
        proof.until(lambda vm=vm: proof.last(vm).number > before[vm].number, f"{vm} boots again")
        assert proof.last(vm).found >= before[vm].last
    proof.retire("near", "far")
