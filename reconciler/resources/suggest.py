"""Guesses what a person meant by a word that is not known here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

# What other tools call our fields and kinds, in lower case.
_ALIASES: dict[str, tuple[str, ...]] = {
    "cpu": ("vcpu", "vcpus", "cpus", "processors"),
    "cores": ("vcpu", "vcpus", "count", "cpus"),
    "memory": ("ram", "mem", "maxmemory", "memorymb"),
    "interfaces": ("network", "networks", "nic", "nics", "net"),
    "disks": ("disk", "volumes", "volume", "storage", "drives"),
    "size": ("capacity", "storage", "disksize"),
    "mac": ("macaddress", "hwaddr", "address"),
    "bus": ("interface", "target"),
    "runStrategy": ("running", "run", "state", "autostart", "started"),
    "terminationGracePeriodSeconds": ("graceperiod", "graceperiodseconds", "shutdowntimeout"),
    "evictionStrategy": ("eviction", "migrationpolicy"),
    "firmware": ("bios", "uefi", "bootloader", "loader"),
    "machine": ("machinetype", "chipset"),
    "cloudInit": ("cloudinitnocloud", "cloud", "cloudconfig"),
    "userData": ("user",),
    "metaData": ("meta",),
    "networkConfig": ("networkdata", "network"),
    "cmdline": ("args", "append", "kernelargs", "commandline"),
    "guestAgent": ("agent", "qemuagent", "qemuguestagent"),
    "domainXML": ("xml", "domain", "libvirtxml"),
    "import": ("file", "path", "url"),
    "readOnly": ("ro",),
    "topologyKey": ("topology",),
    "pool": ("storagepool",),
}
_MOST_LISTED = 30


def did_you_mean(word: str, allowed: Iterable[str]) -> str | None:
    """The one of `allowed` that `word` was most likely meant to be, whatever its case, or None."""
    choices = {choice.lower(): choice for choice in sorted(allowed, reverse=True)}
    plain = word.lower().replace("_", "").replace("-", "")[:100]
    if plain in choices:
        return choices[plain]
    for lower in sorted(choices):
        if plain in _ALIASES.get(choices[lower], ()):
            return choices[lower]
    close = difflib.get_close_matches(plain, sorted(choices), n=1, cutoff=0.7)
    return choices[close[0]] if close else None


def meant_field(word: str, schema: Mapping[str, Any]) -> str | None:
    """The field of the object `schema` that was most likely meant, as a path (`cpu.cores`), or None."""
    properties: Mapping[str, Any] = schema.get("properties", {})
    return did_you_mean(word, properties) or _within(word, properties)


def unknown_field(word: str, schema: Mapping[str, Any]) -> str:
    """The message for a field that the object `schema` does not have."""
    guess = meant_field(word, schema)
    if guess is not None:
        return f"unknown field; did you mean '{guess}'?"
    allowed = ", ".join(
        name for name, field in schema.get("properties", {}).items() if not field.get("readOnly")
    )
    return f"unknown field; allowed: {allowed}" if allowed else "unknown field; nothing can be set here"


def _within(word: str, properties: Mapping[str, Any]) -> str | None:
    """`cores` in a spec is `cpu.cores`."""
    for name, field in properties.items():
        if word in field.get("properties", {}) and not field.get("readOnly"):
            return f"{name}.{word}"
    return None


def one_of(allowed: Iterable[str]) -> str:
    """`must be one of A, B, C`, or `must be A`."""
    choices = list(allowed)
    if len(choices) == 1:
        return f"must be {choices[0]}"
    listed = ", ".join(choices[:_MOST_LISTED])
    return f"must be one of {listed}" + (", ..." if len(choices) > _MOST_LISTED else "")


def hint(word: object, allowed: Iterable[str]) -> str:
    """`; did you mean 'X'?`, or nothing."""
    guess = did_you_mean(word, allowed) if isinstance(word, str) else None
    return f"; did you mean '{guess}'?" if guess is not None else ""
