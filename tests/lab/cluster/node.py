"""What runs on a machine of the cluster: its libvirtd, and its vcld with the configuration for it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import uuid
from pathlib import Path
from typing import Any

from .api import STATUS, ask
from .host import Host
from .processes import LabFailed, until
from .settings import LabSettings

LIBVIRTD_CONF = """\
host_uuid = "{host_uuid}"
listen_tls = 1
auth_tls = "none"
key_file = "{pki}/serverkey.pem"
cert_file = "{pki}/servercert.pem"
ca_file = "{pki}/cacert.pem"
listen_tcp = 1
listen_addr = "{ip}"
auth_tcp = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "3:stderr"
"""
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
migration_host = "{ip}"
migrate_tls_x509_cert_dir = "{pki}"
migrate_tls_x509_verify = 1
"""
PKI = "/etc/libvirt/pki"
"""Where a host's libvirtd, its clients and QEMU have their certificates, by different names."""

CEPH_CONF = """\
[global]
fsid = {fsid}
mon host = {monitors}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
ms bind msgr2 = false

[client]
keyring = /etc/ceph/ceph.$name.keyring
log file =
admin socket =
mon client ping interval = 1
mon client ping timeout = 2
mon client hunt interval = 1
mon client hunt interval backoff = 1
rbd blocklist expire seconds = 315360000
"""
LIBVIRTD, VCLD = "libvirtd", "vcld"


