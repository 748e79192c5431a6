"""Controllers on the run's private libvirtd, and small requests for it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.adapters import libvirt as adapter
from reconciler.ports.controller import Controller
from reconciler.resources.domains import AttachedDisk, StartRequest
from reconciler.resources.virtualmachine import Boot, Cpu, Interface, VirtualMachineSpec
from reconciler.testing.domains import CLUSTER, NODE, Domains, context_for

PATIENCE = 40.0


@pytest.fixture
def libvirtd(private_libvirtd: Any) -> Iterator[Any]:
    """The run's libvirtd, running and empty before and after each test."""
    private_libvirtd.start()
    yield private_libvirtd
    private_libvirtd.thaw()
    private_libvirtd.start()
    for log in private_libvirtd.log_dir.glob("*.log"):
        log.unlink()


@pytest.fixture
def open_controller(libvirtd: Any, tmp_path: Path) -> Callable[..., Controller]:
    """Makes controllers of one node (the caller opens and closes them)."""

    def make(**options: object) -> Controller:
        given = {"uri": libvirtd.uri, "virtualization": "qemu", "logDir": str(libvirtd.log_dir), **options}
        return adapter.create(context_for(tmp_path, **given))

    return make


@pytest.fixture
async def controller(open_controller: Callable[..., Controller]) -> AsyncIterator[Controller]:
    made = open_controller()
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def domains(controller: Controller) -> AsyncIterator[Domains]:
    """Ends what a test started."""
    made = Domains(lifecycle=controller.lifecycle, patience=PATIENCE)
    yield made
    await made.end_all()


@pytest.fixture
def vm(guest_image: Any) -> Callable[..., StartRequest]:
    """A request for the small Linux; `disks` as `StartRequest` has them."""

    def make(name: str, *, disks: tuple[AttachedDisk, ...] = (), **spec: Any) -> StartRequest:
        boot = Boot(
            kernel=guest_image.kernel,
            initrd=guest_image.initrd,
            cmdline=f"console=ttyS0 quiet no_timer_check vcl.name={name}",
        )
        # QEMU's plain CPU boots a second sooner under emulation.
        fields = {"cpu": Cpu(cores=1, model="qemu64"), "memory": 128 << 20, "boot": boot} | spec
        fields.setdefault("interfaces", (Interface(name="net"),))
        return StartRequest(
            name=name,
            uid=str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
            cluster_uid=CLUSTER,
            node=NODE,
            generation=1,
            spec=VirtualMachineSpec(**fields),
            disks=disks,
        )

    return make


@pytest.fixture
def foreign(libvirtd: Any) -> Iterator[Callable[[str], str]]:
    """Starts domains by hand, as an operator with virsh does; returns the UUID."""
    import libvirt

    started: list[str] = []

    def make(name: str, *, identifier: str = "") -> str:
        connection = libvirt.open(libvirtd.uri)
        identity = identifier or str(uuid.uuid4())
        document = (
            f"<domain type='qemu'><name>{name}</name><uuid>{identity}</uuid><memory unit='MiB'>32</memory>"
            "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
        )
        connection.createXML(document, 0)
        connection.close()
        started.append(identity)
        return identity

    yield make
    connection = libvirt.open(libvirtd.uri)
    for identity in started:
        connection.lookupByUUIDString(identity).destroy()
    connection.close()
