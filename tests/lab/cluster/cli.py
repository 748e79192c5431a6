"""The lab as a tool: start it, look at it, run commands on its machines, break it, stop it."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from .faults import Faults, Way
from .host import environment
from .lab import ClusterLab
from .processes import LabFailed
from .settings import CephSettings, LabSettings, Layout, kept

DEFAULT = "/var/tmp/vcl-lab"
MANUAL = """\
Machines: {machines}. In a command, `lab` is {lab}

  lab run r1 vcl get nodes             a command on a machine; `lab run r1 bash` for a shell
  lab status                           what runs
  lab log r1 [vcld|libvirtd]           follow a daemon's log
  lab fault power-cut r1               every process of r1 ends at once, its link is dead
  lab fault power-on r1                it boots again
  lab fault kill r1 vcld               also: stop, start, freeze, thaw; r1 libvirtd, ceph osd.0, ceph mon.a
  lab fault freeze r1                  SIGSTOP for every process of r1; thaw undoes it
  lab fault cut r1 [r2 ...]            no frame passes to r2 (nobody named: to nobody); --way in|out, --port N
  lab fault cut-ceph r1                r1 loses its storage and nothing else
  lab fault cut-mesh r1                r1 loses the other nodes and nothing else
  lab fault mend r1 [r2 ...]           undo what was cut
  lab fault slow r1 [r2 ...]           --delay 0.2 --jitter 0.1 --loss 0.3 (seconds, seconds, probability)
  lab fault restart-all                a power cut of all nodes, and all on again
  lab fault heal                       everything is well again
  lab ceph osd tree                    Ceph's own tool, as its administrator
  make lab-stop                        removes all of it

