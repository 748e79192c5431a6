"""The files of a directory pool: names, headers, building beside and moving into place. Blocking calls.

The image NAME is the file `NAME.qcow2` or `NAME.raw`, whichever there is, or a file called NAME exactly; the
suffix says the format, so that nobody ever has to look into a guest's bytes for it.
Invariant: a name appears once, complete and on disk (SAFETY rule 18); nothing is ever overwritten or removed
but the unfinished files of one's own operation.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reconciler.adapters.file_identity import device_size, identity
from reconciler.adapters.image_headers import Header, read_header, read_source, suffix_format
from reconciler.adapters.pool_marker import MARKER, Marker
from reconciler.resources.errors import (
    AlreadyExists,
    DiskError,
    ImageInvalid,
    ImageMissing,
    InvalidInput,
    NoSpace,
    PoolUnavailable,
)
from reconciler.resources.images import ImageInfo
from reconciler.resources.virtualmachine import DiskFormat

TRASH = ".trash"
_LONGEST_NAME = 180
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_PROTOCOL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file that an image is made from, as found. `size`: what a guest sees, in bytes."""

    path: str
    format: DiskFormat
    size: int


class PoolDirectory:
    """One directory. Every method raises PoolUnavailable when it is not there or not the right one."""

    def __init__(self, path: Path, *, remembered: Path | None) -> None:
        if not path.is_absolute():
            raise InvalidInput(f"the pool's directory '{path}' must be an absolute path")
        self.path = path
        self._marker = Marker(path, remembered)

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """The verified directory, open: what is looked up through it is the pool's, whatever gets mounted or
        unmounted meanwhile."""
        with storage_errors(str(self.path)):
            try:
                directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                cure = f"create it (mkdir -p {self.path}) or mount it, or correct the StoragePool's path"
                raise PoolUnavailable(f"{self.path} is not there", cure=cure) from error
            try:
                self._marker.verify(directory)
                yield directory
            finally:
                os.close(directory)

    def inspect(self, image: str) -> ImageInfo | None:
        """The image, or None when proven absent. Raises ImageInvalid, PoolUnavailable."""
        with self.opened() as directory:
            name = find(directory, image)
            return None if name is None else self._describe(directory, image, name)

    def _describe(self, directory: int, image: str, name: str) -> ImageInfo:
        path = str(self.path / name)
        with storage_errors(path), _open(name, directory) as descriptor:
            found = os.fstat(descriptor)
            key = identity(descriptor, path)
            size = device_size(descriptor) if stat.S_ISBLK(found.st_mode) else found.st_size
            header = read_header(descriptor, path, size=size, format=suffix_format(name))
            return ImageInfo(
                name=image,
                path=path,
                identity=key,
                size=header.size,
                format=header.format,
                allocated=found.st_blocks * 512,
                backing=_backing(path, header),
            )

    def begin(self, image: str, operation: str) -> str:
        """Remove what this operation left behind, and make an empty file to build in: its name.

        Raises AlreadyExists when the image's name is taken.
        """
        with self.opened() as directory:
            check_name(image)
            mark = _mark(image, operation)
            for name in os.listdir(directory):
                if name.startswith(mark) and name.endswith(".tmp"):
                    os.unlink(name, dir_fd=directory)
            if find(directory, image) is not None:
                raise AlreadyExists(f"the image '{image}' exists already in {self.path}")
            name = f"{mark}{uuid.uuid4().hex[:12]}.tmp"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(name, flags, 0o600, dir_fd=directory))
            return name

    def publish(self, partial: str, image: str, format: DiskFormat) -> ImageInfo:
        """Give a finished file its name; it is on disk before. Raises AlreadyExists."""
        final = file_name(image, format)
        with self.opened() as directory:
            with _open(partial, directory) as descriptor:
                os.fsync(descriptor)
            if find(directory, image) is not None:
                raise AlreadyExists(f"the image '{image}' exists already in {self.path}")
            try:
                os.link(partial, final, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
            except FileExistsError as error:
                raise AlreadyExists(f"the image '{image}' exists already in {self.path}") from error
            os.unlink(partial, dir_fd=directory)
            os.fsync(directory)
            return self._describe(directory, image, final)

    def discard(self, partial: str) -> None:
        """Remove an unfinished file."""
        with self.opened() as directory, contextlib.suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=directory)

    def trash(self, image: str) -> str | None:
        """Move it into `.trash`, under the first free `NAME.N`: the new path, or None when it was absent."""
        with self.opened() as directory:
            name = find(directory, image)
            if name is None:
                return None
            with contextlib.suppress(FileExistsError):
                os.mkdir(TRASH, 0o700, dir_fd=directory)
            bin = os.open(TRASH, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
            try:
                aside = _link_aside(directory, name, bin)
                os.fsync(bin)
                os.unlink(name, dir_fd=directory)
                os.fsync(directory)
            finally:
                os.close(bin)
            return str(self.path / TRASH / aside)

    def clones_of(self, path: str) -> tuple[str, ...]:
        """The files of this pool that are built on top of `path`, sorted."""
        wanted, found = os.path.realpath(path), []
        with self.opened() as directory:
            for name in sorted(os.listdir(directory)):
                if not name.startswith(".") and suffix_format(name) is DiskFormat.QCOW2:
                    with contextlib.suppress(DiskError), storage_errors(name):
                        info = self._describe(directory, name, name)
                        if info.backing is not None and os.path.realpath(info.backing) == wanted:
                            found.append(name)
        return tuple(found)


def find_source(path: str, format: DiskFormat | None) -> Source:
    """A file to copy or clone. Raises ImageMissing, or ImageInvalid: it refers to other files although it
    is not from a pool, so that it could show a guest any file of this host."""
    if not os.path.isabs(path):
        raise ImageInvalid(f"'{path}' must be an absolute path")
    with storage_errors(path), _open(path) as descriptor:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ImageInvalid(f"{path} is not a file")
        trusted = in_pool(path)
        read = read_header if trusted else read_source
        header = read(descriptor, path, size=found.st_size, format=format or suffix_format(path))
        if header.backing is not None and not trusted:
            raise ImageInvalid(
                f"{path} refers to another file, {header.backing!r}, and is not in a pool: an image from "
                "elsewhere could show a guest any file of this host",
                cure=f"if you trust it, make it whole: qemu-img convert -O qcow2 {path} NEW.qcow2",
            )
        _backing(path, header)
        return Source(path=path, format=header.format, size=header.size)


def check_name(image: str) -> None:
    """Raises ImageInvalid unless `image` can be the name of a file in the pool, and only there."""
    if not image or image.startswith(".") or "/" in image or not image.isprintable():
        raise ImageInvalid(f"'{image}' cannot name an image: no '/', no leading '.', nothing unprintable")
    if len(image.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
        raise ImageInvalid(f"the image name '{image[:40]}...' is longer than {_LONGEST_NAME} bytes")


def choose_format(image: str, asked: DiskFormat | None, default: DiskFormat) -> DiskFormat:
    """The format of a new image. Raises ImageInvalid when its name says another one than was asked for."""
    check_name(image)
    said = suffix_format(image)
    if said is not None and asked is not None and said is not asked:
        raise ImageInvalid(f"the image '{image}' cannot be {asked}: its name says {said}")
    return said or asked or default


def file_name(image: str, format: DiskFormat) -> str:
    """The file of a new image."""
    return image if suffix_format(image) else f"{image}.{format}"


def find(directory: int, image: str) -> str | None:
    """The name of an image's file, or None when there is none. Raises ImageInvalid when it is not one."""
    check_name(image)
    suffixes = ("",) if suffix_format(image) else ("", *(f".{format}" for format in DiskFormat))
    found: dict[tuple[int, int], str] = {}
    for suffix in suffixes:
        name = image + suffix
        try:
            seen = os.stat(name, dir_fd=directory)
        except FileNotFoundError:
            _refuse_dangling(directory, name)
            continue
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ImageInvalid(f"{name} is a link to itself") from error
            raise
        found.setdefault((seen.st_dev, seen.st_ino), name)
    if len(found) > 1:
        names = " and ".join(sorted(found.values()))
        raise ImageInvalid(
            f"the image '{image}' could be {names}", cure="name the one that you mean with its suffix"
        )
    return next(iter(found.values()), None)


def in_pool(path: str) -> bool:
    """Whether a file lies in some pool's directory: what is there was put there by vcl or by its owner."""
    return os.path.exists(os.path.join(os.path.dirname(os.path.realpath(path)), MARKER))


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """The kernel's errors about `path`, as ours."""
    try:
        yield
    except OSError as error:
        said = f"{path}: {error.strerror or error}"
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
                raise NoSpace(said, cure="free some space, or use another pool") from error
            case errno.EACCES | errno.EPERM | errno.EROFS:
                cure = "give vcld (root) access to it; on NFS: no_root_squash"
                raise PoolUnavailable(said, cure=cure) from error
            case _:
                raise PoolUnavailable(said, cure="look at the storage below the pool") from error


@contextlib.contextmanager
def _open(path: str, directory: int | None = None) -> Iterator[int]:
    """A file, open for reading; a FIFO does not block. Raises ImageMissing, ImageInvalid, OSError."""
    try:
        descriptor = os.open(path, _READ, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageMissing(f"there is no file {path}") from error
    except PermissionError as error:
        raise ImageInvalid(f"{path}: permission denied", cure="make it readable for vcld (root)") from error
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ELOOP):  # a socket, or links that end nowhere
            raise ImageInvalid(f"{path} cannot be opened: {error.strerror}") from error
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _refuse_dangling(directory: int, name: str) -> None:
    """A symbolic link to nowhere is not "absent": its target may come back."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=directory, follow_symlinks=False)
        target = os.readlink(name, dir_fd=directory)
        raise ImageInvalid(f"{name} is a link to {target}, which is not there", cure="mount or mend it")


def _backing(path: str, header: Header) -> str | None:
    if header.backing is None:
        return None
    if _PROTOCOL.match(header.backing):
        raise ImageInvalid(f"{path} is built on {header.backing!r}, which is not a file")
    below = os.path.join(os.path.dirname(os.path.realpath(path)), header.backing)
    if header.backing_format not in (DiskFormat.QCOW2, DiskFormat.RAW):
        raise ImageInvalid(
            f"{path} does not say the format of {below}, which it is built on",
            cure=f"if that is qcow2: qemu-img rebase -u -b {below} -F qcow2 {path}",
        )
    if not os.path.exists(below):
        raise ImageInvalid(f"{path} is built on {below}, which is not there", cure="bring it back")
    return below


def _mark(image: str, operation: str) -> str:
    """How the names of an operation's unfinished files begin; no two operations share it."""
    return f".{image}.{hashlib.sha256(operation.encode()).hexdigest()[:16]}."


def _link_aside(directory: int, name: str, bin: int) -> str:
    stem, suffix = os.path.splitext(name)
    number = 1
    while True:
        aside = f"{stem}.{number}{suffix}"
        try:
            os.link(name, aside, src_dir_fd=directory, dst_dir_fd=bin, follow_symlinks=False)
            return aside
        except FileExistsError:
            number += 1
