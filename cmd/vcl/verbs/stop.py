"""vcl stop: shut virtual machines down."""

from __future__ import annotations

import typer

from vcl.lifecycle import Everything, Force, How, Names, Selector, Timeout, Verb, Wait, Which, perform

VERB = Verb(name="stop", asked="stopping", done="stopped", phases=("Stopped",), ends=True)


def run(
    ctx: typer.Context,
    names: Names = None,
    selector: Selector = "",
    everything: Everything = False,
    force: Force = False,
    wait: Wait = False,
    timeout: Timeout = "2m",
) -> int:
    """Shut virtual machines down.

    The guest is asked to power off, and is cut off after its terminationGracePeriodSeconds. It stays
    stopped, whatever its runStrategy says, until 'vcl start'.

    \b
    Example:
      vcl stop web db
      vcl stop -l app=web --wait
      vcl stop web --force
    """
    which = Which(words=names, selector=selector, all=everything)
    return perform(ctx, VERB, which, How(wait=wait, timeout=timeout, force=force))
