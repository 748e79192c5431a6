"""What a VM's interfaces need of a host."""

from __future__ import annotations

from reconciler.domainxml.connections import Connections, connections
from reconciler.resources.virtualmachine import Cpu, Interface, VirtualMachineSpec

XML = """
<domain type='kvm'>
  <devices>
    <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='br0'/></interface>
    <interface type='bridge'><alias name='ua-nic-lan'/><source bridge='br1'/></interface>
    <interface type='network'><mac address='52:54:00:00:00:02'/><source network='default'/></interface>
    <interface type='user'/>
    <interface type='direct'><source dev='eth0'/></interface>
  </devices>
</domain>
"""


def needs(*interfaces: Interface, xml: str | None = None) -> Connections:
    return connections(VirtualMachineSpec(cpu=Cpu(cores=1), memory=1, interfaces=interfaces, domain_xml=xml))


def test_the_specs_bridges_and_networks_are_needed() -> None:
    found = needs(
        Interface(name="a", bridge="br1"),
        Interface(name="b", bridge="br0"),
        Interface(name="c", network="default"),
        Interface(name="d"),
    )
    assert found == Connections(bridges=("br0", "br1"), networks=("default",))


def test_those_of_the_users_own_xml_too() -> None:
    assert needs(xml=XML) == Connections(bridges=("br0", "br1"), networks=("default",))


def test_an_interface_that_the_spec_lays_over_one_of_the_xml_has_the_specs_place() -> None:
    found = needs(
        Interface(name="lan", bridge="br7"),
        Interface(name="x", network="dmz", mac="52:54:00:00:00:02"),
        xml=XML,
    )
    assert found == Connections(bridges=("br0", "br7"), networks=("dmz",))


def test_an_interface_of_the_spec_without_a_place_leaves_that_of_the_xml() -> None:
    assert needs(Interface(name="lan"), xml=XML).bridges == ("br0", "br1")


def test_xml_that_cannot_be_read_says_nothing() -> None:
    assert needs(xml="<domain") == Connections()
