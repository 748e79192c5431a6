"""The whole lab: nodes r1, r2, ..., a Ceph cluster, and the switch between them, in one directory.

Nothing of it is seen from outside: no interface, address, mount or socket of this machine is used, so any
number of labs run side by side. It ends with its first process (see switch.py); a lab with an owner ends
when its owner does, however that happens, and its directory is removed by the next lab.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .audit import WriterAudit
from .certificates import issue
from .faults import Faults
from .host import Address, Host
from .hyperconverged import MONITORS, SpreadStorage
from .node import Node
from .processes import LabFailed, start_time
from .settings import MOST_NODES, LabSettings, Layout, kept
from .storage import Storage
from .switch import Switch

NETWORK = "10.77.0"
CEPH = "ceph"
PREFIX = "vcl-lab-"
_SOCKET_LIMIT = 60

Say = Callable[[str, str], None]
"""Told what is done, and a detail."""


class ClusterLab:
    """One lab in one directory. The object holds no state: another process can go on with it."""

    def __init__(self, directory: Path, settings: LabSettings | None = None) -> None:
        """Without `settings` those with which the lab was made."""
        self.dir = directory.resolve()
        self.settings = settings or kept(self.dir) or LabSettings()
        self.switch = Switch(self.dir / "switch")
        addresses = [Address(name=f"r{number}", ip=f"{NETWORK}.{number}") for number in self._numbers()] + [
            Address(name=CEPH, ip=f"{NETWORK}.100")
        ]
        hosts = [Host(self.dir / each.name, each, self.switch, addresses) for each in addresses]
        self.storage = self._storage(hosts)
        self.nodes = {host.name: Node(host, rank, self.settings) for rank, host in enumerate(hosts[:-1])}
        self.audit = WriterAudit(self.storage)
        self.fault = Faults(self.switch, self.nodes, self.storage)

    def _storage(self, hosts: list[Host]) -> Storage:
        *nodes, ceph = hosts
        if self.settings.layout is Layout.SEPARATE:
            return Storage(ceph, used=self.settings.ceph)
        if len(nodes) < len(MONITORS) or not self.settings.ceph:
            raise LabFailed("the layout hyperconverged has a Ceph, and needs three nodes at least")
        return SpreadStorage(ceph, nodes, self.settings.ceph_settings)

    def start(self, *, with_owner: bool = False, say: Say = lambda what, detail: None) -> None:
        """Everything that does not run; `with_owner`: it ends with the process that calls this.

        What a lab that has died left in the directory is removed: its Ceph has forgotten everything."""
        self._prepare()
        self.switch.start(with_owner=with_owner)
        say("network", f"a bridge and {len(self.nodes) + 1} machines' namespaces")
        for node in self.nodes.values():
            node.host.install()
            node.host.power_on()
        issue(self.dir / "ca", [node.host for node in self.nodes.values()])
        with ThreadPoolExecutor(2) as workers:
            storage = workers.submit(self.storage.start)
            hosts = workers.submit(self._start_libvirtds, say)
            storage.result()
            if self.settings.ceph:
                say("ceph", self.storage.what)
            hosts.result()
        self.audit.start()
        for node in self.nodes.values() if self.settings.ceph else []:
            node.install(self.storage.fsid(), self.storage.monitors(), self.storage.keyrings())
        if self.settings.vcld:
            with ThreadPoolExecutor(len(self.nodes)) as workers:
                list(workers.map(lambda node: node.start_vcld(), self.nodes.values()))
            say("vcld", "answers on every node")

    def _start_libvirtds(self, say: Say) -> None:
        """The first looks at what QEMU can do, which takes seconds; the others read what it found."""
        first, *others = self.nodes.values()
        for node in self.nodes.values():
            node.install_libvirt()
        first.start_libvirtd()
        seen = first.host.files / "var/cache/libvirt/qemu"
        for node in others:
            shutil.copytree(seen, node.host.files / "var/cache/libvirt/qemu", dirs_exist_ok=True)
            node.start_libvirtd()
        say("libvirtd", f"answers on {', '.join(self.nodes)}")

    def stop(self) -> None:
        """End everything and delete the directory."""
        self.switch.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def running(self) -> bool:
        return self.switch.first() is not None

    def host(self, name: str) -> Host:
        """A machine by its name. Raises LabFailed when there is none."""
        if name == CEPH:
            return self.storage.host
        if name not in self.nodes:
            raise LabFailed(f"there is no machine '{name}'; there are {', '.join([*self.nodes, CEPH])}")
        return self.nodes[name].host

    def _numbers(self) -> range:
        if not 1 <= self.settings.nodes <= MOST_NODES:
            raise LabFailed(f"a lab has 1 to {MOST_NODES} nodes, not {self.settings.nodes}")
        return range(1, self.settings.nodes + 1)

    def _prepare(self) -> None:
        if os.geteuid() != 0:
            raise LabFailed("the lab makes namespaces and mounts, which needs root: use sudo")
        if len(str(self.dir)) > _SOCKET_LIMIT:
            raise LabFailed(f"{self.dir} is too long for sockets; choose a shorter directory")
        missing = [
            name for name in ("ip", "nft", "ceph-mon", "libvirtd", "openssl") if not shutil.which(name)
        ]
        if missing:
            raise LabFailed(f"missing programs: {', '.join(missing)}; install them with: make install")
        if kept(self.dir) is not None and not self.running():
            shutil.rmtree(self.dir)
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.settings.keep(self.dir)


@contextlib.contextmanager
def cluster_lab(settings: LabSettings) -> Iterator[ClusterLab]:
    """A running one of this process' own; at the end nothing of it is left. What killed owners left behind
    is removed first."""
    assert threading.current_thread() is threading.main_thread(), (
        "the lab ends with the thread that starts it"
    )
    sweep()
    lab = ClusterLab(Path(tempfile.mkdtemp(prefix=PREFIX)), settings)
    (lab.dir / "owner").write_text(f"{os.getpid()} {start_time(os.getpid())}\n")
    try:
        lab.start(with_owner=True)
        yield lab
        lab.audit.close()
    finally:
        lab.stop()


def sweep() -> None:
    """Remove the labs whose owning process is gone."""
    for owner in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/owner"):
        with contextlib.suppress(OSError, ValueError):
            pid, started = owner.read_text().split()
            if start_time(int(pid)) != started:
                ClusterLab(owner.parent).stop()
