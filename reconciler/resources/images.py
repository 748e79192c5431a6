"""Disk images as values: what exists in a pool, and what a new image is made from."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.resources.virtualmachine import DiskFormat

RBD = "rbd:"
"""How the path of an RBD image begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdName:
    """An RBD image by its name."""

    pool: str
    image: str
    namespace: str = ""

    @classmethod
    def parse(cls, path: str) -> RbdName | None:
        """From `rbd:POOL[/NAMESPACE]/IMAGE`; None for anything else."""
        parts = path.removeprefix(RBD).split("/")
        if not path.startswith(RBD) or len(parts) not in (2, 3) or not all(parts):
            return None
        return cls(pool=parts[0], image=parts[-1], namespace=parts[1] if len(parts) == 3 else "")

    @property
    def spec(self) -> str:
        """POOL[/NAMESPACE]/IMAGE, as Ceph, QEMU and libvirt write it."""
        return "/".join(part for part in (self.pool, self.namespace, self.image) if part)

    @property
    def path(self) -> str:
        return RBD + self.spec


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdIdentity:
    """An RBD image itself, whatever its name becomes; written FSID/POOL/NAMESPACE/ID."""

    fsid: str
    pool: str
    namespace: str
    id: str

    @classmethod
    def parse(cls, identity: str) -> RbdIdentity | None:
        """None for the identity of anything but an RBD image."""
        parts = identity.split("/")
        if len(parts) != 4 or parts[0] in ("name", "network"):
            return None
        return cls(fsid=parts[0], pool=parts[1], namespace=parts[2], id=parts[3])

    def __str__(self) -> str:
        return f"{self.fsid}/{self.pool}/{self.namespace}/{self.id}"

    @property
    def where(self) -> str:
        """POOL[/NAMESPACE]/ID, for people."""
        return "/".join(part for part in (self.pool, self.namespace, self.id) if part)


def is_network_client(client: str) -> bool:
    """Whether a claim's client is one with an address (`10.77.0.1:0/544144402`), not a process."""
    address, _, nonce = client.rpartition("/")
    return nonce.isdigit() and address.rpartition(":")[2].isdigit() and not client.startswith("pid:")


@dataclass(frozen=True, slots=True, kw_only=True)
class RbdAccess:
    """How a guest's QEMU reaches the images of a Ceph pool: `monitors` as HOST:PORT ([HOST]:PORT for IPv6),
    the Ceph `user` without 'client.', the UUID of libvirt's `secret` that holds its key ('' without cephx),
    and the Ceph configuration file that QEMU reads ('' for Ceph's default)."""

    monitors: tuple[str, ...]
    user: str
    secret: str = ""
    config: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """`identity` names the image itself (SAFETY rule 6), `size` is the guest-visible size in bytes.

    `path`: absolute, or `rbd:POOL[/NAMESPACE]/IMAGE` with its `access`. `backing`: the path of what it is a
    copy-on-write clone of, or None. `allocated`: bytes it takes, 0 when that is not known. `features`: the
    storage's words, such as RBD's 'exclusive-lock'.
    """

    name: str
    path: str
    identity: str
    size: int
    format: DiskFormat
    allocated: int = 0
    backing: str | None = None
    access: RbdAccess | None = None
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """An empty image of `size` bytes."""

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOf:
    """A full copy of a qcow2 or raw file or of an `rbd:` image, grown to `size` bytes when that is larger."""

    path: str
    size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneOf:
    """A copy-on-write clone of a template that nobody writes; `format` of the template, None: its header
    decides (it is a file that a person named as a template, never one that a guest wrote)."""

    path: str
    format: DiskFormat | None = None
    size: int | None = None


Content = Blank | CopyOf | CloneOf


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody who has an image open or locked: a process or a network client.

    `client`: `pid:N:STARTTIME`, or the address of a network client as Ceph knows it
    (`10.77.0.1:0/544144402`). Of network clients: `entity` is their id in this session (`client.4193`),
    `watching`: they have it open for writing; `lock`: the cookie of their lock, '' without one; `tag`: the
    lock's ('internal' for RBD's own exclusive lock); `shared`: others may hold it too; `fenced`: an entry of
    the blocklist keeps them from writing, for years.
    """

    client: str
    description: str
    entity: str = ""
    watching: bool = False
    lock: str = ""
    tag: str = ""
    shared: bool = False
    fenced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolCapacity:
    """Bytes. `full`: how the storage itself says that room runs out, such as 'nearfull'; `refuses`: it takes
    no more writes for that."""

    total: int
    free: int
    full: str = ""
    refuses: bool = False
