#!/usr/bin/env python3
"""A private Ceph cluster: the real one, by hand, without systemd; everything it is lives in one directory.

    python3 tests/lab/ceph.py start --dir DIR [--mgr]   prints the configuration file of its clients
    python3 tests/lab/ceph.py status --dir DIR          what runs, and Ceph's own status
    python3 tests/lab/ceph.py conf --dir DIR
    python3 tests/lab/ceph.py freeze|thaw|kill|end --dir DIR --daemon osd.0
    python3 tests/lab/ceph.py command --dir DIR --words ...  what `ceph ...` prints, as client.admin
    python3 tests/lab/ceph.py stop --dir DIR            ends it and deletes the directory

One monitor and three OSDs that keep their data in memory, on ports of their own of the loopback address or
another (--address), with cephx on. An OSD that is ended in order (`end`) has its data again when started.
Every object has three copies, and two must answer. Users: `client.vcl` with the least rights that vcl needs,
`client.qemu` for guests, `client.admin`. Pools: `vcl` for the state, `vms` for images. Only Ceph's own
packages are used: ceph-mon, ceph-osd, ceph-common, and ceph-mgr if asked for.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

OSDS = (0, 1, 2)
STATE_POOL, NAMESPACE, IMAGE_POOL = "vcl", "vcl", "vms"
PREFIX = "vcl-ceph-"
_SOCKET_LIMIT = 107
_PORTS = 40

VCL_MONITOR_CAPS = ", ".join(
    ["profile rbd", *(f'allow command "osd {verb}"' for verb in ("blocklist", "down", "set", "unset"))]
)
"""`profile rbd` lets a client blocklist others; failover also removes entries and tells Ceph who is down."""
VCL_OSD_CAPS = f"allow rw pool={STATE_POOL} namespace={NAMESPACE}, profile rbd pool={IMAGE_POOL}"
QEMU_CAPS = ("profile rbd", f"profile rbd pool={IMAGE_POOL}")

_CONF = """\
[global]
fsid = {fsid}
mon host = {monitors}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
public addr = {address}
cluster addr = {address}
ms bind msgr2 = false
run dir = {dir}
admin socket = {dir}/$name.asok
log file = {dir}/$name.log
log to stderr = false
debug none = 0/0
mon cluster log file = {dir}/cluster.log
max open files = 0
osd pool default size = 3
osd pool default min size = 2
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon osd reporter subtree level = osd
mon allow pool delete = true
mon warn on pool no redundancy = false
mon warn on insecure global id reclaim = false
mon data avail crit = 1
mon data avail warn = 2

[mon]
mon data = {dir}/$name

[mgr]
mgr data = {dir}/$name
keyring = {dir}/$name/keyring

[osd]
osd data = {dir}/$name
keyring = {dir}/$name/keyring
osd objectstore = memstore
memstore device bytes = 268435456
osd op num shards = 2
osd fast shutdown = false
osd op num threads per shard = 1
osd class load list = *
osd class default list = *
osd max pg log entries = 500

[client]
keyring = {dir}/ceph.$name.keyring
log file =
admin socket =

{more}"""
_HERE = """\
[global]
ms bind port min = {first}
ms bind port max = {last}

[mon]
paxos propose interval = 0.25

