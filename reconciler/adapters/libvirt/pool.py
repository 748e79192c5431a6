"""Connections for calls: each is used by one thread at a time.

Why not one connection for all threads: when keep-alive gives up on a connection in which two threads wait,
libvirt's client (seen with 9.0) wakes only one of them, prints GLib errors, and may crash the process. With
one caller per connection the call returns with an error, as it should.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import libvirt

from reconciler.adapters.libvirt import failures

KEEPALIVE_COUNT = 3
"""Unanswered probes after which a connection is given up; they come every `keepalive` seconds."""


class Pool:
    """Opens connections when needed, and keeps idle ones. Thread-safe. Call it on worker threads only:
    opening takes as long as libvirtd takes."""

    def __init__(self, uri: str, *, keepalive: int) -> None:
        """`keepalive` in seconds."""
        self._uri = uri
        self._keepalive = keepalive
        self._lock = threading.Lock()
        self._idle: list[libvirt.virConnect] = []
        self._generation = 0

    def connect(self) -> libvirt.virConnect:
        """A new connection, the caller's to close. Raises libvirtError."""
        connection = libvirt.open(self._uri)
        connection.setKeepAlive(self._keepalive, KEEPALIVE_COUNT)
        return connection

    @contextmanager
    def borrow(self) -> Iterator[libvirt.virConnect]:
        """One for the time of a call. Raises libvirtError when there is none to be had."""
        with self._lock:
            generation = self._generation
            connection = self._idle.pop() if self._idle else None
        if connection is not None and not is_alive(connection):
            close(connection)
            connection = None
        if connection is None:
            connection = self.connect()
        try:
            yield connection
        finally:
            with self._lock:
                kept = generation == self._generation and is_alive(connection)
                if kept:
                    self._idle.append(connection)
            if not kept:
                close(connection)

    def drain(self) -> None:
        """Close the idle ones; those in use follow when they come back."""
        with self._lock:
            self._generation += 1
            idle, self._idle = self._idle, []
        for connection in idle:
            close(connection)


def is_alive(connection: libvirt.virConnect) -> bool:
    """Whether it can be used, as far as is known on this side."""
    try:
        return bool(connection.isAlive() == 1)
    except libvirt.libvirtError:
        return False


def close(connection: libvirt.virConnect) -> None:
    """Let libvirt free it; a broken one is as good as closed."""
    try:
        connection.close()
    except libvirt.libvirtError as error:
        failures.ignore(error, "closing a connection")
