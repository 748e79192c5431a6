"""Sending manifests to the daemon, and telling what became of each object."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reconciler.resources.errors import InvalidInput, VclError
from vcl.client import Client
from vcl.inputs import Input
from vcl.output import named
from vcl.session import complain, warn

Report = dict[str, Any]

BATCH_CHARACTERS = 2 * 2**20
"""In one request; JSON may make up to six bytes of each, and the daemon takes 16 MiB."""

APPLY_SECONDS = 90.0
"""How long the daemon may take for one request: its own deadline is 60."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The daemon's report, and an error for each input that could not even be sent."""

    report: Report
    errors: tuple[VclError, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The file to replace, and the SHA-256 (hexadecimal) that it must still have; None: whatever it holds."""

    path: str
    expect: str | None = None


def submit(
    client: Client, inputs: Sequence[Input], *, dry_run: bool, place: Place | None = None, index: str = ""
) -> Submission:
    """Send the inputs' exact bytes; `place` is where to when there is one input, else the daemon chooses.
    With the `index` of a plan nothing is done when that plan does not hold any more."""
    where = {"path": place.path, "expect": place.expect} if place else {"path": None}
    files: list[dict[str, Any]] = []
    errors: list[VclError] = []
    for item in inputs:
        try:
            files.append({"name": item.name, "content": item.text(), **where})
        except InvalidInput as error:
            errors.append(error)
    report: Report = {"results": [], "problems": []}
    batches = [files] if index else _batches(files)
    planned = {"index": index} if index else {}
    for batch in batches:
        body = {"files": batch, "dryRun": dry_run, **planned}
        answer = client.post("manifests", body, at_least=APPLY_SECONDS)
        report["results"] += results(answer)
        report["problems"] += problems(answer)
    return Submission(report=report, errors=tuple(errors))


def _batches(files: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The files in requests that the daemon will take."""
    batch: list[dict[str, Any]] = []
    size = 0
    for file in files:
        if batch and size + len(file["content"]) > BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += len(file["content"])
    if batch:
        yield batch


def results(report: Report) -> list[dict[str, Any]]:
    """What became of each object."""
    return list(report.get("results") or [])


def problems(report: Report) -> list[str]:
    """The rendered problems, with their lines."""
    return [str(problem) for problem in report.get("problems") or []]


def print_report(report: Report, *, suffix: str = "", names_only: bool = False) -> bool:
    """One line an object on stdout, problems on stderr. Returns whether all went well."""
    seen: set[str] = set()
    failed = False
    for result in results(report):
        for warning in result.get("warnings") or []:
            if warning not in seen and warning not in problems(report):
                seen.add(warning)
                warn(str(warning))
        if result.get("result") == "failed":
            failed = True
            continue
        label = named(str(result.get("kind", "")), str(result.get("name", "")))
        print(label if names_only else f"{label} {result.get('result')}{suffix}")
    sys.stdout.flush()
    for problem in problems(report):
        print(problem, file=sys.stderr)
    for result in results(report):
        if result.get("result") == "failed":
            complain(_failure(result))
    return not failed


def _failure(result: dict[str, Any]) -> str:
    source = str(result.get("source") or "")
    name = result.get("name")
    about = f"{source}: " if source else ""
    about += f"{named(str(result.get('kind', '')), str(name))}: " if name else ""
    error = str(result.get("error") or "it was refused")
    return error if error.startswith(source) and source and not name else f"{about}{error}"
