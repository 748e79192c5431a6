"""A host, paths and requests for tests of domain XML; samples of domains as people bring them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from reconciler.domainxml.build import GuestPaths, HostProfile, UefiFirmware, build
from reconciler.resources.domains import AttachedDisk, Definition, StartRequest
from reconciler.resources.virtualmachine import Cpu, DiskFormat, VirtualMachineSpec

HERE = Path(__file__).parent
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
UID = "6f1c3b52-7a30-4b7e-9a53-0d4f6f0f8a01"


@pytest.fixture(scope="session")
def host() -> HostProfile:
    return HostProfile(
        virtualization="kvm",
        machine_types={"q35": "pc-q35-7.2", "pc": "pc-i440fx-7.2"},
        emulator="/usr/bin/qemu-system-x86_64",
        uefi=UefiFirmware(
            loader="/usr/share/OVMF/OVMF_CODE_4M.fd", nvram_template="/usr/share/OVMF/OVMF_VARS_4M.fd"
        ),
    )


@pytest.fixture(scope="session")
def paths() -> GuestPaths:
    return GuestPaths(
        console_log="/var/log/vcl/console/web.log",
        seed_image="/var/lib/vcl/seed/web.img",
        nvram="/var/lib/vcl/nvram/web.fd",
    )


@pytest.fixture(scope="session")
def request_for() -> Callable[..., StartRequest]:
    """A request of a small VM named web; keywords are fields of its spec, or of the request.

    Every disk of the spec is attached as /pool/NAME.qcow2.
    """

    def make(**fields: Any) -> StartRequest:
        own = {
            key: fields.pop(key)
            for key in (
                "name",
                "uid",
                "node",
                "cluster_uid",
                "generation",
                "machine_pin",
                "attached",
                "variables",
            )
            if key in fields
        }
        spec = VirtualMachineSpec(**({"cpu": Cpu(cores=2), "memory": 2 << 30} | fields))
        attached = tuple(
            AttachedDisk(name=disk.name, path=f"/pool/{disk.name}.qcow2", format=DiskFormat.QCOW2)
            for disk in spec.disks
        )
        return StartRequest(
            name=own.get("name", "web"),
            uid=own.get("uid", UID),
            cluster_uid=own.get("cluster_uid", "c1"),
            node=own.get("node", "r1"),
            generation=own.get("generation", 3),
            spec=spec,
            disks=own.get("attached", attached),
            machine=own.get("machine_pin", ""),
            nvram=own.get("variables"),
        )

    return make


@pytest.fixture(scope="session")
def define(
    request_for: Callable[..., StartRequest], host: HostProfile, paths: GuestPaths
) -> Callable[..., Definition]:
    """`build` of `request_for(**fields)`; `on` is another host."""

    def make(*, on: HostProfile = host, **fields: Any) -> Definition:
        return build(request_for(**fields), on, paths)

    return make


@pytest.fixture(scope="session")
def samples() -> dict[str, str]:
    """Domain XML of different ages and origins, by name."""
    return {path.stem: path.read_text() for path in sorted((HERE / "samples").glob("*.xml"))}


@pytest.fixture
def validate(tmp_path: Path) -> Callable[[Iterable[str]], None]:
    """Fails with the first complaint of virt-xml-validate about any of the documents."""
    assert SCHEMA.is_file(), f"{SCHEMA} is missing: install libvirt (Debian: libvirt0)"

    def check(documents: Iterable[str]) -> None:
        for number, document in enumerate(documents):
            path = tmp_path / f"{number}.xml"
            path.write_text(document)
            done = subprocess.run(
                ["virt-xml-validate", str(path), "domain"], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{done.stderr}\n{document}"

    return check
