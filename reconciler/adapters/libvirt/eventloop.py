"""libvirt's event loop, once per process, on a daemon thread.

libvirt wants it registered before the first connection is opened; keep-alive, the close callback, events and
streams all run on it. It never ends: there is no way to take it back from libvirt.
"""

from __future__ import annotations

import threading

import libvirt

_lock = threading.Lock()
_thread: threading.Thread | None = None


def ensure() -> None:
    """Register and run it, unless that was done."""
    global _thread
    with _lock:
        if _thread is not None:
            return
        # Errors reach us as exceptions; libvirt would print them to stderr as well.
        libvirt.registerErrorHandler(_quiet, None)
        libvirt.virEventRegisterDefaultImpl()
        _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
        _thread.start()


def _quiet(_context: object, _error: object) -> None:
    return None


def _run() -> None:
    # A timer keeps the loop turning, so that handles that were added by other threads are noticed even when
    # their wake-up is lost.
    libvirt.virEventAddTimeout(500, lambda *_: None, None)
    while True:
        libvirt.virEventRunDefaultImpl()
