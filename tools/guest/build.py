#!/usr/bin/env python3
"""Builds the guest that the demo and the tests boot: a distribution's kernel and a small initramfs.

    python3 tools/guest/build.py --out DIR [--cache DIR]      -> DIR/vmlinuz, DIR/initrd.img

On Debian and Ubuntu the kernel and the guest agent come from packages that are downloaded and unpacked into
the cache, never installed. Elsewhere the machine's own kernel, modules and `qemu-ga` are taken. It needs
busybox (static). Nothing is built twice: what is in DIR stays until this directory's files change.
It uses the standard library only, so that it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_rng",
    "virtio_balloon",
    "virtio_mem",
    "button",
    "evdev",
    "pvpanic_mmio",
]
"""In the order in which they are loaded; what they depend on is put before them."""


class BuildFailed(Exception):
    """The guest cannot be built; the message says what is missing and what to install."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """`modules`: a /lib/modules/VERSION directory; `agent`: None when the machine has no qemu-ga."""

    kernel: Path
    modules: Path
    busybox: Path
    agent: Path | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of the initramfs. `mode` holds the file type too."""

    path: str
    data: bytes = b""
    mode: int = 0o100755


def build(out: Path, cache: Path) -> tuple[Path, Path]:
    """Makes `out`/vmlinuz and `out`/initrd.img unless they are up to date. Raises BuildFailed."""
    kernel, initrd, stamp = out / "vmlinuz", out / "initrd.img", out / ".recipe"
    recipe = _recipe()
    if kernel.exists() and initrd.exists() and stamp.exists() and stamp.read_text() == recipe:
        return kernel, initrd
    out.mkdir(parents=True, exist_ok=True)
    parts = _ingredients(cache)
    _write(kernel, _read(parts.kernel, "the kernel"))
    _write(initrd, gzip.compress(cpio(_entries(parts)), compresslevel=1, mtime=0))
    _write(stamp, recipe.encode())
    return kernel, initrd


def _recipe() -> str:
    digest = hashlib.sha256()
    for path in sorted(HERE.iterdir()):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BuildFailed(f"cannot read {what}, {path}: {error.strerror}; run this as root") from error


# --- where the parts come from -------------------------------------------------------------------------


def _ingredients(cache: Path) -> Ingredients:
    busybox = _busybox()
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        return _from_packages(cache, busybox)
    return _from_host(busybox)


def _busybox() -> Path:
    found = shutil.which("busybox.static") or shutil.which("busybox")
    if found is None:
        raise BuildFailed("busybox is missing; install busybox-static (Debian, Ubuntu) or busybox")
    if list(_libraries(Path(found))):
        raise BuildFailed(f"{found} is not static; install busybox-static, or busybox with USE=static")
    return Path(found)


def _from_packages(cache: Path, busybox: Path) -> Ingredients:
    tree = cache / "tree"
    if not _kernels(tree):
        flavour = {"x86_64": "cloud-amd64", "aarch64": "cloud-arm64"}.get(platform.machine())
        if flavour is None:
            return _from_host(busybox)
        _download(cache, [_kernel_package(flavour), "qemu-guest-agent"])
        unpacking = cache / f"tree.{os.getpid()}"
        for package in sorted(cache.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(package), str(unpacking)], "unpack a package")
        shutil.rmtree(tree, ignore_errors=True)
        unpacking.rename(tree)
    kernel = _kernels(tree)[-1]
    version = kernel.name.removeprefix("vmlinuz-")
    modules = next((d for d in _module_trees(tree) if d.name == version), None)
    if modules is None:
        raise BuildFailed(f"{tree} has no modules for kernel {version}; remove it and try again")
    agents = [p for p in (tree / "usr/sbin/qemu-ga", tree / "usr/bin/qemu-ga") if p.exists()]
    return Ingredients(kernel=kernel, modules=modules, busybox=busybox, agent=next(iter(agents), None))


def _kernels(tree: Path) -> list[Path]:
    return sorted(tree.glob("boot/vmlinuz-*"))


def _module_trees(tree: Path) -> list[Path]:
    return sorted([*tree.glob("lib/modules/*"), *tree.glob("usr/lib/modules/*")])


def _kernel_package(flavour: str) -> str:
    """The package that holds the kernel; Debian's metapackage depends on it, Ubuntu's has another name."""
    names = [f"linux-image-{flavour}", "linux-image-virtual"]
    for name in names:
        listed = subprocess.run(
            ["apt-cache", "depends", "--important", name], capture_output=True, text=True, check=False
        )
        if found := re.search(r"Depends: (linux-image-\d\S*)", listed.stdout):
            return found[1]
    raise BuildFailed(f"apt knows neither {' nor '.join(names)}; run: apt-get update")


def _download(cache: Path, packages: list[str]) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("*.deb"):
        old.unlink()
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *packages]
    _run(command, "download the guest's packages; run apt-get update and look at the network", cwd=cache)


