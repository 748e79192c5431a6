"""What a command line means by `vms`, `vm web db`, `vm/web node/r1`, `vms,nodes`, `all`: kubectl's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from reconciler.resources.kinds import KINDS, WRITTEN, KindInfo, find_kind, valid_name
from vcl.session import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Objects of one kind. Without names: all of them."""

    info: KindInfo
    names: tuple[str, ...] = ()


def parse_targets(words: Sequence[str]) -> tuple[Target, ...]:
    """The targets in the order given; neighbours of one kind are joined. Raises UsageError."""
    if not words:
        raise UsageError(
            "say what you mean", cure=f"name a type, such as 'vms'; the types are: {type_names()}"
        )
    if any("/" in word for word in words):
        return _slashed(words)
    kinds = _kinds(words[0])
    names = tuple(dict.fromkeys(checked_name(name) for name in words[1:]))
    return tuple(Target(info=info, names=names) for info in kinds)


def one_target(words: Sequence[str], verb: str, default: str = "") -> tuple[KindInfo, str]:
    """Exactly one object: `vm web` or `vm/web`; with `default`, also a bare name of that kind."""
    if default and len(words) == 1 and "/" not in words[0]:
        words = [default, words[0]]
    targets = parse_targets(words)
    if len(targets) != 1 or len(targets[0].names) != 1:
        raise UsageError(
            f"{verb} takes one object, got '{' '.join(words)}'", cure=f"name one, such as 'vcl {verb} vm/web'"
        )
    return targets[0].info, targets[0].names[0]


def vm_names(words: Sequence[str], verb: str) -> tuple[str, ...]:
    """The VMs that a power verb means: bare names, `vm/web`, or `vm web db`."""
    if not words:
        return ()
    if any("/" in word for word in words) or (len(words) > 1 and find_kind(words[0])):
        targets = parse_targets(words)
    else:
        targets = (Target(info=KINDS[0], names=tuple(checked_name(word) for word in words)),)
    if any(target.info is not KINDS[0] for target in targets):
        raise UsageError(f"only virtual machines can be told to {verb}", cure=f"write 'vcl {verb} NAME'")
    return tuple(dict.fromkeys(name for target in targets for name in target.names))


def _slashed(words: Sequence[str]) -> tuple[Target, ...]:
    found: list[Target] = []
    for word in words:
        kind, slash, name = word.partition("/")
        if not slash:
            raise UsageError(
                f"'{word}' has no type, but others on the line do",
                cure="write all as TYPE/NAME, or all as TYPE NAME...",
            )
        info = kind_named(kind)
        name = checked_name(name)
        if found and found[-1].info is info:
            found[-1] = Target(info=info, names=tuple(dict.fromkeys((*found[-1].names, name))))
        else:
            found.append(Target(info=info, names=(name,)))
    return tuple(found)


def _kinds(word: str) -> tuple[KindInfo, ...]:
    if word == "all":
        return tuple(info for info in KINDS if info.kind in WRITTEN)
    return tuple(dict.fromkeys(kind_named(part) for part in word.split(",") if part))


def kind_named(word: str) -> KindInfo:
    """The kind that a person means, or UsageError with a suggestion."""
    info = find_kind(word)
    if info is not None:
        return info
    if word.lower() in ("event", "events", "ev"):
        raise UsageError("events are not objects", cure="see them with 'vcl events'")
    known = [name for entry in KINDS for name in (entry.singular, entry.plural, *entry.short)]
    near = get_close_matches(word.lower(), known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UsageError(f"there is no type '{word}'", cure=f"{hint}the types are: {type_names()}")


def written_kind(word: str) -> KindInfo:
    """The kind that a person means, if manifests of it are written. Raises UsageError."""
    info = kind_named(word)
    if info.kind not in WRITTEN:
        raise UsageError(
            f"{info.plural} are made by vcl and have no manifest",
            cure=f"see them with 'vcl get {info.plural}' and 'vcl describe {info.singular}/NAME'",
        )
    return info


def checked_name(name: str) -> str:
    """`name`, if it can be one."""
    if not valid_name(name):
        raise UsageError(
            f"'{name[:80]}' cannot be a name", cure="names have letters, digits, '.' and '-', 63 at most"
        )
    return name


def type_names() -> str:
    """Every kind with its short names, for messages."""
    return ", ".join(f"{i.plural} ({', '.join(i.short)})" if i.short else i.plural for i in KINDS)
