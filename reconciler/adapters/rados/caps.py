"""The rights of vcl's Ceph users (SAFETY rule 16): what they must allow, and what an existing user lacks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Caps = Mapping[str, str]
"""What `ceph auth` calls caps: a daemon type, and its clauses with commas between."""

_CLAUSE = re.compile(r"(?:[^,;\"']|\"[^\"]*\"|'[^']*')+")
_MONITOR_COMMANDS = ("blocklist", "down", "set", "unset")


def vcl_caps(pool: str, namespace: str, image_pools: Sequence[str]) -> Caps:
    """`profile rbd` lets a client blocklist others; failover also removes entries and reports OSDs down."""
    commands = (f'allow command "osd {verb}"' for verb in _MONITOR_COMMANDS)
    state = f"allow rw pool={pool}" + (f" namespace={namespace}" if namespace else "")
    return {
        "mon": ", ".join(["profile rbd", *commands]),
        "osd": ", ".join([state, *_images(image_pools)]),
    }


def qemu_caps(image_pools: Sequence[str]) -> Caps:
    """The images and nothing else: a guest's process never reaches the cluster's state."""
    return {"mon": "profile rbd", "osd": ", ".join(_images(image_pools))}


def with_missing(have: Caps, want: Caps) -> Caps:
    """`have`, with what `want` allows beyond it; equal to `have` when nothing is missing."""
    merged = dict(have)
    for service, clauses in want.items():
        present = _clauses(have.get(service, ""))
        missing = [] if "allow *" in present else [c for c in _clauses(clauses) if c not in present]
        if missing:
            merged[service] = ", ".join([*present, *missing])
    return merged


def _images(pools: Sequence[str]) -> list[str]:
    return [f"profile rbd pool={pool}" for pool in pools]


def _clauses(caps: str) -> list[str]:
    return [" ".join(clause.split()) for clause in _CLAUSE.findall(caps) if clause.strip()]