The manifest directory of r1 is {manifests}
"""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status."""
    words = list(arguments)
    at = 2 if words[:1] == ["--dir"] else 0
    if words[at : at + 1] == ["ceph"]:
        words.insert(at + 1, "--")  # else argparse takes `ceph -s` for an option of its own
    given = _parser().parse_args(words)
    directory = Path(given.dir)
    try:
        if given.verb == "start":
            _start(directory, given)
            return 0
        if given.verb == "stop":
            return _stop(directory)
        lab = ClusterLab(directory)
        if given.verb == "help":
            print(_manual(lab), end="")
            return 0
        if not lab.running():
            raise LabFailed(f"no lab runs in {directory}; start one with: make lab")
        return _VERBS[given.verb](lab, given) or 0
    except LabFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lab", description="A cluster of whole machines in one.")
    default = os.environ.get("VCL_LAB_DIR") or DEFAULT
    parser.add_argument("--dir", default=default, help="the lab's directory (VCL_LAB_DIR)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="start it, or what is missing of it")
    start.add_argument("--nodes", type=int, default=3)
    start.add_argument("--layout", type=Layout, choices=list(Layout), default=Layout.SEPARATE)
    start.add_argument(
        "--ceph", type=CephSettings, choices=list(CephSettings), default=CephSettings.RECOMMENDED
    )
    start.add_argument("--no-vcld", action="store_true")
    start.add_argument("--tls", choices=["on", "off"], default="on")
    for verb, about in (("stop", "end and remove it"), ("help", "how to use it"), ("status", "what runs")):
        verbs.add_parser(verb, help=about)
    run = verbs.add_parser("run", help="a command on a machine")
    run.add_argument("machine")
    run.add_argument("words", nargs=argparse.REMAINDER)
    log = verbs.add_parser("log", help="follow a daemon's log")
    log.add_argument("machine")
    log.add_argument("daemon", nargs="?", default="vcld")
    ceph = verbs.add_parser("ceph", help="Ceph's own tool, as its administrator")
    ceph.add_argument("words", nargs=argparse.REMAINDER)
    fault = verbs.add_parser("fault", help="break something, or heal it")
    fault.add_argument("fault", choices=sorted(_FAULTS))
    fault.add_argument("names", nargs="*")
    fault.add_argument(
        "--way", type=Way, choices=list(Way), default=Way.BOTH, help="seen from the first machine"
    )
    fault.add_argument("--port", type=int, default=0, help="cut only this TCP service")
    for name in ("--delay", "--jitter", "--loss"):
        fault.add_argument(name, type=float, default=0.0)
    return parser


def _start(directory: Path, given: argparse.Namespace) -> None:
    began = time.monotonic()
    asked = LabSettings(
        nodes=given.nodes,
        vcld=not given.no_vcld,
        tls=given.tls == "on",
        layout=given.layout,
        ceph_settings=given.ceph,
    )
    lab = ClusterLab(directory)
    if not lab.running():
        lab = ClusterLab(directory, asked)

    def say(what: str, detail: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what:<10}  {detail}", flush=True)

    lab.start(say=say)
    print(f"\nThe lab runs in the background, everything of it in {lab.dir}\n\n{_manual(lab)}", end="")


def _stop(directory: Path) -> int:
    if not directory.exists():
        print(f"lab: nothing in {directory}, nothing to remove")
        return 0
    if kept(directory) is None:
        raise LabFailed(f"{directory} holds files that are no lab's; nothing was removed")
    ClusterLab(directory).stop()
    print(f"lab: ended, removed {directory}")
    return 0


def _manual(lab: ClusterLab) -> str:
    machines = ", ".join(f"{each.name} ({each.address.ip})" for each in [n.host for n in lab.nodes.values()])
    tool = Path(__file__).resolve().parents[3] / "tools/lab"
    where = "" if str(lab.dir) == DEFAULT else f"VCL_LAB_DIR={lab.dir} "
    ceph = f"{machines}, {lab.storage.host.name} ({lab.storage.host.address.ip})"
    return MANUAL.format(machines=ceph, lab=f"{where}{tool}", manifests=lab.nodes["r1"].manifests)


def _status(lab: ClusterLab, given: argparse.Namespace) -> int:
    for node in lab.nodes.values():
        daemons = [name for name in ("libvirtd", "vcld") if node.host.daemon(name)]
        guests = sum(1 for each in node.host.members() if "-uuid" in each.words())
        state = f"on   {', '.join(daemons) or 'no daemon'}, {guests} guests" if node.host.on() else "off"
        print(f"{node.name:<6}{node.host.address.ip:<12}{state}")
    ceph = lab.storage.host
    print(f"{ceph.name:<6}{ceph.address.ip:<12}{'on' if ceph.on() else 'off'}")
    for cut in sorted(lab.switch.cuts()):
        print(f"cut   {cut.source} -> {cut.target}{f' port {cut.port}' if cut.port else ''}")
    for name, wire in lab.switch.wires().items():
        print(f"slow  {name} {wire}")
    return 0


def _run(lab: ClusterLab, given: argparse.Namespace) -> int:
    if not given.words:
        raise LabFailed(f"what is to be run? for example: lab run {given.machine} vcl get nodes")
    command = lab.host(given.machine).command(*given.words)
    os.execvpe(command[0], command, environment())


def _log(lab: ClusterLab, given: argparse.Namespace) -> int:
    path = lab.host(given.machine).log(given.daemon)
    os.execvp("tail", ["tail", "-n", "50", "-F", str(path)])


def _ceph(lab: ClusterLab, given: argparse.Namespace) -> int:
    print(lab.storage.command(*given.words[1:]), end="")
    return 0


def _fault(lab: ClusterLab, given: argparse.Namespace) -> int:
    words, inject = _FAULTS[given.fault]
    least = sum(1 for word in words.split() if not word.startswith("["))
    most = MANY if "..." in words else len(words.split())
    if not least <= len(given.names) <= most:
        raise LabFailed(f"it is: lab fault {given.fault} {words}")
    inject(lab.fault, given)
    return 0


MANY = 99
_VERBS = {"status": _status, "run": _run, "log": _log, "ceph": _ceph, "fault": _fault}
_FAULTS: dict[str, tuple[str, Callable[[Faults, argparse.Namespace], None]]] = {
    "power-cut": ("MACHINE [...]", lambda fault, given: fault.power_cut(*given.names)),
    "power-on": ("MACHINE [...]", lambda fault, given: fault.power_on(*given.names)),
    "kill": ("MACHINE DAEMON", lambda fault, given: fault.kill(*given.names)),
    "stop": ("MACHINE DAEMON", lambda fault, given: fault.stop(*given.names)),
    "start": ("MACHINE DAEMON", lambda fault, given: fault.start(*given.names)),
    "freeze": ("MACHINE [DAEMON]", lambda fault, given: fault.freeze(*given.names)),
    "thaw": ("MACHINE [DAEMON]", lambda fault, given: fault.thaw(*given.names)),
    "cut": (
        "MACHINE [PEER...]",
        lambda fault, given: fault.cut(*given.names, way=given.way, port=given.port),
    ),
    "cut-ceph": ("MACHINE", lambda fault, given: fault.cut_from_ceph(*given.names, way=given.way)),
    "cut-mesh": ("MACHINE", lambda fault, given: fault.cut_from_mesh(*given.names, way=given.way)),
    "mend": ("MACHINE [PEER...]", lambda fault, given: fault.mend(*given.names)),
    "slow": (
        "MACHINE [PEER...]",
        lambda fault, given: fault.slow(
            *given.names, way=given.way, delay=given.delay, jitter=given.jitter, loss=given.loss
        ),
    ),
    "restart-all": ("", lambda fault, given: fault.restart_all()),
    "heal": ("", lambda fault, given: fault.heal()),
}
"""Name -> the words that follow it, and what it does."""
