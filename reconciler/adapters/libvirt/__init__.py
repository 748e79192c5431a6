"""The `libvirt` controller: virtual machines of the libvirtd on this node.

Only this package imports libvirt, and only when a controller is made: registering the entry point costs
nothing to a program that does not use it.
"""

from __future__ import annotations

from reconciler.ports.controller import Controller, ControllerContext
from reconciler.resources.errors import ControllerError


def create(context: ControllerContext) -> Controller:
    """The factory of the entry point `libvirt` in the group `vcl.controllers`.

    Options: see `options.parse`. Raises InvalidInput for an unknown or malformed option, ControllerError when
    the Python bindings are missing. Nothing is connected before `open`.
    """
    try:
        import libvirt  # noqa: F401 - whether it is there at all
    except ImportError as error:
        raise ControllerError(
            f"the Python bindings of libvirt cannot be loaded: {error}",
            cure="install python3-libvirt, or run: pip install libvirt-python",
        ) from error
    from reconciler.adapters.libvirt.controller import LibvirtController

    return LibvirtController(context)