[osd]
osd heartbeat interval = 1
osd heartbeat grace = {grace}
"""


class CephFailed(Exception):
    """The private cluster cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """A process that cannot be confused with a later one of the same id. `started` in clock ticks."""

    name: str
    pid: int
    started: str

    def alive(self) -> bool:
        return _start_time(self.pid) == self.started

    def signal(self, number: int) -> None:
        """Sends it, unless the process is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class PrivateCeph:
    """One cluster in one directory. The object holds no state: everything is found on disk and in /proc, so
    that another process can stop what this one started."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory.resolve()

    @property
    def conf(self) -> Path:
        """For every client; the keyring follows from the user's name."""
        return self.dir / "ceph.conf"

    def start(
        self,
        *,
        mgr: bool = False,
        heartbeat_grace: int = 20,
        timeout: float = 60.0,
        address: str = "127.0.0.1",
    ) -> None:
        """A new cluster, or the daemons that are missing in one that was started before; returns when its
        pools can be written to. `heartbeat_grace`: seconds until a silent OSD is marked down."""
        fresh = not self.conf.exists()
        if fresh:
            self._prepare(heartbeat_grace, address)
        deadline = time.monotonic() + timeout
        self._spawn("mon.a", "ceph-mon")
        self._until("the monitor answers", deadline, self._monitor_answers)
        if fresh:
            self._introduce(mgr)
        for osd in OSDS:
            self.start_osd(osd)
        if (self.dir / "mgr.x").exists():
            self._spawn("mgr.x", "ceph-mgr")
        self._until("the OSDs are up", deadline, lambda: self.up_osds() == OSDS)
        if fresh:
            self._make_pools()
        self._until("the pools can be written to", deadline, self._writable)

    def stop(self) -> None:
        """End every daemon; SIGKILL, for nothing in memory is worth keeping."""
        daemons = self.daemons()
        for daemon in daemons:
            daemon.signal(signal.SIGKILL)
        for daemon in daemons:
            _gone(daemon)
            (self.dir / f"{daemon.name}.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """End everything and delete the directory."""
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def daemons(self) -> tuple[Daemon, ...]:
        """Those that run, frozen ones included."""
        found = (self._daemon(path.stem) for path in sorted(self.dir.glob("*.pid")))
        return tuple(daemon for daemon in found if daemon is not None)

    def start_osd(self, osd: int) -> None:
        """Start it unless it runs. One that was killed has forgotten everything: the others restore it."""
        self._spawn(f"osd.{osd}", "ceph-osd")

    def freeze(self, *which: int | str) -> None:
        """SIGSTOP: they accept connections and answer nothing. Returns when all their threads stand still.
        `which`: numbers of OSDs, or names such as mon.a."""
        for daemon in self._signal(which, signal.SIGSTOP):
            while daemon.alive() and not _stands_still(daemon.pid):
                time.sleep(0.001)

    def thaw(self, *which: int | str) -> None:
        """SIGCONT."""
        self._signal(which, signal.SIGCONT)

    def kill(self, *which: int | str) -> None:
        """SIGKILL: what an OSD held in memory is gone. Returns when they are gone."""
        for daemon in self._signal(which, signal.SIGKILL):
            _gone(daemon)

    def end(self, *which: int | str) -> None:
        """SIGTERM: an OSD writes what it holds to disk first, and has it again when it is started."""
        for daemon in self._signal(which, signal.SIGTERM):
            _gone(daemon, timeout=30.0)

    def acting(self, pool: str, name: str, namespace: str = "") -> tuple[int, ...]:
        """The OSDs that hold an object, the primary first."""
        words = ["osd", "map", pool, name, *([namespace] if namespace else [])]
        return tuple(json.loads(self.command(*words, "--format", "json"))["acting"])

    def up_osds(self) -> tuple[int, ...]:
        dump = json.loads(self.command("osd", "dump", "--format", "json"))
        return tuple(each["osd"] for each in dump["osds"] if each["up"])

    def command(self, *words: str, timeout: float = 30.0) -> str:
        """What `ceph WORDS` prints, as client.admin. CephFailed with its complaint."""
        return self._run("ceph", "--connect-timeout", "10", *words, timeout=timeout)

    def _signal(self, which: Sequence[int | str], number: int) -> list[Daemon]:
        """Send it to all of them, which must run."""
        found = []
        for each in which:
            name = each if isinstance(each, str) else f"osd.{each}"
            daemon = self._daemon(name)
            if daemon is None:
                raise CephFailed(f"no {name} runs in {self.dir}")
            daemon.signal(number)
            found.append(daemon)
        return found

    def _prepare(self, heartbeat_grace: int, address: str) -> None:
        if len(f"{self.dir}/client.admin.12345.asok") > _SOCKET_LIMIT:
            raise CephFailed(f"{self.dir} is too long for sockets; choose a shorter directory")
        for program in ("ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool"):
            if shutil.which(program) is None:
                raise CephFailed(f"{program} is missing; install ceph-mon, ceph-osd and ceph-common")
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        first, fsid = _free_ports(address), str(uuid.uuid4())
        more = _HERE.format(first=first + 1, last=first + _PORTS - 1, grace=heartbeat_grace)
        text = configuration(
            fsid=fsid, monitors=f"v1:{address}:{first}", address=address, place=self.dir, more=more
        )
        monmap, keys = str(self.dir / "monmap"), str(self.dir / "ceph.client.admin.keyring")
        admin = ["--gen-key", "-n", "client.admin"]
        for entity in ("mon", "mds", "osd", "mgr"):
            admin += ["--cap", entity, "allow *"]
        self._run("ceph-authtool", "--create-keyring", keys, *admin)
        self._run("ceph-authtool", keys, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        monitor = f"[v1:{address}:{first}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", monitor, monmap)
        temporary = self.dir / "ceph.conf.new"
        temporary.write_text(text)
        (self.dir / "mon.a").mkdir()
        self._run(
            "ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keys, "-c", str(temporary)
        )
        temporary.rename(self.conf)

    def _introduce(self, mgr: bool) -> None:
        """Make the OSDs and the manager known, each with a key of its own."""
        self.command("config", "set", "mon", "auth_allow_insecure_global_id_reclaim", "false")
        for osd in OSDS:
            identity = str(uuid.uuid4())
            self.command("osd", "new", identity)
            place = self.dir / f"osd.{osd}"
            place.mkdir()
            caps = ["mon", "profile osd", "mgr", "profile osd", "osd", "allow *"]
            self.command("auth", "get-or-create", f"osd.{osd}", *caps, "-o", str(place / "keyring"))
            self._run("ceph-osd", "-i", str(osd), "--mkfs", "--osd-uuid", identity, "-c", str(self.conf))
        if mgr:
            place = self.dir / "mgr.x"
            place.mkdir()
            caps = ["mon", "profile mgr", "osd", "allow *", "mds", "allow *"]
            self.command("auth", "get-or-create", "mgr.x", *caps, "-o", str(place / "keyring"))

    def _make_pools(self) -> None:
        for pool, application in ((STATE_POOL, "vcl"), (IMAGE_POOL, "rbd")):
            self.command("osd", "pool", "create", pool, "8")
            self.command("osd", "pool", "application", "enable", pool, application)
        for user, monitor, osd in (("vcl", VCL_MONITOR_CAPS, VCL_OSD_CAPS), ("qemu", *QEMU_CAPS)):
            keyring = str(self.dir / f"ceph.client.{user}.keyring")
            caps = ["mon", monitor, "osd", osd]
            self.command("auth", "get-or-create", f"client.{user}", *caps, "-o", keyring)

    def _spawn(self, name: str, program: str) -> None:
        if self._daemon(name) is not None:
            return
        command = [program, "-f", "-i", name.split(".")[1], "-c", str(self.conf)]
        with (self.dir / f"{name}.out").open("ab") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd="/", start_new_session=True
            )
        _CHILDREN.append(process)
        (self.dir / f"{name}.pid").write_text(f"{process.pid} {_start_time(process.pid)}\n")

    def _daemon(self, name: str) -> Daemon | None:
        try:
            pid, started = (self.dir / f"{name}.pid").read_text().split()
        except (OSError, ValueError):
            return None
        daemon = Daemon(name=name, pid=int(pid), started=started)
        return daemon if daemon.alive() else None

    def _monitor_answers(self) -> bool:
        with contextlib.suppress(CephFailed, subprocess.TimeoutExpired):
            return bool(self.command("fsid", timeout=5.0))
        return False

    def _writable(self) -> bool:
        """Every placement group is served once an object in each pool can be written."""
        source = str(self.conf)
        with contextlib.suppress(CephFailed, subprocess.TimeoutExpired):
            for pool in (STATE_POOL, IMAGE_POOL):
                for number in range(2):
                    self._run("rados", "-p", pool, "put", f"probe{number}", source, timeout=10.0)
                    self._run("rados", "-p", pool, "rm", f"probe{number}", timeout=10.0)
            return True
        return False

    def _until(self, what: str, deadline: float, holds: object) -> None:
        assert callable(holds)
        while not holds():
            for name in ("mon.a", *(f"osd.{osd}" for osd in OSDS)):
                if (self.dir / f"{name}.pid").exists() and self._daemon(name) is None:
                    raise CephFailed(f"{name} ended: {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise CephFailed(f"waited in vain until {what}: {self._last_words('mon.a')}")
            time.sleep(0.1)

    def _last_words(self, name: str) -> str:
        lines: list[str] = []
        for path in (self.dir / f"{name}.log", self.dir / f"{name}.out"):
            with contextlib.suppress(OSError):
                lines += path.read_text(errors="replace").splitlines()[-3:]
        return " | ".join(lines) or "it left no message"

    def _run(self, *command: str, timeout: float = 30.0) -> str:
        environment = dict(os.environ)
        if self.conf.exists():
            environment["CEPH_CONF"] = str(self.conf)
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise CephFailed(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
        return done.stdout


_CHILDREN: list[subprocess.Popen[bytes]] = []
"""What this process started, kept so that a child's end is noticed and its entry in the table freed."""


@contextlib.contextmanager
def private_ceph(*, heartbeat_grace: int = 20, mgr: bool = False) -> Iterator[PrivateCeph]:
    """A running one in a directory of its own; at the end it and the directory are gone. Those of runs that
    were killed are removed first."""
    sweep()
    cluster = PrivateCeph(Path(tempfile.mkdtemp(prefix=PREFIX)))
    (cluster.dir / "owner").write_text(f"{os.getpid()} {_start_time(os.getpid())}\n")
    try:
        cluster.start(mgr=mgr, heartbeat_grace=heartbeat_grace)
        yield cluster
    finally:
        cluster.remove()


def configuration(*, fsid: str, monitors: str, address: str, place: Path, more: str) -> str:
    """ceph.conf of daemons at `address` that keep everything in `place`; `more`: sections to add;
    one that is there already goes on."""
    return _CONF.format(fsid=fsid, monitors=monitors, address=address, dir=place, more=more)


def sweep() -> None:
    """Remove the clusters whose owning process is gone."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/owner"):
        with contextlib.suppress(OSError, ValueError):
            pid, started = owner.read_text().split()
            if _start_time(int(pid)) != started:
                PrivateCeph(owner.parent).remove()


def _free_ports(address: str) -> int:
    """The first of `_PORTS` consecutive ports below the range that the kernel hands out, all of them free."""
    for _ in range(200):
        first = random.randrange(12_000, 32_000, _PORTS)
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for port in range(first, first + _PORTS):
                probe = probes.enter_context(socket.socket())
                probe.bind((address, port))
            return first
    raise CephFailed(f"no {_PORTS} free ports in a row between 12000 and 32000")


def _gone(daemon: Daemon, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while daemon.alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    for child in _CHILDREN:
        child.poll()


def _stands_still(pid: int) -> bool:
    """Whether every thread has seen the SIGSTOP."""
    states = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status"))
    return all("\nState:\tT" in state for state in states)


def _start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat; empty for a process that is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = re.sub(r"^.*\) ", "", text, flags=re.DOTALL).split()
    return "" if fields[0] in "ZX" else fields[19]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="a private Ceph cluster on this machine")
    verbs = ["start", "stop", "status", "conf", "command", "freeze", "thaw", "kill", "end"]
    parser.add_argument("verb", choices=verbs)
    parser.add_argument(
        "--words", nargs=argparse.REMAINDER, default=[], help="for command, as the last option"
    )
    parser.add_argument("--dir", type=Path, required=True)
    parser.add_argument("--daemon", action="append", default=[], help="osd.0 to osd.2, mon.a or mgr.x")
    parser.add_argument("--address", default="127.0.0.1", help="of this machine, for a new cluster")
    parser.add_argument("--mgr", action="store_true", help="with a manager, for `ceph df` and the like")
    given = parser.parse_args(arguments)
    cluster = PrivateCeph(given.dir)
    try:
        match given.verb:
            case "start":
                cluster.start(mgr=given.mgr, address=given.address)
                print(cluster.conf)
            case "stop":
                cluster.remove()
            case "conf":
                print(cluster.conf)
            case "command":
                print(cluster.command(*given.words), end="")
            case "freeze":
                cluster.freeze(*given.daemon)
            case "thaw":
                cluster.thaw(*given.daemon)
            case "kill":
                cluster.kill(*given.daemon)
            case "end":
                cluster.end(*given.daemon)
            case _:
                print(*(f"{each.name} {each.pid}" for each in cluster.daemons()), sep="\n")
                print(cluster.command("status"))
    except CephFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
