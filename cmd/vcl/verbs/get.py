"""vcl get: tables for people, objects for programs, and both as a stream."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from reconciler.resources.errors import VclError
from vcl import output
from vcl.client import Client
from vcl.fetching import check_selector, fetch, missing
from vcl.session import UsageError, complain, connect
from vcl.targets import Target, checked_name, parse_targets

FAILURES = ("failures", "failure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asks for beyond the targets."""

    format: output.Format
    selector: str = ""
    sort_by: str = ""
    headers: bool = True
    show_labels: bool = False
    show_kind: bool = False
    ignore_missing: bool = False


def run(
    ctx: typer.Context,
    what: Annotated[list[str] | None, typer.Argument(metavar="TYPE[,TYPE] [NAME...] | TYPE/NAME...")] = None,
    output_format: Annotated[str, typer.Option("-o", "--output", help=output.HELP)] = "",
    selector: Annotated[
        str, typer.Option("-l", "--selector", help="Only those with labels: a=b,c!=d,e in (f,g),!h")
    ] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="After the list, print every change")] = False,
    watch_only: Annotated[
        bool, typer.Option("--watch-only", help="Print changes, not the list first")
    ] = False,
    sort_by: Annotated[
        str, typer.Option("--sort-by", help="A JSONPath, such as .metadata.creationTimestamp")
    ] = "",
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Leave out the header line")] = False,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Add a column of labels")] = False,
    show_kind: Annotated[bool, typer.Option("--show-kind", help="Write names as TYPE/NAME")] = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="A missing object is no error")
    ] = False,
    filenames: Annotated[
        list[str] | None, typer.Option("-f", "--filename", help="The objects that FILE, DIR or - define")
    ] = None,
    recursive: Annotated[
        bool, typer.Option("-R", "--recursive", help="Go into subdirectories of -f")
    ] = False,
) -> int:
    """Show one or many objects.

    \b
    Example:
      vcl get vms                        all virtual machines
      vcl get vms -o wide -l app=web     with more columns, only some
      vcl get vm web -o yaml             one, complete
      vcl get vm/web node/r1             of several types
      vcl get all                        everything
      vcl get vms -w                     and every change from now on
      vcl get vms -o jsonpath='{.items[*].metadata.name}'
      vcl get vms -o custom-columns=NAME:.metadata.name,IP:.status.ipAddresses[0]
      vcl get vms --sort-by=.metadata.creationTimestamp
      vcl get failures                   what failed on which node, and is remembered
    """
    if what and what[0].partition("/")[0] in FAILURES and not filenames:
        from vcl.failures import show_failures

        return show_failures(
            connect(ctx), vm_names_of(what), output.parse_format(output_format), headers=not no_headers
        )
    if filenames:
        from vcl.inputs import targets_of_files

        targets = targets_of_files(filenames, recursive=recursive)
    else:
        targets = parse_targets(what or ())
    check_selector(targets, selector)
    options = Options(
        format=output.parse_format(output_format),
        selector=selector,
        sort_by=sort_by,
        headers=not no_headers,
        show_labels=show_labels,
        show_kind=show_kind or len({target.info for target in targets}) > 1,
        ignore_missing=ignore_not_found,
    )
    client = connect(ctx)
    if watch or watch_only:
        from vcl.watching import follow

        return follow(client, targets, options, list_first=not watch_only)
    show = print_tables if options.format.is_table else print_objects
    return show(client, targets, options)


def vm_names_of(words: Sequence[str]) -> tuple[str, ...]:
    """The VMs named by `failures web db` and `failures/web`; none: all."""
    slashed = [word.partition("/")[2] for word in words if "/" in word]
    return tuple(checked_name(name) for name in (*slashed, *(w for w in words[1:] if "/" not in w)))


def print_tables(client: Client, targets: tuple[Target, ...], options: Options) -> int:
    """One table a type, an empty line between; missing names are errors."""
    from vcl.tables import load_table

    errors: list[VclError] = []
    printed = 0
    for target in targets:
        table = load_table(client, target, options)
        absent = [name for name in target.names if name not in table.names]
        errors += [missing(target.info, name) for name in absent]
        if table.rows:
            sys.stdout.write(("\n" if printed else "") + table.text(headers=options.headers))
            printed += 1
    return _finish(errors, options, empty=not printed)


def print_objects(client: Client, targets: tuple[Target, ...], options: Options) -> int:
    """The merged objects: alone when one was named, else as a List."""
    show = output.printer(options.format, headers=options.headers)
    found = fetch(client, targets, options.selector)
    objects = found.objects
    if options.sort_by:
        from vcl.sorting import sort_objects

        objects = sort_objects(objects, options.sort_by)
    single = len(targets) == 1 and len(targets[0].names) == 1
    document: Any = objects[0] if single and objects else output.list_of(objects)
    if objects or not (single or found.errors):
        show(document)
    return _finish(found.errors, options, empty=False)


def _finish(errors: list[VclError], options: Options, *, empty: bool) -> int:
    if options.ignore_missing:
        return 0
    for error in errors:
        complain(error)
    if empty and not errors:
        print("No resources found", file=sys.stderr)
    return 1 if errors else 0


def single_type(targets: tuple[Target, ...]) -> Target:
    """The one target of a watch."""
    if len(targets) != 1:
        raise UsageError("a watch follows one type at a time", cure="run one 'vcl get TYPE -w' for each")
    return targets[0]
