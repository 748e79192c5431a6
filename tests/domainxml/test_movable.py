"""What in a user's definition keeps a guest where it is."""

from __future__ import annotations

import pytest

from reconciler.domainxml.movable import tie


@pytest.mark.parametrize(
    ("device", "named"),
    [
        ("<hostdev mode='subsystem' type='pci'/>", "a device of the host"),
        ("<filesystem type='mount'/>", "a directory of the host"),
        ("<shmem name='x'/><hostdev/>", "a device of the host and shared memory of the host"),
        ("<disk type='network'/><interface type='bridge'/>", ""),
    ],
)
def test_a_device_that_is_the_hosts_is_named(device: str, named: str) -> None:
    said = tie(f"<domain type='kvm'><devices>{device}</devices></domain>")
    assert said == (f"its domainXML gives it {named}, which cannot be migrated" if named else "")


@pytest.mark.parametrize("text", [None, "", "<domain", "<domain/>"])
def test_without_a_definition_that_can_be_read_nothing_is_in_the_way(text: str | None) -> None:
    assert tie(text) == ""
