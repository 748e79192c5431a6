"""vcl start: start virtual machines."""

from __future__ import annotations

import typer

from vcl.lifecycle import Everything, How, Names, Selector, Timeout, Verb, Wait, Which, perform

VERB = Verb(name="start", asked="starting", done="running", phases=("Running",))


def run(
    ctx: typer.Context,
    names: Names = None,
    selector: Selector = "",
    everything: Everything = False,
    wait: Wait = False,
    timeout: Timeout = "2m",
) -> int:
    """Start virtual machines.

    The manifest stays as it is: 'start' stands above runStrategy until 'stop', or until the
    manifest's runStrategy is changed.

    \b
    Example:
      vcl start web db
      vcl start -l app=web --wait
    """
    which = Which(words=names, selector=selector, all=everything)
    return perform(ctx, VERB, which, How(wait=wait, timeout=timeout))
