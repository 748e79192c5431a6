"""What the boots of a guest wrote to its disk (tools/guest/init), and whether one wrote that should not have.

Each write leaves a record with the boot that made it, in a place that only its counter decides. So a write by
an earlier boot, after a later one has begun, stays to be seen: by a counter that is higher than the one that
the later boot found, or by a hole in the later one's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK = 4096


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Written:
    """`boots`: which boot of this disk wrote it, from 1; `found`: the counter that it began with."""

    tick: int
    boots: int
    found: int
    boot: str


def records(disk: bytes) -> tuple[Written, ...]:
    """Those of the disk, by counter."""
    found = []
    for start in range(BLOCK, len(disk), BLOCK):
        words = disk[start : start + 100].split(b"\0")[0].split()
        if len(words) == 5 and words[0] == b"vcl-record":
            tick, boots, began = (int(word) for word in words[1:4])
            found.append(Written(tick=tick, boots=boots, found=began, boot=words[4].decode()))
    return tuple(sorted(found))


def foreign(written: Sequence[Written]) -> tuple[str, ...]:
    """What cannot be there when one boot wrote after the other, and none at once; empty when all is well."""
    wrong = []
    began = {(each.boots, each.boot): each.found for each in written}
    for each in written:
        for (boots, boot), found in sorted(began.items()):
            if boots > each.boots and each.tick > found:
                wrong.append(f"{each} was written though boot {boots} ({boot}) began from {found}")
            elif boots == each.boots and boot != each.boot:
                wrong.append(f"{each} and boot {boot} both are the disk's boot {boots}")
    have = {each.tick for each in written}
    if have:
        wrong += [f"the record {tick} is missing" for tick in range(min(have), max(have)) if tick not in have]
    return tuple(wrong)
