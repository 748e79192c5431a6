"""The network between the machines: a bridge in a namespace of its own, and what is wrong with its links.

The switch is the parent of every machine: when its first process ends, all of them end, and every bridge,
link, rule and mount with them. Cuts are rules of the bridge, as a broken switch has them; the machines
notice nothing but silence. Delays and losses are made by wire.py, a program that a link is led through:
unlike tc's netem it works with every kernel.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from .processes import LabFailed, Process, first_process, kill, processes, until

INIT = Path(__file__).with_name("init.py")
WIRE = Path(__file__).with_name("wire.py")
NAME = "switch"
UNSHARE = (
    *("unshare", "--mount", "--propagation", "private"),
    *("--pid", "--fork", "--kill-child", "--mount-proc"),
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cut:
    """Frames from `source` to `target` are lost: all, or those of one TCP `port` (0: all)."""

    source: str
    target: str
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What a machine's link does. `inward` is what the machine receives; `delay` and `jitter` in seconds,
    `loss` from 0 to 1; `peers`: the IP addresses that it is about, empty for all."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    inward: bool = True
    outward: bool = True
    peers: tuple[str, ...] = ()


class Switch:
    """The bridge that every machine is plugged into."""

    def __init__(self, directory: Path) -> None:
        self.dir = directory

    def first(self) -> Process | None:
        """The process on which the whole lab hangs; None when the lab is down."""
        return first_process([str(INIT), str(self.dir), NAME])

    def start(self, *, with_owner: bool) -> None:
        """`with_owner`: the lab ends with the process that called this, however that ends."""
        if self.first() is not None:
            return
        self.dir.mkdir(parents=True, exist_ok=True)
        ready = self.dir / "ready"
        for stale in (ready, *self.dir.glob("*.wire")):
            stale.unlink(missing_ok=True)
        command = [*UNSHARE, "--net", sys.executable, "-I", "-S", str(INIT), str(self.dir), NAME]
        if with_owner:
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.dir / "init.log").open("ab") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
            )
        _CHILDREN.append(child)
        until(lambda: child.poll() is not None or ready.exists(), 20.0, "the switch runs")
        if child.poll() is not None:
            said = (self.dir / "init.log").read_text(errors="replace").strip()[-500:]
            raise LabFailed(f"namespaces cannot be made: {said}; the lab needs root with the right to mount")
        self._ip("link add br0 type bridge forward_delay 0 mcast_snooping 0", "link set br0 up")
        self._apply(self.cuts())

    def stop(self) -> None:
        """End everything that hangs on it: the kernel kills all that is in its namespace before it goes."""
        first = self.first()
        if first is None:
            return
        kill([first])
        for child in _CHILDREN:
            child.poll()

    def run(self, *command: str, text: str = "", pid: bool = False) -> str:
        """Run a command in its network, with `pid` also as one of its processes. LabFailed when it fails."""
        first = self.first()
        if first is None:
            raise LabFailed("the lab does not run; start it with: make lab")
        spaces = ["--net", *(["--pid", "--mount"] if pid else [])]
        done = subprocess.run(
            ["nsenter", "--target", str(first.pid), *spaces, "--", *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            raise LabFailed(f"{shlex.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def plug(self, pid: int, name: str, ip: str, mac: str) -> None:
        """Connect the namespace of process `pid` by a link with this address."""
        self.unplug(name)
        self._ip(
            f"link add {name} type veth peer name eth0 address {mac} netns {pid}",
            f"link set {name} master br0 up",
        )
        inside = ("link set lo up", f"addr add {ip}/24 dev eth0", "link set eth0 up")
        done = subprocess.run(
            ["nsenter", "--target", str(pid), "--net", "--", "ip", "-batch", "-"],
            input="\n".join(inside),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LabFailed(f"{name} gets no address: {done.stderr.strip()}")

    def unplug(self, name: str) -> None:
        """Remove the link of this name, and what was wrong with it. No-op when there is none."""
        self._end_wire(name)
        if f" {name}@" in self.run("ip", "-o", "link"):
            self._ip(f"link set {name} down", f"link del {name}")

    def cuts(self) -> frozenset[Cut]:
        """Those in force."""
        try:
            return frozenset(Cut(**each) for each in json.loads((self.dir / "cuts.json").read_text()))
        except FileNotFoundError:
            return frozenset()

    def set_cuts(self, cuts: frozenset[Cut]) -> None:
        """Replace all of them at one moment."""
        (self.dir / "cuts.json").write_text(json.dumps([asdict(each) for each in sorted(cuts)]))
        self._apply(cuts)

    def set_wire(self, name: str, wire: Wire | None) -> None:
        """Lead the link through a program that delays and loses, or through nothing again."""
        self._end_wire(name)
        if wire is None:
            return
        place = self.dir / f"{name}.wire"
        place.write_text(json.dumps(asdict(wire)))
        inner, outer = f"{name}-wi", f"{name}-wo"
        self._ip(
            f"link add {inner} type veth peer name {outer}",
            f"link set {inner} up",
            f"link set {outer} master br0 up",
            f"link set {name} nomaster",
        )
        command = [sys.executable, "-I", "-S", str(WIRE), str(place), name, inner]
        log = shlex.quote(str(self.dir / "wire.log"))
        ready = place.with_suffix(".ready")
        ready.unlink(missing_ok=True)
        self.run("sh", "-c", f"setsid {shlex.join(command)} </dev/null >>{log} 2>&1 &", pid=True)
        until(ready.exists, 10.0, f"the wire of {name} carries; see {log}")

    def wires(self) -> dict[str, str]:
        """Name -> what is wrong with the link."""
        return {path.stem: path.read_text() for path in sorted(self.dir.glob("*.wire"))}

    def _end_wire(self, name: str) -> None:
        place = self.dir / f"{name}.wire"
        if not place.exists():
            return
        kill([each for each in processes() if each.words()[3:5] == [str(WIRE), str(place)]])
        links = self.run("ip", "-o", "link")
        if f" {name}-wi@" in links:
            self._ip(f"link del {name}-wi")
        if f" {name}@" in links:
            self._ip(f"link set {name} master br0")
        place.unlink()

    def _apply(self, cuts: frozenset[Cut]) -> None:
        rules = ["table bridge lab", "delete table bridge lab", "table bridge lab { chain links {"]
        rules.append("type filter hook forward priority 0; policy accept;")
        for each in sorted(cuts):
            ways = f"iifname {_ports(each.source)} oifname {_ports(each.target)}"
            if each.port:
                rules += [f"{ways} tcp {side} {each.port} drop;" for side in ("dport", "sport")]
            else:
                rules.append(f"{ways} drop;")
        self.run("nft", "-f", "-", text="\n".join([*rules, "}", "}", ""]))

    def _ip(self, *lines: str) -> None:
        self.run("ip", "-batch", "-", text="\n".join(lines) + "\n")


_CHILDREN: list[subprocess.Popen[bytes]] = []
"""What this process started, kept so that a child's end is noticed and its entry in the table freed."""


def _ports(name: str) -> str:
    """The bridge's ports that lead to a machine: its link, or the end of the wire before it."""
    return f'{{ "{name}", "{name}-wo" }}'
