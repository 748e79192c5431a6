"""The same cluster as input for other planners. They know no constraints as ours, so there are none."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

from placement_cases import Case

from reconciler.planning.demands import VmDemand

MIB = 1 << 20
GROUP = "11111111-1111-1111-1111-111111111111"


def htools(case: Case, lost: str, directory: Path) -> str:
    """Text input of Ganeti's htools: disks that every node reaches (rbd), so that no VM has a secondary node;
    the node that is lost is offline, and its VMs are still on it."""
    used = dict.fromkeys((node.name for node in case.nodes), 0)
    for vm in case.vms:
        used[vm.node or lost] += vm.memory // MIB
    nodes = [
        f"{node.name}|{node.memory // MIB}|0|{node.memory // MIB - used[node.name]}|9000000|9000000|"
        f"{int(node.cpu)}|{'Y' if node.name == lost else 'N'}|{GROUP}|1"
        for node in case.nodes
    ]
    lines = [
        f"{vm.name}|{vm.memory // MIB}|1024|{vm.cpu}|running|Y|{vm.node or lost}||rbd||1|-" for vm in case.vms
    ]
    policy = "|".join(("128,1,1024,1,1,1", "128,1,1024,1,1,1;1048576,64,1048576,16,8,12", "rbd", "1", "999"))
    text = [f"default|{GROUP}|preferred||", "", *nodes, "", *lines, "", "", "", f"default|{policy}", ""]
    path = directory / "cluster.data"
    path.write_text("\n".join(text))
    return str(path)


def hbal(case: Case, lost: str, directory: Path) -> list[str]:
    """Only the VMs of the offline node are moved, as in a failover."""
    return ["hbal", "-t", htools(case, lost, directory), "--ignore-dynu", "--evac-mode", "-q"]


def hspace(case: Case, like: VmDemand, directory: Path, reserve: bool) -> list[str]:
    """How many more of one kind fit, 1,000 at most; with `reserve` so that any one node may be lost."""
    size = f"1024,{like.memory // MIB},{like.cpu}"
    words = ["hspace", "-t", htools(case, "", directory), "--machine-readable=yes", "--disk-template=rbd"]
    words += [f"--standard-alloc={size}", f"--tiered-alloc={size}", "--max-length=1000"]
    return words if reserve else [*words, "--no-capacity-checks"]


def crm_simulate(case: Case, _lost: str, directory: Path) -> list[str]:
    """A CIB with utilization attributes and `placement-strategy=balanced`; one state of the VMs that run."""
    nodes, states, primitives = [], [], []
    for number, node in enumerate((node for node in case.nodes if not node.refuses), 1):
        nodes.append(
            f'<node id="{number}" uname={quoteattr(node.name)}><utilization id="nu{number}">'
            f'<nvpair id="nc{number}" name="cpu" value="{int(node.cpu)}"/>'
            f'<nvpair id="nm{number}" name="memory" value="{node.memory // MIB}"/></utilization></node>'
        )
        here = "".join(_history(vm.name) for vm in case.vms if vm.node == node.name)
        states.append(
            f'<node_state id="{number}" uname={quoteattr(node.name)} in_ccm="true" crmd="online" '
            f'join="member" expected="member"><lrm id="{number}"><lrm_resources>{here}</lrm_resources></lrm>'
            "</node_state>"
        )
    for vm in case.vms:
        primitives.append(
            f'<primitive id="{vm.name}" class="ocf" provider="heartbeat" type="Dummy">'
            f'<utilization id="u-{vm.name}"><nvpair id="uc-{vm.name}" name="cpu" value="{vm.cpu}"/>'
            f'<nvpair id="um-{vm.name}" name="memory" value="{vm.memory // MIB}"/></utilization></primitive>'
        )
    path = directory / "cib.xml"
    path.write_text(
        '<cib crm_feature_set="3.16.2" validate-with="pacemaker-3.8" epoch="1" num_updates="0" '
        'admin_epoch="0" have-quorum="1"><configuration><crm_config><cluster_property_set id="o">'
        '<nvpair id="o1" name="placement-strategy" value="balanced"/>'
        '<nvpair id="o2" name="stonith-enabled" value="false"/></cluster_property_set></crm_config>'
        f"<nodes>{''.join(nodes)}</nodes><resources>{''.join(primitives)}</resources><constraints/>"
        '<rsc_defaults><meta_attributes id="d"><nvpair id="d1" name="resource-stickiness" value="100"/>'
        f"</meta_attributes></rsc_defaults></configuration><status>{''.join(states)}</status></cib>"
    )
    return ["crm_simulate", "-x", str(path), "-R", "-Q"]


def _history(vm: str) -> str:
    """That it was started there."""
    magic = "0:0;1:1:0:11111111-1111-1111-1111-111111111111"
    return (
        f'<lrm_resource id="{vm}" type="Dummy" class="ocf" provider="heartbeat"><lrm_rsc_op id="{vm}_last_0" '
        f'operation_key="{vm}_start_0" operation="start" crm-debug-origin="x" crm_feature_set="3.16.2" '
        f'transition-key="{magic[4:]}" transition-magic="{magic}" call-id="1" rc-code="0" op-status="0" '
        'interval="0" last-rc-change="1" exec-time="1" queue-time="0" op-digest="x"/></lrm_resource>'
    )
