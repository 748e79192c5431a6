"""A link that is slow and loses: frames between two network interfaces, delayed and dropped.

    python3 -I -S wire.py SETTINGS MACHINE-SIDE SWITCH-SIDE      run by switch.py; see Wire there

Frames of one direction are never reordered. The virtio header that the kernel puts before each frame carries
unfinished checksums and large segments across as they are. Standard library only.
"""

from __future__ import annotations

import collections
import contextlib
import json
import random
import select
import socket
import sys
import time
from pathlib import Path
from typing import Any

ALL, IPV4, ARP = 0x0003, b"\x08\x00", b"\x08\x06"
SOL_PACKET, ADD_MEMBERSHIP, VNET_HEADER, IGNORE_OUTGOING = 263, 1, 15, 23
PROMISCUOUS = 1
HEADER = 10
LARGEST = 128 * 1024
QUEUED = 20_000
"""Frames on their way; what comes then is lost, as in a full switch."""


class Direction:
    """One way of the wire, or one that is as good as new when `settings` is None."""

    def __init__(
        self, receives: socket.socket, sends: socket.socket, settings: dict[str, Any] | None, *, source: bool
    ) -> None:
        """`source`: the address of the peer is the sender's, not the receiver's."""
        self.receives = receives
        self._sends = sends
        self._settings = settings
        self._source = source
        self._queue: collections.deque[tuple[float, bytes]] = collections.deque()
        self._last = 0.0

    def take(self, now: float) -> None:
        """Everything that has arrived."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame = self.receives.recv(LARGEST)
                hit = self._settings
                if hit is None or not self._concerns(frame, hit["peers"]):
                    self._send(frame)
                elif random.random() >= hit["loss"] and len(self._queue) < QUEUED:
                    self._append(now + hit["delay"] + random.random() * hit["jitter"], frame)

    def give(self, now: float) -> float:
        """Pass on what is due; seconds until the next is, a large number when none waits."""
        while self._queue and self._queue[0][0] <= now:
            self._send(self._queue.popleft()[1])
        return self._queue[0][0] - now if self._queue else 3600.0

    def _append(self, due: float, frame: bytes) -> None:
        self._last = max(self._last, due)
        self._queue.append((self._last, frame))

    def _send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            self._sends.send(frame)

    def _concerns(self, frame: bytes, peers: list[str]) -> bool:
        """Whether the frame comes from or goes to one of the peers, or there is no choice of them."""
        packet = frame[HEADER:]
        kind = packet[12:14]
        if not peers or kind not in (IPV4, ARP):
            return not peers
        at = (26 if self._source else 30) if kind == IPV4 else (28 if self._source else 38)
        return socket.inet_ntoa(packet[at : at + 4]) in peers


def main() -> None:
    place = Path(sys.argv[1])
    settings = json.loads(place.read_text())
    machine, switch = _open(sys.argv[2]), _open(sys.argv[3])
    ways = [
        Direction(machine, switch, settings if settings["outward"] else None, source=False),
        Direction(switch, machine, settings if settings["inward"] else None, source=True),
    ]
    place.with_suffix(".ready").touch()
    wait = 3600.0
    while True:
        select.select([machine, switch], [], [], wait)
        now = time.monotonic()
        for way in ways:
            way.take(now)
        wait = max(0.0, min(way.give(now) for way in ways))


def _open(interface: str) -> socket.socket:
    """Every frame that comes in by the interface, and none that goes out by it."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(SOL_PACKET, VNET_HEADER, 1)
    opened.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 2**20)
    opened.bind((interface, ALL))
    number = socket.if_nametoindex(interface)
    membership = number.to_bytes(4, sys.byteorder) + PROMISCUOUS.to_bytes(2, sys.byteorder) + bytes(10)
    opened.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, membership)
    opened.setblocking(False)
    return opened


if __name__ == "__main__":
    main()