def _run(command: list[str], what: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BuildFailed(f"cannot {what}: {' '.join(command[:2])}: {last}")


def _from_host(busybox: Path) -> Ingredients:
    release = platform.release()
    modules = next((d for d in _module_trees(Path("/")) if d.name == release), None)
    kernels = [Path(f"/boot/vmlinuz-{release}"), Path(f"/boot/kernel-{release}")]
    if modules is not None:
        kernels.append(modules / "vmlinuz")
    kernel = next((k for k in kernels if k.exists()), None)
    if kernel is None or modules is None:
        raise BuildFailed(
            f"no kernel {release} in /boot or no modules in /lib/modules; reboot after an upgrade"
        )
    agent = shutil.which("qemu-ga")
    return Ingredients(kernel=kernel, modules=modules, busybox=busybox, agent=Path(agent) if agent else None)


# --- what goes into the initramfs ------------------------------------------------------------------------


def _entries(parts: Ingredients) -> Iterator[Entry]:
    for directory in ("bin", "sbin", "usr", "usr/bin", "usr/sbin", "etc", "modules", "dev", "run"):
        yield Entry(path=directory, mode=0o040755)
    yield Entry(path="init", data=(HERE / "init").read_bytes())
    yield Entry(path="sbin/shutdown", data=(HERE / "shutdown").read_bytes())
    yield Entry(path="etc/udhcpc", data=(HERE / "udhcpc").read_bytes())
    yield Entry(path="bin/busybox", data=parts.busybox.read_bytes())
    order = []
    for name, data in _modules(parts.modules):
        order.append(f"{name}.ko")
        yield Entry(path=f"modules/{name}.ko", data=data, mode=0o100644)
    yield Entry(path="modules/order", data="".join(f"{m}\n" for m in order).encode(), mode=0o100644)
    if parts.agent is not None:
        yield from _program(parts.agent)


def _program(agent: Path) -> Iterator[Entry]:
    """qemu-ga, its libraries and its loader, each where the loader looks for it."""
    yield Entry(path="usr/sbin/qemu-ga", data=agent.read_bytes())
    made = {"usr"}
    for library in sorted(set(_libraries(agent))):
        for parent in reversed(library.relative_to("/").parents):
            if str(parent) not in made | {"."}:
                made.add(str(parent))
                yield Entry(path=str(parent), mode=0o040755)
        yield Entry(path=str(library.relative_to("/")), data=library.read_bytes())


def _libraries(program: Path) -> Iterator[Path]:
    """Paths of the shared libraries; none for a static program. Raises BuildFailed when one is missing."""
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    if missing := re.findall(r"(\S+) => not found", listed):
        raise BuildFailed(
            f"{program.name} needs {', '.join(missing)}; install qemu-guest-agent's libraries: "
            "apt-get install libglib2.0-0 libnuma1 libudev1 liburing2"
        )
    for found in re.findall(r"(?:=> )?(/\S+) \(0x", listed):
        yield Path(found)


def _modules(tree: Path) -> Iterator[tuple[str, bytes]]:
    """Name and uncompressed contents, dependencies first; what is built into the kernel is left out."""
    files = {_module_name(p): p for p in sorted(tree.rglob("*.ko*"))}
    done: set[str] = set()

    def load(name: str) -> Iterator[tuple[str, bytes]]:
        if name in done or name not in files:
            return
        done.add(name)
        data = _module_data(files[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for needed in depends[1].decode().split(",") if depends else []:
            yield from load(needed.replace("-", "_"))
        yield name, data

    for wanted in MODULES:
        yield from load(wanted)


def _module_name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _module_data(path: Path) -> bytes:
    match path.suffix:
        case ".xz":
            return lzma.decompress(path.read_bytes())
        case ".gz":
            return gzip.decompress(path.read_bytes())
        case ".zst":
            return subprocess.run(["zstd", "-dcq", str(path)], capture_output=True, check=True).stdout
        case _:
            return path.read_bytes()


def cpio(entries: Iterable[Entry]) -> bytes:
    """An archive in the kernel's `newc` format (Documentation/driver-api/early-userspace/buffer-format)."""
    out = bytearray()
    for number, entry in enumerate([*entries, Entry(path="TRAILER!!!", mode=0)], start=1):
        name = entry.path.encode() + b"\0"
        links = 2 if entry.mode & 0o040000 else 1
        fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + entry.data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the small Linux guest of the demo and the tests.")
    parser.add_argument("--out", type=Path, required=True, help="where vmlinuz and initrd.img go")
    parser.add_argument("--cache", type=Path, help="where packages are kept (default: OUT/cache)")
    options = parser.parse_args()
    try:
        kernel, initrd = build(options.out.resolve(), (options.cache or options.out / "cache").resolve())
    except BuildFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{kernel}\n{initrd}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
