"""What `-f` names: files, directories and stdin, as bytes with the name that the user gave them.

Of a directory only what the daemon would take from its own counts, so that `apply -f DIR` and the watched
directory agree on what a manifest is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.resources.errors import InvalidInput, VclError
from reconciler.resources.kinds import KindInfo
from reconciler.resources.manifesttext import MAX_BYTES
from vcl.session import UsageError
from vcl.targets import Target

STDIN = "stdin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One file's bytes; `name` is how messages call it."""

    name: str
    data: bytes

    def text(self) -> str:
        """The bytes as the API carries them. Raises InvalidInput when they are not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"{self.name} is not UTF-8 (byte {error.start + 1} is 0x{self.data[error.start]:02X})",
                cure="save it as UTF-8",
            ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What could be read, and an error for each file that could not."""

    files: tuple[Input, ...]
    errors: tuple[VclError, ...]

    def all(self) -> tuple[Input, ...]:
        """The files, for who needs every one. Raises the first error."""
        for error in self.errors:
            raise error
        return self.files


def read_inputs(names: Sequence[str], *, recursive: bool = False) -> Inputs:
    """Read every file; a directory gives its manifests, sorted. UsageError when there is nothing to read."""
    if not names:
        raise UsageError("say which manifests", cure="name them with -f FILE, -f DIR or -f -")
    files: list[Input] = []
    errors: list[VclError] = []
    for name in _split(names):
        try:
            for path in _paths(name, recursive=recursive):
                files.append(_read(path))
        except VclError as error:
            errors.append(error)
        except OSError as error:
            errors.append(
                InvalidInput(
                    f"cannot read {error.filename or name}: {error.strerror}",
                    cure="check the path and the rights",
                )
            )
    return Inputs(files=tuple(files), errors=tuple(errors))


def targets_of_files(names: Sequence[str], *, recursive: bool = False) -> tuple[Target, ...]:
    """The objects that files define, also those of files with mistakes. Raises the first error of reading."""
    from vcl.manifests import identities

    found: dict[KindInfo, list[str]] = {}
    for info, name in identities(read_inputs(names, recursive=recursive).all()):
        names_of = found.setdefault(info, [])
        if name not in names_of:
            names_of.append(name)
    if not found:
        raise InvalidInput("the files define no objects", cure="see what is in them with 'vcl validate'")
    return tuple(Target(info=info, names=tuple(own)) for info, own in found.items())


def _split(names: Sequence[str]) -> Iterator[str]:
    """`a.yaml,b.yaml` is two files, as in kubectl, unless there is one of that very name."""
    for name in names:
        if "," in name and not Path(name).exists():
            yield from filter(None, name.split(","))
        else:
            yield name


def _paths(name: str, *, recursive: bool) -> Iterator[str]:
    path = Path(name)
    if name == "-" or not path.is_dir():
        yield name
        return
    from reconciler.planning.manifest_apply import SUFFIXES, counts

    pattern = "**/*" if recursive else "*"
    found = sorted(
        str(entry)
        for entry in path.glob(pattern)
        if counts(entry.name) and _visible(entry, path) and entry.is_file()
    )
    if not found:
        raise InvalidInput(
            f"there is no manifest in {name}",
            cure=f"manifests end in {', '.join(SUFFIXES)}; -R goes into subdirectories",
        )
    yield from found


def _visible(entry: Path, top: Path) -> bool:
    return not any(part.startswith(".") for part in entry.relative_to(top).parts)


def _read(name: str) -> Input:
    if name == "-":
        return Input(name=STDIN, data=sys.stdin.buffer.read(MAX_BYTES + 1))
    with Path(name).open("rb") as file:
        return Input(name=name, data=file.read(MAX_BYTES + 1))
