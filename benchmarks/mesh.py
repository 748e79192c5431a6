"""What an idle mesh costs: three nodes, each a process, heartbeats as in the daemon; and how much it carries.

    python benchmarks/mesh.py [CERTIFICATES]

CERTIFICATES: a directory with ca.crt and a.crt, a.key, b.crt, ... ; without it, plain TCP.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import sys
import time
from pathlib import Path
from typing import Any

from reconciler.adapters.clock import SystemClock, SystemIds
from reconciler.adapters.mesh import MeshOptions, MeshTransport, TlsFiles
from reconciler.ports.transport import Endpoint, Message, Topic
from reconciler.resources.codec import encode
from reconciler.resources.membership import Heartbeat

IDLE = 20.0
BURST = 5.0
NODES = ("a", "b", "c")


def options(node: str, port: int, certificates: Path | None) -> MeshOptions:
    tls = None
    if certificates is not None:
        tls = TlsFiles(
            ca=certificates / "ca.crt", cert=certificates / f"{node}.crt", key=certificates / f"{node}.key"
        )
    return MeshOptions(
        node=node, bind="127.0.0.1", port=port, cluster_uid="bench", secret=b"0123456789abcdef", tls=tls
    )


async def live(node: str, ports: dict[str, int], certificates: Path | None) -> None:
    mesh = MeshTransport(options(node, ports[node], certificates), clock=SystemClock(), ids=SystemIds())
    heard = 0

    def hear(sender: str, message: Message) -> None:
        nonlocal heard
        heard += 1

    mesh.listen(hear)
    running = asyncio.create_task(mesh.run())
    peers = [name for name in NODES if name != node]
    mesh.connect({name: Endpoint(address="127.0.0.1", port=ports[name]) for name in peers})
    await asyncio.sleep(3.0)
    used, since = time.process_time(), heard
    for number in range(int(IDLE / 0.5)):
        heartbeat = Heartbeat(node=node, session=1, boot_id="0" * 36, sequence=number, hears=NODES)
        body: dict[str, Any] = encode(heartbeat)
        for name in peers:
            mesh.send(name, Message(topic=Topic.HEARTBEAT, body=body))
        await asyncio.sleep(0.5)
    share = (time.process_time() - used) / IDLE
    print(f"{node}: idle: {100 * share:.2f} % of a core, heard {(heard - since) / IDLE:.1f} messages/s")
    if node == "a":
        await burst(mesh)
    else:
        since = heard
        await asyncio.sleep(BURST + 1)
        print(f"{node}: heard {(heard - since) / BURST:.0f} log messages/s")
    running.cancel()


async def burst(mesh: MeshTransport) -> None:
    """Logs to one peer, as many as it takes."""
    body = {"reader": "r", "records": [{"message": "x" * 200, "level": "info"}] * 4, "dropped": 0}
    end = time.monotonic() + BURST
    while time.monotonic() < end:
        if not mesh.send("b", Message(topic=Topic.LOG, body=body)):
            await asyncio.sleep(0)
    print({name: count for name, count in mesh.counters().items() if "not_sent" not in name})


def main() -> None:
    certificates = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    listeners = {name: socket.create_server(("127.0.0.1", 0)) for name in NODES}
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    for listener in listeners.values():
        listener.close()
    processes = [
        multiprocessing.Process(target=lambda name=name: asyncio.run(live(name, ports, certificates)))
        for name in NODES
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main()
