"""Which of Ceph's flags a shutdown sets, and which of them are unset again.

Invariant: only what a shutdown has set is unset, and never a flag that can keep a Ceph that lost power from
serving I/O again: vcl has to read its store there to learn that they may go.
"""

from __future__ import annotations

from collections.abc import Collection

FLAGS = ("noout", "norebalance")
"""No data moves because hosts are off. `pause`, `nodown`, `norecover` and `nobackfill` are not among them."""


def to_set(present: Collection[str], mine: Collection[str]) -> tuple[str, ...]:
    """What to set now. `present`: the flags that Ceph has; `mine`: those that this shutdown has recorded as
    its own before it set them. One that is present and not mine is a person's."""
    return tuple(flag for flag in FLAGS if flag not in present or flag in mine)


def to_unset(present: Collection[str], mine: Collection[str]) -> tuple[str, ...]:
    """What to unset when VMs may run again."""
    return tuple(flag for flag in FLAGS if flag in present and flag in mine)
