"""vcl pause: freeze virtual machines where they are."""

from __future__ import annotations

import typer

from vcl.lifecycle import Everything, How, Names, Selector, Timeout, Verb, Wait, Which, perform

VERB = Verb(name="pause", asked="pausing", done="paused", phases=("Paused",), ends=True)


def run(
    ctx: typer.Context,
    names: Names = None,
    selector: Selector = "",
    everything: Everything = False,
    wait: Wait = False,
    timeout: Timeout = "2m",
) -> int:
    """Freeze virtual machines where they are.

    The guest stops in mid-air and keeps its memory, until 'vcl resume'.

    \b
    Example:
      vcl pause web db
      vcl pause -l app=web --wait
    """
    which = Which(words=names, selector=selector, all=everything)
    return perform(ctx, VERB, which, How(wait=wait, timeout=timeout))
