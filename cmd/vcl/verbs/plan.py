"""vcl plan: what would happen now, after an edit, without a node. Nothing is changed.

Exit codes are diff's: 0 nothing would change, 1 something would, 2 trouble.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vcl import output
from vcl.inputs import read_inputs
from vcl.session import complain, connect

TROUBLE = 2


def run(
    ctx: typer.Context,
    apply: Annotated[
        list[str] | None,
        typer.Option(
            "--apply", "-f", metavar="FILE", help="After applying FILE, DIR or - (stdin); repeat it"
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="Go into subdirectories of --apply")
    ] = False,
    node_down: Annotated[
        list[str] | None, typer.Option("--node-down", metavar="NODE", help="If this node died; repeat it")
    ] = None,
    drain: Annotated[
        list[str] | None, typer.Option("--drain", metavar="NODE", help="If this node were emptied; repeat it")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="With the moves that end what breaks a rule, or make room")
    ] = False,
    balance: Annotated[
        bool, typer.Option("--balance", help="With the moves that even out the use of nodes as well")
    ] = False,
    check_index: Annotated[
        str, typer.Option("--check-index", metavar="INDEX", help="Fail unless the plan still has this index")
    ] = "",
    output_format: Annotated[str, typer.Option("-o", "--output", help="One of yaml, json")] = "",
) -> int:
    """Show what would happen, and do nothing.

    Without options: what the master is about to do; it moves nothing that runs. --drain, --repair and
    --balance show moves, one turn after the other. VMs that find no place are shown with each node and why
    not, and how full the nodes would be. The index stands for all that the plan was made from: apply with
    '--check-index' does nothing when something has changed since.

    The exit code is 0 when nothing would change, 1 when something would, and 2 when that cannot be told.

    \b
    Example:
      vcl plan
      vcl plan --apply web.yaml
      vcl apply -f web.yaml --check-index 4f2a91c03b1e
      vcl plan --node-down r1
      vcl plan --drain r2 -o json
      vcl plan --balance
    """
    from vcl.planning import Question, ask_plan

    chosen = output.parse_format(output_format, ("yaml", "json"))
    inputs = read_inputs(apply, recursive=recursive).all() if apply else ()
    question = Question(down=node_down or (), drain=drain or (), repair=repair, balance=balance)
    plan = ask_plan(connect(ctx), inputs, question)
    for warning in plan.get("warnings") or []:
        print(warning, file=sys.stderr)
    if chosen.name:
        output.printer(chosen)(plan)
    else:
        from vcl.prospects import plan_text

        print(plan_text(plan), end="")
    if check_index and check_index != plan.get("index"):
        complain(f"the index is {plan.get('index')} now, not {check_index}; look at the plan again")
        return TROUBLE
    return 1 if plan.get("differs") else 0
