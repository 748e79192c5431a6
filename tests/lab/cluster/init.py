"""The first process of a namespace of the lab: of a host, or of the switch between the hosts.

    python3 -I -S init.py HOST-DIRECTORY NAME        run by host.py, inside `unshare`

It makes the machine look like another one (its own files, name, machine id and boot id), says so in
HOST-DIRECTORY/ready, and then only reaps. When it is killed, the kernel kills every process of the namespace
at once, and mounts and network go with them: a power cut, and also a clean-up that cannot be forgotten.
Standard library only. What is mounted here is seen by nobody outside.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from pathlib import Path

OWN = ("/etc", "/var/lib", "/var/log", "/var/cache")
"""Covered by an empty layer, so that a mount point can be made without touching this machine's disk."""
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def main() -> None:
    place, name = Path(sys.argv[1]), sys.argv[2]
    files = place / "fs"
    boot = str(uuid.uuid4())
    if files.is_dir():
        _run_directory(boot)
        for directory in OWN:
            _cover(directory)
        for path in sorted(files.glob("*/*")) + sorted(files.glob("var/*/*")):
            if path.parent != files / "var":
                _bind(path, Path("/") / path.relative_to(files))
        _mount("--bind", "/run/lab/boot_id", BOOT_ID)
        socket.sethostname(name)
    (place / "ready").write_text(boot)
    _reap()


def _run_directory(boot: str) -> None:
    _mount("-t", "tmpfs", "-o", "mode=755,size=256m", "lab", "/run")
    for directory in ("/run/lock", "/run/lab", "/run/tmp"):
        os.mkdir(directory)
    Path("/run/lab/boot_id").write_text(f"{boot}\n")


def _cover(directory: str) -> None:
    """An overlay whose changes are kept in memory; without overlayfs the machine's own directory is used."""
    place = Path("/run/lab/changed" + directory.replace("/", "-"))
    upper, work = place / "upper", place / "work"
    upper.mkdir(parents=True)
    work.mkdir()
    with contextlib.suppress(subprocess.CalledProcessError):
        _mount(
            "-t", "overlay", "-o", f"lowerdir={directory},upperdir={upper},workdir={work}", "lab", directory
        )


def _bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.touch()
    _mount("--bind", str(source), str(target))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, stdin=subprocess.DEVNULL)


def _reap() -> None:
    """Orphans fall to this process; libvirt waits until a QEMU of it is reaped."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        signal.sigwait({signal.SIGCHLD})


if __name__ == "__main__":
    main()
