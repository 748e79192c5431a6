"""Taking one document out of a file of several, leaving every other byte as the user wrote it.

The caller parses the result and compares: only a file that still defines everything else is written.
"""

from __future__ import annotations

import re

_COMMENTS = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\n)*")


def cut_document(data: bytes, start: int, end: int) -> bytes:
    """`data` without the bytes `start` to `end` of one document.

    The comments at the very top of the file stay: they speak of the file (`# yaml-language-server`, a
    licence). The comments of a later document go with it.
    """
    if start == 0:
        head = _COMMENTS.match(data, 0, end)
        start = head.end() if head else 0
    return data[:start] + data[end:]
