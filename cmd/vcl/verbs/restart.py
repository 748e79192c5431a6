"""vcl restart: shut virtual machines down and start them."""

from __future__ import annotations

import typer

from vcl.lifecycle import Everything, Force, How, Names, Selector, Timeout, Verb, Wait, Which, perform

VERB = Verb(name="restart", asked="restarting", done="running", phases=("Running",))


def run(
    ctx: typer.Context,
    names: Names = None,
    selector: Selector = "",
    everything: Everything = False,
    force: Force = False,
    wait: Wait = False,
    timeout: Timeout = "2m",
) -> int:
    """Shut virtual machines down and start them.

    A new start takes up every change of the manifest, also those that a running guest cannot take.

    \b
    Example:
      vcl restart web db
      vcl restart -l app=web --wait
      vcl restart web --force
    """
    which = Which(words=names, selector=selector, all=everything)
    return perform(ctx, VERB, which, How(wait=wait, timeout=timeout, force=force))
