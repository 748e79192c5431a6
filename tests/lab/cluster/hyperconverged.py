"""The layout that most users have: every node runs a part of Ceph itself, and takes it along when it dies.

A monitor on each of the first three nodes, an OSD on every node; three copies, two must answer. The manager
and the administrator's key are on the machine `ceph`, which survives. OSDs keep their data in memory: one
whose node lost its power comes back with nothing, and is restored by the others (SIGTERM lets it write its
data to disk first). So one node at most may be without power, and only after all copies were complete.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

from .host import Host
from .processes import LabFailed, until
from .settings import CephSettings
from .storage import SCRIPT, Storage

MONITORS = "abc"
PORT = 6789
_FAST = """\
osd heartbeat grace = 8
osd heartbeat interval = 2
mon lease = 2
mon election timeout = 2
paxos propose interval = 0.25
mon client ping interval = 2
mon client ping timeout = 4
"""
"""What docs/operations.md recommends for such hosts."""
_CONF = """\
[mgr]
mgr stats period = 1

[client]
mon client hunt interval = 1
mon client hunt interval backoff = 1

[global]
{fast}"""


def _ceph() -> ModuleType:
    """tests/lab/ceph.py, for the configuration and the users' rights: they are the same in every layout."""
    name = "vcl_lab_ceph"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SCRIPT)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class SpreadStorage(Storage):
    """A Ceph whose monitors and OSDs run on the nodes."""

    what = "a monitor and an OSD in memory on each node, one manager, cephx"

    def __init__(self, host: Host, nodes: Sequence[Host], settings: CephSettings) -> None:
        super().__init__(host)
        self._nodes = list(nodes)
        self._settings = settings
        self._places = {f"mon.{letter}": node for letter, node in zip(MONITORS, nodes, strict=False)}
        self._places |= {f"osd.{number}": node for number, node in enumerate(nodes)}
        self._places["mgr.x"] = host

    def start(self) -> None:
        """What does not run on the machines that are on; returns when the pools can be written to."""
        self.host.power_on()
        fresh = not (self.dir / "ceph.conf").exists()
        if fresh:
            self._prepare()
        self._spawn("mon.")
        until(self._answers, 60.0, f"the monitors answer; see {self._log('mon.a')}")
        if fresh:
            self._introduce()
        self._spawn("osd.")
        self._spawn("mgr.")
        until(self._all_up, 60.0, f"the OSDs are up; see {self._log('osd.0')}")
        if fresh:
            self._make_pools()
        until(self.clean, 60.0, "every copy of every object is complete")

    def complete(self) -> bool:
        """See Storage."""
        return all(host.daemon(name) for name, host in self._places.items()) and self.clean()

    def start_on(self, node: str) -> None:
        """The monitor and the OSD of a node that has booted; does not wait for them."""
        self._spawn("mon.", node)
        self._spawn("osd.", node)

    def stop(self) -> None:
        """See Storage."""
        self.end(*self._running("osd."))
        self.end(*self._running("mgr."), *self._running("mon."))

    def objection(self, names: Sequence[str]) -> str:
        """Why these machines may not lose their power; empty when they may."""
        if self.host.name in names:
            return f"{self.host.name} only runs the manager; kill that: kill ceph mgr.x"
        off = {node.name for node in self._nodes if not node.on()}
        if len(off | set(names)) > 1:
            return (
                "Ceph's OSDs keep their data in memory: with two nodes without power at once it would be lost"
            )
        if not off and not self.clean():
            return (
                "an OSD that came back is still being restored by the others; wait until `ceph status` "
                "shows active+clean"
            )
        return ""

    def clean(self) -> bool:
        """Whether every OSD of a machine that is on is up, and every copy that it should hold is complete."""
        if not self._all_up():
            return False
        groups = json.loads(self.command("status", "--format", "json"))["pgmap"]
        states = {each["state_name"]: each["count"] for each in groups.get("pgs_by_state", [])}
        return groups["num_pgs"] > 0 and states == {"active+clean": groups["num_pgs"]}

    def command(self, *words: str) -> str:
        """See Storage."""
        conf = str(self.dir / "ceph.conf")
        return self.host.run("ceph", "-c", conf, "--connect-timeout", "10", *words, timeout=30.0).stdout

    def monitors(self) -> str:
        """See Storage."""
        return ",".join(f"[v1:{node.address.ip}:{PORT}]" for node in self._nodes[: len(MONITORS)])

    def _to(self, verb: str, daemons: tuple[str, ...]) -> None:
        for name in daemons or tuple(self._running("osd.")):
            if name not in self._places:
                raise LabFailed(f"there is no {name}; there are {', '.join(sorted(self._places))}")
            host = self._places[name]
            match verb:
                case "freeze":
                    host.freeze(name)
                case "thaw":
                    host.thaw(name)
                case "kill":
                    host.end(name, signal.SIGKILL)
                case _:
                    host.end(name, signal.SIGTERM)

    def _running(self, kind: str) -> list[str]:
        return [name for name, host in self._places.items() if name.startswith(kind) and host.daemon(name)]

    def _spawn(self, kind: str, node: str = "") -> None:
        for name, host in self._places.items():
            if name.startswith(kind) and host.on() and node in ("", host.name):
                conf = str(host.dir / "c" / "ceph.conf")
                host.spawn(name, f"ceph-{kind[:3]}", "-f", "-i", name.split(".")[1], "-c", conf)

    def _log(self, name: str) -> Path:
        return self._places[name].dir / "c" / f"{name}.log"

    def _answers(self) -> bool:
        with contextlib.suppress(LabFailed, subprocess.TimeoutExpired):
            return bool(self.command("fsid"))
        return False

    def _all_up(self) -> bool:
        osds = {name: host for name, host in self._places.items() if name.startswith("osd.")}
        wanted = {int(name[4:]) for name, host in osds.items() if host.on()}
        dump = json.loads(self.command("osd", "dump", "--format", "json"))
        return wanted <= {each["osd"] for each in dump["osds"] if each["up"]}

    # Once, for a new cluster.

    def _prepare(self) -> None:
        """Configurations on all machines, the keys, and the monitors' data."""
        fsid = str(uuid.uuid4())
        fast = _FAST if self._settings is CephSettings.RECOMMENDED else ""
        for host in (self.host, *self._nodes):
            place = host.dir / "c"
            place.mkdir(exist_ok=True)
            text = _ceph().configuration(
                fsid=fsid,
                monitors=self.monitors(),
                address=host.address.ip,
                place=place,
                more=_CONF.format(fast=fast),
            )
            (place / "ceph.conf").write_text(text)
        keys, monmap = str(self.dir / "ceph.client.admin.keyring"), str(self.dir / "monmap")
        caps = [word for entity in ("mon", "mds", "osd", "mgr") for word in ("--cap", entity, "allow *")]
        self.host.run("ceph-authtool", "--create-keyring", keys, "--gen-key", "-n", "client.admin", *caps)
        self.host.run("ceph-authtool", keys, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        monitors = [(name[4:], host) for name, host in self._places.items() if name.startswith("mon.")]
        adds = [
            word for letter, host in monitors for word in ("--addv", letter, f"[v1:{host.address.ip}:{PORT}]")
        ]
        self.host.run("monmaptool", "--create", "--fsid", fsid, *adds, monmap)
        with ThreadPoolExecutor(len(monitors)) as workers:
            list(workers.map(lambda each: self._make_monitor(*each, monmap, keys), monitors))

    @staticmethod
    def _make_monitor(letter: str, host: Host, monmap: str, keys: str) -> None:
        place = host.dir / "c"
        (place / f"mon.{letter}").mkdir()
        conf = str(place / "ceph.conf")
        host.run("ceph-mon", "--mkfs", "-i", letter, "--monmap", monmap, "--keyring", keys, "-c", conf)

    def _introduce(self) -> None:
        """Make the OSDs and the manager known, each with a key of its own."""
        osds = [(name, host) for name, host in self._places.items() if name.startswith("osd.")]
        for name, host in osds:
            identity = str(uuid.uuid4())
            self.command("osd", "new", identity, name[4:])
            self._key(name, host, "mon", "profile osd", "mgr", "profile osd", "osd", "allow *")
            conf = str(host.dir / "c" / "ceph.conf")
            host.run("ceph-osd", "-i", name[4:], "--mkfs", "--osd-uuid", identity, "-c", conf)
        self._key("mgr.x", self.host, "mon", "profile mgr", "osd", "allow *", "mds", "allow *")

    def _key(self, name: str, host: Host, *caps: str) -> None:
        place = host.dir / "c" / name
        place.mkdir()
        self.command("auth", "get-or-create", name, *caps, "-o", str(place / "keyring"))

    def _make_pools(self) -> None:
        ceph = _ceph()
        for pool, application in ((ceph.STATE_POOL, "vcl"), (ceph.IMAGE_POOL, "rbd")):
            self.command("osd", "pool", "create", pool, "8")
            self.command("osd", "pool", "application", "enable", pool, application)
        users = (("vcl", ceph.VCL_MONITOR_CAPS, ceph.VCL_OSD_CAPS), ("qemu", *ceph.QEMU_CAPS))
        for user, monitor, osd in users:
            keyring = str(self.dir / f"ceph.client.{user}.keyring")
            self.command("auth", "get-or-create", f"client.{user}", "mon", monitor, "osd", osd, "-o", keyring)
