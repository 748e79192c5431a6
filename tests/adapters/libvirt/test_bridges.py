"""Which interfaces of a host are bridges, told by the kernel in a network namespace of the test's own."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
ip link add br7 type bridge
ip link add veth0 type veth peer name veth1
ip link set veth1 master br7
exec {python} -c 'from reconciler.adapters.libvirt.bridges import bridges; print(bridges())'
"""


@pytest.mark.libvirt
def test_only_bridges_of_this_network_namespace_are_listed() -> None:
    done = subprocess.run(
        ["unshare", "-n", "sh", "-ec", SCRIPT.format(python=sys.executable)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("('br7',)\n", 0), done.stderr
