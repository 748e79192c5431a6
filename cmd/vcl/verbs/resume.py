"""vcl resume: let paused virtual machines go on."""

from __future__ import annotations

import typer

from vcl.lifecycle import Everything, How, Names, Selector, Timeout, Verb, Wait, Which, perform

VERB = Verb(name="resume", asked="resuming", done="running", phases=("Running",))


def run(
    ctx: typer.Context,
    names: Names = None,
    selector: Selector = "",
    everything: Everything = False,
    wait: Wait = False,
    timeout: Timeout = "2m",
) -> int:
    """Let paused virtual machines go on.

    They continue where they were when 'vcl pause' froze them.

    \b
    Example:
      vcl resume web db
      vcl resume -l app=web --wait
    """
    which = Which(words=names, selector=selector, all=everything)
    return perform(ctx, VERB, which, How(wait=wait, timeout=timeout))
