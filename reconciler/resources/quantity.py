"""Kubernetes quantities (`512Mi`, `4Gi`, `500m`) and the way they are printed.

Source of the grammar: Kubernetes' resource.Quantity. Exponent form (`1e3`) is left out: nobody writes it.
"""

from __future__ import annotations

import re

_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BYTES = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
_CPU = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,3}))?(m)?")

MAX_BYTES = 2**60
"""The largest size accepted (1 EiB): more is a typing error, and it still fits a signed 64-bit integer."""


def parse_bytes(text: str | int) -> int:
    """Bytes of a memory or disk quantity. Raises ValueError with a message that says what is allowed."""
    match = None if isinstance(text, bool) else _BYTES.fullmatch(str(text))
    if match is None:
        raise ValueError(f"must be a quantity such as 512Mi or 4Gi, got {str(text)[:40]!r}")
    whole, fraction, suffix = str(match[1]), str(match[2] or ""), str(match[3] or "")
    scale = _BINARY.get(suffix) or _DECIMAL[suffix]
    divisor: int = 10 ** len(fraction)
    value, rest = divmod(int(whole + fraction) * scale, divisor)
    if rest:
        raise ValueError(f"must be a whole number of bytes, got {text!r}")
    if value > MAX_BYTES:
        raise ValueError(f"must be at most 1Ei (1024Pi), got {text!r}")
    return value


def parse_cpu(text: str | int | float) -> float:
    """Cores of a CPU quantity (`2`, `0.5`, `500m`). Raises ValueError."""
    match = None if isinstance(text, bool) else _CPU.fullmatch(str(text))
    if match is None:
        raise ValueError(f"must be a number of cores such as 2 or 500m, got {str(text)[:40]!r}")
    value = float(f"{match[1]}.{match[2] or 0}")
    return value / 1000 if match[3] else value


def format_bytes(value: int) -> str:
    """The shortest exact binary form: 2147483648 -> '2Gi'; what is no whole Ki stays in bytes."""
    for suffix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        scale = _BINARY[suffix]
        if value and value % scale == 0:
            return f"{value // scale}{suffix}"
    return str(value)


def human_bytes(value: float) -> str:
    """A rounded form for tables: 6547243008 -> '6.1Gi'."""
    for suffix in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        scale = _BINARY[suffix]
        if value >= scale:
            shown = f"{value / scale:.1f}".removesuffix(".0")
            return f"{shown}{suffix}"
    return f"{value:.0f}"
