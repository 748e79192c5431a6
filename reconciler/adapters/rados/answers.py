"""What Ceph's monitors print, as values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def values(text: str) -> Iterator[Any]:
    """All JSON values in a row: `osd blocklist ls` prints two lists (addresses, then ranges) at times.
    Raises ValueError at what is not JSON."""
    decoder, position = json.JSONDecoder(), 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        value, position = decoder.raw_decode(text, position)
        yield value
