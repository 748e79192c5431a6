"""Where the demo lives: one directory that holds all it makes, so that removing it is removing everything.

The path is fixed, because the manifests name the guest's kernel with it. The directory is used and removed
only when it is this user's and carries the demo's mark: what somebody else put there is never touched.
Standard library only: `make demo-stop` works without the environment.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import stat
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = Path("/var/tmp/vcl-demo")
MARK = ".vcl-demo"
CONFIG = """\
# Written by `make demo`, removed by `make demo-stop`. What else there is: schemas/vcld.json.
node: demo
cluster: demo
stateDir: {dir}/state
runDir: {dir}/run
controllers:
  libvirt:
    uri: {uri}
    logDir: {logs}
    virtualization: {virtualization}
"""


class DemoFailed(Exception):
    """The demo cannot go on; the message says why, and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The demo's directory and what is in it."""

    dir: Path

    @property
    def guest(self) -> Path:
        return self.dir / "guest"

    @property
    def libvirt(self) -> Path:
        return self.dir / "libvirt"

    @property
    def config(self) -> Path:
        return self.dir / "vcld.yaml"

    @property
    def log(self) -> Path:
        return self.dir / "vcld.log"

    @property
    def socket(self) -> Path:
        return self.dir / "run/vcld.sock"

    @property
    def owner(self) -> int | None:
        """The user id that the directory belongs to; None when there is no such directory."""
        try:
            found = self.dir.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISDIR(found.st_mode):
            raise DemoFailed(f"{self.dir} is not a directory; move it away")
        return found.st_uid


def place() -> Place:
    """The demo's place: VCL_DEMO_DIR, or the usual one. Raises DemoFailed."""
    directory = Path(os.environ.get("VCL_DEMO_DIR") or DEFAULT)
    if not directory.is_absolute():
        raise DemoFailed(f"VCL_DEMO_DIR must be an absolute path, got '{directory}'")
    return Place(dir=directory)


def take(where: Place) -> None:
    """Make the directory, or see that it is ours. Raises DemoFailed."""
    try:
        where.dir.mkdir(mode=0o700)
    except FileExistsError:
        check_ours(where)
    except OSError as error:
        raise DemoFailed(f"cannot make {where.dir}: {error.strerror}") from error
    (where.dir / MARK).touch()


def check_ours(where: Place) -> None:
    """Raises DemoFailed unless the demo of this user made the directory (root may use anybody's)."""
    owner = where.owner
    if os.geteuid() not in (owner, 0):
        raise DemoFailed(
            f"{where.dir} belongs to user {owner}: a demo of theirs is there; "
            "they (or root) can remove it with: make demo-stop"
        )
    if not (where.dir / MARK).exists() and any(where.dir.iterdir()):
        raise DemoFailed(f"{where.dir} holds files that the demo did not make; move it away")


def configure(where: Place, uri: str, logs: Path) -> bool:
    """Write vcld's configuration; whether it changed. Emulation, unless VCL_DEMO_VIRTUALIZATION says auto or
    kvm: the demo is to work in any container and any cloud machine."""
    text = CONFIG.format(
        dir=where.dir,
        uri=uri,
        logs=logs,
        virtualization=os.environ.get("VCL_DEMO_VIRTUALIZATION") or "qemu",
    )
    if where.config.exists() and where.config.read_text(encoding="utf-8") == text:
        return False
    where.config.write_text(text, encoding="utf-8")
    return True


def manifests(where: Place) -> Path:
    """What to apply: manifests/demo, or a copy with this place's paths when it is not the usual one."""
    source = ROOT / "manifests/demo"
    if where.dir == DEFAULT:
        return source
    copies = where.dir / "manifests"
    copies.mkdir(exist_ok=True)
    for path in sorted(source.glob("*.yaml")):
        text = path.read_text(encoding="utf-8").replace(str(DEFAULT), str(where.dir))
        (copies / path.name).write_text(text, encoding="utf-8")
    return copies


def remove(where: Place) -> None:
    """Delete the directory. Raises DemoFailed with what stays."""
    try:
        shutil.rmtree(where.dir)
    except FileNotFoundError:
        return
    except OSError as error:
        raise DemoFailed(f"{error.filename} cannot be removed: {error.strerror}") from error


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a text file; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
