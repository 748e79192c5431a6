"""Taking one document out of a file of several, leaving every other byte as the user wrote it.

A line that starts with `---` begins a document wherever it stands: YAML allows it inside no scalar. So the
file is cut at these lines, without interpreting anything else. The caller parses the result and compares.
"""

from __future__ import annotations

import re

_MARK = re.compile(rb"^---(?=[ \t\r\n]|$)", re.MULTILINE)
_COMMENTS = re.compile(rb"(?:[ \t]*(?:#[^\n]*)?\n)*")


def cut_document(data: bytes, line: int) -> bytes:
    """`data` without the document that has its first content on `line` (counted from 1).

    The comments at the very top of the file stay: they speak of the file (`# yaml-language-server`, a
    licence). The comments of a later document go with it.
    """
    target = _offset(data, line)
    starts = sorted({0, *(match.start() for match in _MARK.finditer(data))})
    begin = max(start for start in starts if start <= target)
    end = min((start for start in starts if start > target), default=len(data))
    if begin == 0:
        head = _COMMENTS.match(data)
        begin = min(head.end() if head else 0, target)
    return data[:begin] + data[end:]


def _offset(data: bytes, line: int) -> int:
    """The offset of the first byte of a line; the end of the data when there are fewer."""
    offset = 0
    for _ in range(line - 1):
        found = data.find(b"\n", offset)
        if found < 0:
            return len(data)
        offset = found + 1
    return offset
