"""libvirt's errors in our words.

Invariant: only an answer of libvirtd counts as "refused". An error that the client library made up because
the connection broke says nothing about what libvirtd did, or will do (SAFETY rules 5 and 7).
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import libvirt

from reconciler.resources.errors import ControllerError, ControllerUnavailable, NotFound, StartFailed

log = logging.getLogger(__name__)

_CONNECTION_DOMAINS = frozenset(
    (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_POLKIT, libvirt.VIR_FROM_AUTH)
)
_CONNECTION_CODES = frozenset(
    (
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_AUTH_FAILED,
    )
)
_UNKNOWN_CODES = frozenset(
    (
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
        libvirt.VIR_ERR_OPERATION_ABORTED,
        libvirt.VIR_ERR_RESOURCE_BUSY,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    """A pattern in QEMU's or libvirt's message, and what it means to a person."""

    pattern: str
    reason: str
    cure: str


_REFUSALS = (
    _Refusal(
        pattern=r"Failed to get .* lock|is another process using the image|already in use by",
        reason="ImageInUse",
        cure="find who holds the image (fuser -v IMAGE, lsof IMAGE) and stop it",
    ),
    _Refusal(
        pattern=r"could not open (kernel|initrd) file|could not load (kernel|initrd)|kernel.*No such file",
        reason="BootFileMissing",
        cure="put the file of spec.boot on this node, or correct the path",
    ),
    _Refusal(
        pattern=r"cannot access storage file.*No such file|could not open '[^']*': No such file",
        reason="ImageMissing",
        cure="restore the image; vcl never makes an empty one in its place",
    ),
    _Refusal(
        pattern=r"unknown driver '?rbd|does not accept value '?rbd|unknown protocol '?rbd",
        reason="RbdDriverMissing",
        cure="install QEMU's RBD driver: qemu-block-extra (Debian), qemu-block-rbd (Fedora, Arch), "
        "USE=rbd (Gentoo)",
    ),
    _Refusal(
        pattern=r"error connecting: |error opening pool|no secret with matching|error reading header from",
        reason="CephRefused",
        cure="look at the pool's rbd.qemuUser: its caps (ceph auth get client.NAME), its key, the monitors",
    ),
    _Refusal(
        pattern=r"permission denied|operation not permitted",
        reason="PermissionDenied",
        cure="let QEMU's user (libvirt-qemu, qemu) read and write it, and enter every directory above it",
    ),
    _Refusal(
        pattern=r"network not found|network '[^']*' is not active|no network with matching",
        reason="NetworkMissing",
        cure="define and start the libvirt network on this node: virsh net-start NAME",
    ),
    _Refusal(
        pattern=r"cannot get interface MTU on|unable to add bridge|failed to add tap|bridge .*No such",
        reason="BridgeMissing",
        cure="make the bridge on this node (ip link add NAME type bridge; ip link set NAME up)",
    ),
    _Refusal(
        pattern=r"cannot allocate memory|cannot set up guest memory|out of memory",
        reason="InsufficientMemory",
        cure="free memory on this node or lower spec.memory",
    ),
    _Refusal(
        pattern=r"no space left on device",
        reason="NoSpace",
        cure="free space on this node's disk",
    ),
    _Refusal(
        pattern=r"image is not in|invalid (qcow2|image)|does not have the specified format|unknown protocol",
        reason="ImageInvalid",
        cure="look at the file: qemu-img info IMAGE",
    ),
    _Refusal(
        pattern=r"kvm is not available|access KVM|initialize kvm|virt type 'kvm'|domain type 'kvm'",
        reason="KVMUnavailable",
        cure="enable virtualisation in the firmware, or set controllers.libvirt.virtualization to qemu",
    ),
    _Refusal(
        pattern=r"address already in use|failed to find an available port|unable to .* port",
        reason="PortInUse",
        cure="free the port, or let libvirt choose one",
    ),
)
_NOISE = (
    re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z "),
    re.compile(r"qemu-system-\S+: "),
    re.compile(r"-(?:device|blockdev|drive|netdev|object|chardev) \{.*?\}: "),
    re.compile(
        r"^internal error: (?:process exited while connecting to|qemu unexpectedly closed the) monitor: "
    ),
    re.compile(r"^(?:internal error|unsupported configuration|operation failed): "),
)


def text(error: libvirt.libvirtError) -> str:
    """The message on one line, without time stamps and QEMU's own command line."""
    message = " ".join((error.get_error_message() or str(error)).split())
    for noise in _NOISE:
        message = noise.sub("", message)
    return message


def is_answer(error: libvirt.libvirtError) -> bool:
    """Whether libvirtd itself said this, so that the call is over."""
    made_here = error.get_error_domain() in _CONNECTION_DOMAINS
    return not made_here and error.get_error_code() not in _CONNECTION_CODES


def ignore(error: libvirt.libvirtError, doing: str) -> None:
    """For steps of a clean-up that may find the work done: kept for those who debug."""
    log.debug("libvirt: %s: %s", doing, text(error))


def is_missing(error: libvirt.libvirtError) -> bool:
    """Whether libvirtd said that there is no such domain."""
    return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)


def translate(error: libvirt.libvirtError, *, what: str) -> ControllerError | NotFound:
    """Of any call but a creation. `what` says what was tried, for example "pause web1"."""
    if is_missing(error):
        return NotFound(f"cannot {what}: libvirt knows no such domain")
    return ControllerUnavailable(f"cannot {what}: {text(error)}")


def refused(error: libvirt.libvirtError, *, name: str) -> StartFailed | ControllerUnavailable:
    """Of a creation that libvirtd has answered."""
    message = text(error)
    code = error.get_error_code()
    if code in _UNKNOWN_CODES:
        return ControllerUnavailable(f"cannot start {name}: {message}")
    for refusal in _REFUSALS:
        if re.search(refusal.pattern, message, re.IGNORECASE):
            return StartFailed(f"cannot start {name}: {message}", reason=refusal.reason, cure=refusal.cure)
    if code in (
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_XML_ERROR,
        libvirt.VIR_ERR_XML_DETAIL,
        libvirt.VIR_ERR_XML_INVALID_SCHEMA,
        libvirt.VIR_ERR_INVALID_ARG,
    ):
        return StartFailed(
            f"cannot start {name}: {message}",
            reason="UnsupportedConfiguration",
            cure="correct the spec; `vcl describe` shows the definition that was refused",
        )
    return StartFailed(f"cannot start {name}: {message}", reason="StartFailed")