class Node:
    """A host with the two daemons on it."""

    def __init__(self, host: Host, rank: int, settings: LabSettings) -> None:
        self.host = host
        self.name = host.name
        self.rank = rank
        self._settings = settings

    @property
    def manifests(self) -> Path:
        """The node's manifest directory, as this machine sees it."""
        return self.host.files / "var/lib/vcl/manifests"

    # Its disk.

    def install_libvirt(self) -> None:
        """libvirt's configuration, unless it is there; the host has to exist."""
        place, ip = self.host.files / "etc/libvirt", self.host.address.ip
        if not (place / "libvirtd.conf").exists():
            libvirtd = LIBVIRTD_CONF.format(host_uuid=uuid.uuid4(), ip=ip, pki=PKI)
            (place / "libvirtd.conf").write_text(libvirtd)
            (place / "qemu.conf").write_text(QEMU_CONF.format(ip=ip, pki=PKI))
            self._install_keys(place / "pki")

    def _install_keys(self, place: Path) -> None:
        """The host's certificate of the lab's CA, for libvirt and for QEMU."""
        place.mkdir()
        own = self.host.files / "etc/vcl"
        for role in ("server", "client"):
            for dash in ("", "-"):
                shutil.copy(own / "node.crt", place / f"{role}{dash}cert.pem")
                shutil.copy(own / "node.key", place / f"{role}{dash}key.pem")
        for name in ("cacert.pem", "ca-cert.pem"):
            shutil.copy(own / "ca.crt", place / name)

    def install(self, fsid: str, monitors: str, keyrings: list[Path]) -> None:
        """The way to Ceph, and vcld's configuration; a changed vcld.yaml is kept."""
        files = self.host.files
        ceph = CEPH_CONF.format(fsid=fsid, monitors=monitors)
        (files / "etc/ceph/ceph.conf").write_text(ceph)
        for keyring in keyrings:
            copy = files / "etc/ceph" / keyring.name
            shutil.copy(keyring, copy)
            copy.chmod(0o600)
        configuration = files / "etc/vcl/vcld.yaml"
        if not configuration.exists():
            configuration.write_text(json.dumps(self._configuration(), indent=2) + "\n")

    def _configuration(self) -> dict[str, Any]:
        mesh = {"tls": "on" if self._settings.tls else "off"}
        libvirt: dict[str, Any] = {"virtualization": "qemu", "keepaliveSeconds": 1}
        if self.name in self._settings.tls_into:
            connect = f"qemu+tls://{self.host.address.ip}/system?pkipath={PKI}"
            libvirt["migration"] = {"tls": True, "connect": connect}
        return {
            "node": self.name,
            "cluster": "lab",
            "address": self.host.address.ip,
            "rank": self.rank,
            "mesh": mesh,
            "store": {"type": "rados"},
            "controllers": {"libvirt": libvirt},
            **self._settings.config,
        }

    # Its daemons.

    def start_libvirtd(self, *, timeout: float = 60.0) -> None:
        """Returns when it answers. No-op when it runs."""
        self.host.spawn(LIBVIRTD, "libvirtd", "--listen")
        until(
            self._libvirt_answers, timeout, f"libvirtd of {self.name} answers; see {self.host.log(LIBVIRTD)}"
        )

    def start_vcld(self, *, wait: bool = True, timeout: float = 30.0) -> None:
        """By default returns when it answers. No-op when it runs."""
        self.host.spawn(VCLD, sys.executable, "-m", "vcld.main", env=self._settings.environment)
        if wait:
            until(self._vcld_answers, timeout, f"vcld of {self.name} answers; see {self.host.log(VCLD)}")

    def start(self) -> None:
        """Power on, and all its daemons. vcld gets the time that it needs when the store is away."""
        self.host.power_on()
        self.start_libvirtd()
        if self._settings.vcld:
            self.start_vcld()

    def kill_vcld(self) -> None:
        """SIGKILL; the host lives and refuses connections, guests go on."""
        self.host.end(VCLD, signal.SIGKILL)

    def stop_vcld(self) -> None:
        """As an upgrade does it; guests go on."""
        self.host.end(VCLD, signal.SIGTERM)

    def _libvirt_answers(self) -> bool:
        if self.host.daemon(LIBVIRTD) is None:
            raise LabFailed(f"libvirtd of {self.name} ended; see {self.host.log(LIBVIRTD)}")
        return self.host.run("virsh", "-q", "-r", "hostname", check=False).returncode == 0

    def _vcld_answers(self) -> bool:
        if self.host.daemon(VCLD) is None:
            log = self.host.log(VCLD).read_text(errors="replace").strip()
            raise LabFailed(f"vcld of {self.name} ended: {log[-500:]}")
        return self.vcl("version", check=False).returncode == 0

    # What people see.

    def vcl(self, *arguments: str, check: bool = True, timeout: float = 90.0) -> Any:
        """`vcl ARGUMENTS` on this node; the finished process."""
        return self.host.run("vcl", *arguments, check=check, timeout=timeout)

    def ask(self, *arguments: str) -> Any:
        """What `vcl ARGUMENTS -o json` says; None when it fails."""
        done = self.vcl(*arguments, "-o", "json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def api(self, path: str) -> Any:
        """What vcld's API says; None when it does not answer."""
        first = self.host.first()
        return ask(f"/proc/{first.pid}/root/run/vcl/vcld.sock", path) if first is not None else None

    def master(self) -> str:
        """Who is master, as this node sees it; empty when nobody is, or vcld does not answer."""
        status = self.api(STATUS)
        return (status or {}).get("cluster", {}).get("master") or ""

    def epoch(self) -> int:
        """The epoch that this node has seen last; 0 when vcld does not answer."""
        status = self.api(STATUS)
        return int((status or {}).get("cluster", {}).get("epoch") or 0)

    def standing(self, name: str) -> str:
        """What this node thinks of another; empty when vcld does not answer."""
        return self.standings().get(name, "")

    def standings(self) -> dict[str, str]:
        """What this node thinks of each, itself included; nothing when vcld does not answer."""
        status = self.api(STATUS) or {}
        return {each["name"]: each["standing"] for each in status.get("cluster", {}).get("nodes", [])}

    def virsh(self, *arguments: str) -> str:
        done: str = self.host.run("virsh", "-q", *arguments).stdout
        return done

    def qemus(self, name: str) -> list[int]:
        """The processes on this host that run the VM, whoever knows of them."""
        mark = f"guest={name},"
        return [each.pid for each in self.host.members() if any(w.startswith(mark) for w in each.words())]

    def console(self, vm: str) -> str:
        """All that the VM has printed on this node; empty when it never ran here."""
        path = self.console_log(vm)
        return path.read_text(errors="replace") if path.exists() else ""

    def console_log(self, vm: str) -> Path:
        """Where QEMU writes it."""
        return self.host.files / "var/lib/vcl/libvirt/libvirt/console" / f"{vm}.log"

    def save(self, name: str, text: str) -> Path:
        """Put a file into the manifest directory as an editor does: beside, then renamed."""
        path, fresh = self.manifests / name, self.manifests / f".{name}.tmp"
        fresh.write_text(text)
        fresh.rename(path)
        return path
