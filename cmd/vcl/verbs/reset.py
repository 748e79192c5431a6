"""vcl reset: press virtual machines' reset button."""

from __future__ import annotations

import typer

from vcl.lifecycle import Everything, How, Names, Selector, Timeout, Verb, Wait, Which, perform

VERB = Verb(name="reset", asked="resetting", done="reset", phases=("Running",))


def run(
    ctx: typer.Context,
    names: Names = None,
    selector: Selector = "",
    everything: Everything = False,
    wait: Wait = False,
    timeout: Timeout = "2m",
) -> int:
    """Press virtual machines' reset button.

    The guest boots again at once, without being asked, in the same QEMU; what it had not written yet is
    lost. Changes of the manifest wait for 'vcl restart'. A paused guest has to be resumed first.

    \b
    Example:
      vcl reset web db
      vcl reset -l app=web --wait
    """
    which = Which(words=names, selector=selector, all=everything)
    return perform(ctx, VERB, which, How(wait=wait, timeout=timeout))
