"""vcl edit: the defining file in the user's editor, saved only when it is valid and nobody was faster.

What the user typed is never lost: whenever it cannot be saved, it stays in a file that the error names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

import typer

from reconciler.resources.errors import InvalidInput, NotFound, VclError
from reconciler.resources.kinds import KindInfo
from vcl.applying import Place, print_report, problems, results, submit
from vcl.client import Client
from vcl.inputs import Input
from vcl.session import UsageError, connect
from vcl.targets import one_target

MARK = "# vcl: "
HEAD = (
    f"{MARK}this was not saved, because:",
    f"{MARK}correct it and save again, or leave it as it is to give up; these lines will be removed",
)


def run(
    ctx: typer.Context,
    what: Annotated[list[str] | None, typer.Argument(metavar="TYPE NAME | TYPE/NAME")] = None,
) -> int:
    """Edit an object's manifest in your editor.

    Opens the file that defines the object, with its comments, in VISUAL or EDITOR (default: vi). What is not
    valid is not saved: the editor opens again and says why.

    \b
    Example:
      vcl edit vm web
      EDITOR=nano vcl edit vm/web
    """
    info, name = one_target(what or (), "edit")
    client = connect(ctx)
    path = manifest_path(client, info, name)
    original = client.read(f"manifests/{quote(path)}")
    folder = Path(tempfile.mkdtemp(prefix="vcl-edit-"))
    draft = folder / PurePosixPath(path).name
    draft.write_bytes(original)
    try:
        code = _Edit(client=client, info=info, name=name, path=path, original=original, draft=draft).run()
    except VclError as error:
        if draft.exists() and draft.read_bytes() not in (original, b""):
            raise VclError(error.message, cure=_and_kept(error.cure, draft)) from error
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return code


def manifest_path(client: Client, info: KindInfo, name: str) -> str:
    """The file that defines the object, relative to the manifest directory."""
    item = client.object(info, name)
    source = (item.get("status") or {}).get("source") or {}
    if source.get("path"):
        return str(source["path"])
    for file in client.get("manifests").get("items") or []:
        for entry in file.get("objects") or []:
            if (entry.get("kind"), entry.get("name")) == (info.kind.value, name):
                return str(file["path"])
    raise NotFound(
        f"no manifest defines {info.singular}/{name}",
        cure="it was not made from a file, so there is nothing to edit",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    client: Client
    info: KindInfo
    name: str
    path: str
    original: bytes
    draft: Path

    def run(self) -> int:
        """Edit until the text is saved or given up. VclError: it was not saved."""
        header, rejected = b"", self.original
        while True:
            _open_editor(self.draft)
            text = strip_header(self.draft.read_bytes(), header)
            self.draft.write_bytes(text)
            if text == self.original or not text.strip():
                print(
                    "Edit cancelled, no changes made"
                    if text.strip()
                    else "Edit cancelled, the file was empty"
                )
                return 0
            if text == rejected:
                raise InvalidInput("edit cancelled, what you wrote is not valid")
            found = self._problems(text)
            if not found:
                return self._save(text)
            header, rejected = problem_header(found), text
            self.draft.write_bytes(header + text)

    def _problems(self, text: bytes) -> list[str]:
        sent = submit(self.client, [self._input(text)], dry_run=True, place=Place(path=self.path))
        failed = [r for r in results(sent.report) if r.get("result") == "failed"]
        if not failed and not sent.errors:
            return self._lost(results(sent.report))
        told = problems(sent.report) or [str(r.get("error") or "it was refused") for r in failed]
        return [*told, *(str(error) for error in sent.errors)]

    def _lost(self, found: Sequence[dict[str, Any]]) -> list[str]:
        """Another kind or name would delete this object and make a new one, with empty disks."""
        if any(
            (entry.get("kind"), entry.get("name")) == (self.info.kind.value, self.name) for entry in found
        ):
            return []
        label = f"{self.info.singular}/{self.name}"
        return [
            f"{label} is not in the file any more; kind and name cannot be edited, "
            f"and 'vcl delete {label}' removes it"
        ]

    def _save(self, text: bytes) -> int:
        place = Place(path=self.path, expect=sha256(self.original).hexdigest())
        sent = submit(self.client, [self._input(text)], dry_run=False, place=place)
        if not print_report(sent.report):
            raise InvalidInput("the edit was not saved")
        return 0

    def _input(self, text: bytes) -> Input:
        return Input(name=self.path, data=text)


def problem_header(found: Sequence[str]) -> bytes:
    """The problems as comment lines for the top of the draft."""
    lines = [HEAD[0], *(f"{MARK}  {line}" for problem in found for line in problem.splitlines()), HEAD[1]]
    return "".join(f"{line}\n" for line in lines).encode()


def strip_header(text: bytes, header: bytes) -> bytes:
    """The user's own bytes. Our lines are taken off up to the last of them, also when an editor's
    search-and-replace has changed some; without that last one, as far as they are ours still."""
    if not header:
        return text
    lines = text.splitlines(keepends=True)
    ours = header.splitlines()
    marked = next((i for i, line in enumerate(lines) if not line.startswith(MARK.encode())), len(lines))
    for index, line in enumerate(lines[:marked]):
        if line.rstrip(b"\r\n") == ours[-1]:
            return b"".join(lines[index + 1 :])
    while lines and lines[0].rstrip(b"\r\n") in ours:
        lines.pop(0)
    return b"".join(lines)


def _open_editor(draft: Path) -> None:
    import shlex
    import subprocess

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(draft)], check=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot run the editor '{editor}': {error}", cure="set EDITOR to one that exists"
        ) from error
    if done.returncode:
        raise VclError(f"the editor '{editor}' failed with code {done.returncode}", cure="nothing was saved")


def _and_kept(cure: str, draft: Path) -> str:
    return f"{cure}; your text is kept in {draft}" if cure else f"your text is kept in {draft}"
