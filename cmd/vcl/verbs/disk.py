"""vcl disk: who holds a VM's images, and taking an image from a client that is dead or must lose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from reconciler.resources.errors import InvalidInput, NotFound, VclError
from vcl import output
from vcl.prompting import confirm
from vcl.registry import EPILOG
from vcl.session import UsageError, connect
from vcl.sheet import Sheet

app = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)

PATIENCE = 60.0
"""Seconds that a storage may take to answer."""

Name = Annotated[str, typer.Argument(metavar="VM")]
OutputFormat = Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")]


@app.callback(epilog=EPILOG)
def disk(ctx: typer.Context) -> None:
    """Show who holds disk images, and unlock them.

    \b
    Example:
      vcl disk show web
      vcl disk unlock web root
    """
    if ctx.invoked_subcommand is None:
        print(ctx.get_help())


@app.command("show", epilog=EPILOG)
def show(ctx: typer.Context, vm: Name, output_format: OutputFormat = "") -> int:
    """Show who has the images of a VM open or locked, now.

    The node that you ask must have the VM's storage pools.

    \b
    Example:
      vcl disk show web
      vcl disk show web -o json
    """
    chosen = output.parse_format(output_format, ("yaml", "json"))
    found = connect(ctx).get(_path(vm))
    if chosen.name:
        output.printer(chosen)(found)
        return 0
    sheet = Sheet()
    for item in found.get("items") or []:
        _describe(sheet, item)
    print(sheet.text(), end="")
    return 0


@app.command("unlock", epilog=EPILOG)
def unlock(
    ctx: typer.Context,
    vm: Name,
    disk: Annotated[str, typer.Argument(metavar="DISK", help="The disk's name in the manifest")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
) -> int:
    """Shut out who holds a VM's image, and break the lock.

    It shows who holds the image, asks, and then has Ceph refuse every write of those
    clients for ten years, and breaks their locks. What they have not written yet is
    lost. A client that belongs to a running VM, or to vcld, is refused.

    \b
    Example:
      vcl disk unlock web root
      vcl disk unlock web root --yes
    """
    client = connect(ctx)
    item = _find(client.get(_path(vm)), vm, disk)
    holders = item.get("holders") or []
    if not holders:
        print(f"nobody holds the image {item['image']}")
        return 0
    sheet = Sheet()
    _describe(sheet, item)
    print(sheet.text(), end="", flush=True)
    if not item.get("network"):
        raise InvalidInput(
            "the image is a file, which cannot be taken from a process", cure="end the process"
        )
    question = (
        f"Shut out {_count(holders)} for good and break the lock? Is it surely dead, or must lose the image?"
    )
    if not confirm(question, yes=yes, what="unlocking an image"):
        print("Cancelled, nothing was changed")
        return 1
    wanted = {"clients": [holder["client"] for holder in holders]}
    gone = client.post(f"{_path(vm)}/{quote(disk, safe='')}/unlock", wanted, at_least=PATIENCE)
    for holder in gone.get("items") or []:
        print(
            f"{holder['client']} shut out, its lock on {item['image']} broken"
            if holder.get("lock")
            else f"{holder['client']} shut out of {item['image']}"
        )
    print(f"`vcl retry {vm}` starts the VM now, if it is to run")
    return 0


def _path(vm: str) -> str:
    name = vm.rpartition("/")[2]
    if not name:
        raise UsageError("say which virtual machine", cure="write 'vcl disk show VM'")
    return f"virtualmachines/{quote(name, safe='')}/disks"


def _find(found: Mapping[str, Any], vm: str, disk: str) -> Mapping[str, Any]:
    items = found.get("items") or []
    item = next((each for each in items if each["name"] == disk), None)
    if item is None:
        names = ", ".join(each["name"] for each in items) or "none"
        raise NotFound(f"virtualmachine '{vm}' has no disk '{disk}'", cure=f"it has: {names}")
    if item.get("problem"):
        raise VclError(str(item["problem"]), cure="ask a node that reaches the pool")
    if item.get("missing"):
        raise NotFound(f"the image {item['image']} does not exist yet")
    found_item: Mapping[str, Any] = item
    return found_item


def _describe(sheet: Sheet, item: Mapping[str, Any]) -> None:
    sheet.section(f"Disk {item['name']}")
    sheet.field("Image", f"{item['image']} in pool {item['pool']}")
    if item.get("problem") or item.get("missing"):
        sheet.field("Held by", item.get("problem") or "nobody: the image does not exist yet")
        sheet.end()
        return
    rows = [_row(holder) for holder in item.get("holders") or []]
    if rows:
        sheet.table("Held by", ("Client", "Id", "Does", "Whose"), rows)
    else:
        sheet.field("Held by", "nobody")
    sheet.end()


def _row(holder: Mapping[str, Any]) -> Sequence[object]:
    does = ["has it open"] if holder.get("watching") else []
    if holder.get("lock"):
        tag = f", tag '{holder['tag']}'" if holder.get("tag") else ""
        kind = "shared lock" if holder.get("shared") else "lock"
        does.append(f"{'' if does else 'only '}{kind} '{holder['lock']}'{tag}")
    does += ["blocklisted"] if holder.get("fenced") else []
    return holder["client"], holder.get("entity", ""), "; ".join(does) or "has it open", _whose(holder)


def _whose(holder: Mapping[str, Any]) -> str:
    node, vm = holder.get("node"), holder.get("vm")
    at = f" at the address of node {node}" if node else ""
    if holder.get("daemon"):
        return f"vcld on node {node}"
    if vm:
        return f"an earlier run of VM {vm}{at}" if holder.get("former") else f"VM {vm} on node {node}"
    return f"not vcl's{at}" if at else "not known to vcl"


def _count(holders: Sequence[object]) -> str:
    return "this client" if len(holders) == 1 else f"these {len(holders)} clients"
