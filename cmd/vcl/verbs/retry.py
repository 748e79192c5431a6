"""vcl retry: forget failures and try again now."""

from __future__ import annotations

import typer

from vcl.lifecycle import Everything, How, Names, Selector, Timeout, Verb, Wait, Which, perform

VERB = Verb(name="retry", asked="retrying", done="running", phases=("Running",))


def run(
    ctx: typer.Context,
    names: Names = None,
    selector: Selector = "",
    everything: Everything = False,
    wait: Wait = False,
    timeout: Timeout = "2m",
) -> int:
    """Forget failures and try again now.

    vcl waits longer after every failed start; this begins anew, at once.

    \b
    Example:
      vcl retry web db
      vcl retry -l app=web --wait
    """
    which = Which(words=names, selector=selector, all=everything)
    return perform(ctx, VERB, which, How(wait=wait, timeout=timeout))
