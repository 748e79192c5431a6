"""Reads vcld's configuration file: the same YAML rules, schema checks and messages as for manifests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reconciler.adapters.schema_files import load_config_schema
from reconciler.resources.errors import InvalidInput
from reconciler.resources.manifesttext import read_text
from reconciler.resources.problems import Finding, Problem, render, show_path, summary
from reconciler.resources.schemawords import compile_schema
from reconciler.resources.speccheck import pool_sections
from reconciler.resources.validation import validate_value
from reconciler.resources.yamlreader import read_yaml
from vcld.config import Config, config_from

DEFAULT_PATH = Path("/etc/vcl/vcld.yaml")


def read_config(path: Path | None) -> Config:
    """The configuration at `path`; without one the default file, or the defaults when there is none.

    Raises InvalidInput with every problem, each with file, line and column.
    """
    if path is None:
        if not DEFAULT_PATH.exists():
            return Config()
        path = DEFAULT_PATH
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read the configuration {path}: {error.strerror}") from error
    return parse_config(str(path), data)


def parse_config(file: str, data: bytes) -> Config:
    """The configuration in `data`; `file` is for messages. Raises InvalidInput."""
    text = read_text(data)
    problems: list[Problem] = []

    def add(line: int, column: int, path: tuple[str | int, ...], message: str) -> None:
        source = text.lines[line - 1] if 0 < line <= len(text.lines) else ""
        shown = show_path(path)
        problems.append(
            Problem(file=file, line=line, column=column, path=shown, message=message, source_line=source)
        )

    for at in text.found:
        add(at.line, at.column, (), at.message)
    documents = read_yaml(text.text)
    for document in documents:
        for met in document.problems:
            add(met.at.line, met.at.column, met.path, met.at.message)
    if len(documents) > 1:
        add(documents[1].first, 1, (), "a configuration is one document; remove the '---' and what follows")
    root = documents[0].root if documents else None
    value: Mapping[str, Any] = {}
    if root is not None and root.value is not None and not problems:
        for finding in validate_value(compile_schema(load_config_schema()), root.value, root.text_at):
            line, column = root.locate(finding.path, key=finding.at_key)
            add(line, column, finding.path, finding.message)
        value = root.value if isinstance(root.value, dict) else {}
        for finding in () if problems else _pools(value):
            line, column = root.locate(finding.path, key=finding.at_key)
            add(line, column, finding.path, finding.message)
    if problems:
        lines = tuple(render(problem) for problem in problems)
        raise InvalidInput("\n".join([*lines, summary(problems)]), problems=lines)
    return config_from(value)


def _pools(value: Mapping[str, Any]) -> Iterator[Finding]:
    for name, spec in (value.get("pools") or {}).items():
        yield from pool_sections(spec, ("pools", name))
