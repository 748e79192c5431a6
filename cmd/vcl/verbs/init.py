"""vcl init: make a cluster, on its first node."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vcl.node_config import DIRECTORY


def run(
    name: Annotated[str | None, typer.Option("--name", help="The cluster's name [default: vcl]")] = None,
    node: Annotated[
        list[str] | None,
        typer.Option(
            "--node", metavar="NAME=ADDRESS", help="A node, in the order of the hierarchy; repeat it"
        ),
    ] = None,
    this: Annotated[
        str | None, typer.Option("--this", metavar="NAME", help="Which node this is [default: the host name]")
    ] = None,
    pool: Annotated[str | None, typer.Option(help="The Ceph pool of the state [default: vcl]")] = None,
    namespace: Annotated[str | None, typer.Option(help="The namespace in it [default: vcl]")] = None,
    image_pool: Annotated[
        list[str] | None,
        typer.Option(
            "--image-pool", metavar="POOL", help="A pool for images; repeat it [default at first: vms]"
        ),
    ] = None,
    ceph_user: Annotated[str | None, typer.Option(help="vcl's own Ceph user [default: vcl]")] = None,
    qemu_user: Annotated[str, typer.Option(help="QEMU's Ceph user")] = "qemu",
    ceph_conf: Annotated[
        str | None, typer.Option(help="Ceph's configuration [default: /etc/ceph/ceph.conf]")
    ] = None,
    admin_user: Annotated[str, typer.Option(help="The Ceph user that makes the others")] = "admin",
    directory: Annotated[Path, typer.Option(help="Where vcl's own files are")] = DIRECTORY,
    port: Annotated[int | None, typer.Option(help="The mesh's TCP port [default: 7480]")] = None,
    tls: Annotated[str | None, typer.Option(help="on or off, for the mesh [default: on]")] = None,
    store: Annotated[str | None, typer.Option(help="rados, or sqlite for one node [default: rados]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be made")] = False,
) -> int:
    """Make a cluster, on its first node.

    Makes what is missing and keeps what is there, so it can be run again, and with a new --node later.

    \b
    Example:
      vcl init --name home --node r1=10.0.0.1 --node r2=10.0.0.2 --node r3=10.0.0.3
      vcl init --node r4=10.0.0.4                   # later, to add a node
      vcl init --node r1=10.0.0.1 --store sqlite    # one node, without Ceph
    """
    from vcl.init_plan import Asked, make_plan
    from vcl.init_steps import found_cluster
    from vcl.node_files import Hand, NodeFiles

    asked = Asked(
        name=name,
        nodes=node or (),
        this=this,
        store=store,
        pool=pool,
        namespace=namespace,
        user=ceph_user,
        conf=ceph_conf,
        port=port,
        tls=tls,
        images=image_pool or (),
        qemu_user=qemu_user,
        admin=admin_user,
    )
    plan = make_plan(asked, NodeFiles(directory=directory.absolute()))
    found_cluster(plan, Hand(dry=dry_run))
    return 0
