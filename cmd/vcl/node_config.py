"""vcld's configuration as the commands see it that set a node up and check it.

The defaults are those of its schema, so that they stand in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.resources.errors import InvalidInput

DIRECTORY = Path("/etc/vcl")
NAME = "vcld.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """A valid configuration: `said` is what the file says, `value` knows the defaults too."""

    path: Path
    said: Mapping[str, Any]

    def value(self, *names: str) -> Any:
        """A field by the names on the way to it; None when it has neither a value nor a default."""
        found = lookup(self.said, names)
        return default(*names) if found is None else found

    @property
    def clustered(self) -> bool:
        """Whether there are to be other nodes."""
        return "mesh" in self.said

    @property
    def in_ceph(self) -> bool:
        return bool(self.value("store", "type") == "rados")


def read_config(path: Path) -> NodeConfig | None:
    """The configuration at `path`, None when there is no such file. Raises InvalidInput when it is no valid
    one, OSError."""
    from reconciler.adapters.schema_files import load_config_schema
    from reconciler.resources.manifesttext import read_text
    from reconciler.resources.schemawords import compile_schema
    from reconciler.resources.validation import validate_value
    from reconciler.resources.yamlreader import read_yaml

    try:
        text = read_text(path.read_bytes())
    except FileNotFoundError:
        return None
    documents = read_yaml(text.text)
    wrong = bool(text.found) or len(documents) > 1 or any(document.problems for document in documents)
    root = documents[0].root if documents else None
    if root is not None and root.value is not None and not wrong:
        wrong = any(
            True for _ in validate_value(compile_schema(load_config_schema()), root.value, root.text_at)
        )
    if wrong:
        raise InvalidInput(f"{path} is not valid", cure=f"`vcld --config {path} --check` names each problem")
    said = root.value if root is not None and isinstance(root.value, dict) else {}
    return NodeConfig(path=path, said=said)


def default(*names: str) -> Any:
    """What vcld takes for a field that is not there; None for nothing."""
    from reconciler.adapters.schema_files import load_config_schema

    schema: Any = load_config_schema()
    for name in names:
        schema = schema.get("properties", {}).get(name, {})
    return schema.get("default")


def lookup(mapping: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value at the end of a way of names, None where it ends early."""
    found: Any = mapping
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def disagreements(have: NodeConfig, want: Mapping[str, Any]) -> list[str]:
    """Each field of `want` that is not so, one line each: `store.type: rados (now sqlite)`."""
    found = []
    for names, value in _leaves(want):
        now = have.value(*names)
        if names[0] not in have.said and names[0] in ("mesh", "store"):
            now = None
        if now != value:
            found.append(f"{'.'.join(names)}: {value}" + (f" (now {now})" if now not in (None, "") else ""))
    return found


def config_text(said: Mapping[str, Any], by: str) -> str:
    """The configuration as a file, with a line about who made it."""
    from vcl.output import to_yaml

    return f"# Made by `{by}`. The fields are explained in docs/operations.md and by schemas/vcld.json.\n" + (
        to_yaml(dict(said))
    )


def _leaves(mapping: Mapping[str, Any], way: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            found += _leaves(value, (*way, name))
        else:
            found.append(((*way, name), value))
    return found
