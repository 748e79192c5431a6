"""The lab's Ceph: a machine of its own, so that a node can be cut from its storage and from nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from .host import Host
from .processes import LabFailed

SCRIPT = Path(__file__).resolve().parents[1] / "ceph.py"
USERS = ("vcl", "qemu")
DAEMONS = ("mon.a", "mgr.x", "osd.0", "osd.1", "osd.2")


class Storage:
    """tests/lab/ceph.py, run on a machine of the lab; without `used` the machine has nothing to do."""

    what = "one monitor, one manager, three OSDs in memory, cephx"

    def __init__(self, host: Host, *, used: bool = True) -> None:
        self.host = host
        self.used = used
        self.dir = host.dir / "c"

    def start(self) -> None:
        """The machine and the daemons that do not run; returns when the pools can be written to."""
        self.host.power_on()
        if self.used:
            self._ceph("start", "--mgr", "--address", self.host.address.ip)

    def complete(self) -> bool:
        """Whether every daemon runs, and every OSD is up."""
        if not self.used:
            return self.host.on()
        return all(self._runs(name) for name in DAEMONS) and "3 up" in self.command("osd", "stat")

    def start_on(self, node: str) -> None:
        """What runs of Ceph on a node that has booted: nothing, in this layout."""

    def objection(self, names: Sequence[str]) -> str:
        """Why these machines may not lose their power; empty when they may."""
        if self.used and self.host.name in names:
            return (
                "Ceph's OSDs keep their data in memory: a power cut would lose it for good; freeze ceph "
                "instead, or cut it off"
            )
        return ""

    def stop(self) -> None:
        """Shut it down in order, OSDs first: what they hold is there when it is started again."""
        if self.used:
            self.end("osd.0", "osd.1", "osd.2")
            self.end("mgr.x", "mon.a")

    def freeze(self, *daemons: str) -> None:
        """SIGSTOP, by default for all OSDs: nothing is answered, nothing is lost."""
        self._to("freeze", daemons)

    def thaw(self, *daemons: str) -> None:
        """SIGCONT."""
        self._to("thaw", daemons)

    def kill(self, *daemons: str) -> None:
        """SIGKILL; an OSD forgets what it held, and has it restored by the others when it is started."""
        self._to("kill", daemons)

    def end(self, *daemons: str) -> None:
        """In order: an OSD keeps what it holds until it is started again."""
        self._to("end", daemons)

    def command(self, *words: str) -> str:
        """What `ceph WORDS` prints, as client.admin."""
        return self._ceph("command", "--words", *words)

    def remove(self, *images: str) -> None:
        """Delete images, those that somebody still has open excepted."""
        conf = str(self.dir / "ceph.conf")
        for image in images:
            self.host.run("rbd", "-c", conf, "--no-progress", "rm", f"vms/{image}", check=False)

    def is_open(self, image: str) -> bool:
        """Whether anybody has the image open."""
        conf = str(self.dir / "ceph.conf")
        told = self.host.run("rbd", "-c", conf, "status", f"vms/{image}").stdout
        return "Watchers: none" not in told

    def content(self, image: str) -> bytes:
        """What is in an image now; only what its writers have flushed is sure to be seen."""
        copy = self.host.dir / "content"
        copy.unlink(missing_ok=True)
        conf = str(self.dir / "ceph.conf")
        self.host.run("rbd", "-c", conf, "--no-progress", "export", f"vms/{image}", str(copy), timeout=120.0)
        return copy.read_bytes()

    def fsid(self) -> str:
        return self._setting("fsid")

    def monitors(self) -> str:
        return self._setting("mon host")

    def keyrings(self) -> list[Path]:
        """Of the users with the least rights; the administrator's never leaves the machine."""
        return [self.dir / f"ceph.client.{user}.keyring" for user in USERS]

    def _runs(self, name: str) -> bool:
        """Whether it is among the machine's processes."""
        words = ["-i", name.split(".")[1]]
        return any(
            each.words()[:1] == [f"ceph-{name.split('.')[0]}"] and each.words()[2:4] == words
            for each in self.host.members()
        )

    def _setting(self, name: str) -> str:
        found = re.search(rf"^{name} = (.*)$", (self.dir / "ceph.conf").read_text(), flags=re.MULTILINE)
        if found is None:
            raise LabFailed(f"{self.dir}/ceph.conf has no '{name}'")
        return found[1]

    def _to(self, verb: str, daemons: tuple[str, ...]) -> None:
        chosen = daemons or tuple(name for name in DAEMONS if name.startswith("osd."))
        self._ceph(verb, *(word for name in chosen for word in ("--daemon", name)))

    def _ceph(self, verb: str, *words: str) -> str:
        command = [sys.executable, str(SCRIPT), verb, "--dir", str(self.dir), *words]
        return self.host.run(*command, timeout=120.0).stdout
