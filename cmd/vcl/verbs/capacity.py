"""vcl capacity: how many more VMs of a kind fit, with a node in reserve."""

from __future__ import annotations

from typing import Annotated

import typer

from vcl import output
from vcl.inputs import STDIN, Input, read_inputs
from vcl.session import UsageError, connect


def run(
    ctx: typer.Context,
    vm: Annotated[str, typer.Argument(metavar="[VM]", help="More VMs like this one")] = "",
    filename: Annotated[
        str, typer.Option("-f", "--filename", help="VMs like the one in FILE or - (stdin)")
    ] = "",
    cpu: Annotated[int, typer.Option("--cpu", help="VMs of so many CPUs (with --memory)", min=1)] = 1,
    memory: Annotated[str, typer.Option("--memory", help="VMs of so much memory: 4Gi")] = "",
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")] = "",
) -> int:
    """Show how many more of a VM fit.

    Twice: so that the loss of any one node still leaves every VM a place (N+1), and without such a reserve.
    Constraints count that select the VM by its labels; its own disks do not, as copies have their own.

    \b
    Example:
      vcl capacity web
      vcl capacity -f web.yaml
      vcl capacity --cpu 2 --memory 4Gi
    """
    from vcl.planning import ask_capacity

    chosen = output.parse_format(output_format, ("yaml", "json"))
    if sum(map(bool, (vm, filename, memory))) != 1:
        raise UsageError("say which VM", cure="name one, or use -f FILE, or --cpu N --memory SIZE")
    client = connect(ctx)
    if vm:
        room = ask_capacity(client, vm=vm.removeprefix("vm/"))
    elif filename:
        files = read_inputs([filename]).all()
        if len(files) != 1:
            raise UsageError(f"{filename} is {len(files)} files", cure="name one that defines one VM")
        room = ask_capacity(client, file=files[0])
    else:
        room = ask_capacity(client, file=_described(cpu, memory))
    if chosen.name:
        output.printer(chosen)(room)
    else:
        from vcl.prospects import capacity_text

        print(capacity_text(room), end="")
    return 0


def _described(cpu: int, memory: str) -> Input:
    """The manifest of a VM of this size."""
    from reconciler.resources.quantity import parse_bytes

    try:
        size = parse_bytes(memory)
    except ValueError as error:
        raise UsageError(f"--memory {error}", cure="write --memory 4Gi") from error
    text = (
        "apiVersion: vcl/v1\nkind: VirtualMachine\nmetadata: {name: this-size}\n"
        f"spec: {{cpu: {{cores: {cpu}}}, memory: {size}}}\n"
    )
    return Input(name=STDIN, data=text.encode())
