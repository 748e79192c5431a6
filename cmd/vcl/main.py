"""The entry point: global options, exit codes, and the one place where errors become text.

Exit codes are kubectl's: 0 done, 1 failed, 130 after Ctrl-C, 141 when the reader of our output has gone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

os.environ["TYPER_USE_RICH"] = "0"  # rich costs 100 ms and more, and paints what scripts read

import typer

from reconciler.resources.errors import VclError
from vcl.registry import EPILOG, VerbGroup
from vcl.session import DEFAULT_SOCKET, Session, UsageError, complain

# typer brings its own copy of click since 0.28: reach the base of its errors without naming the copy.
_CLICK_ERROR: type[Exception] = typer.BadParameter.__mro__[2]

FLAGS = frozenset(
    {
        "--all",
        "--cancel",
        "--force",
        "--ignore-not-found",
        "--no-headers",
        "--purge",
        "--recursive",
        "--show-labels",
        "--wait",
        "--watch",
    }
)
"""Options without a value, which kubectl's users give one all the same."""

HELP = """Declarative virtual machines: write a manifest, and vcl makes it so.

\b
Example:
  vcl apply -f web.yaml
  vcl get vms -o wide
  vcl describe vm web
  vcl console web
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return 141
    except OSError as error:
        _drop_stdout()
        where = f": {error.filename}" if error.filename else ""
        complain(f"{error.strerror or error}{where}; make room or check the rights, then try again")
        return 1
    return code


def _run(argv: list[str]) -> int:
    failed = 2 if argv[:1] in (["diff"], ["plan"]) else 1  # their 1 means that there are differences
    try:
        session, rest = split_globals(argv)
        rest = as_flags(as_verb(rest))
        group = _group()
        # not group.main(): it would take broken pipes and Ctrl-C for itself
        with group.make_context("vcl", rest or ["--help"], obj=session) as context:
            result = group.invoke(context)
        return result if isinstance(result, int) else 0
    except typer.Exit as done:
        return done.exit_code
    except VclError as error:
        complain(error)
        return failed
    except _CLICK_ERROR as error:
        print(f"error: {_usage(error)}", file=sys.stderr)
        return failed
    except (KeyboardInterrupt, typer.Abort):
        return 130


def split_globals(argv: Sequence[str]) -> tuple[Session, list[str]]:
    """Take the global options out of a command line, wherever they stand, up to `--`."""
    from vcl.durations import parse_duration

    values = {
        "--socket": os.environ.get("VCL_SOCKET") or DEFAULT_SOCKET,
        "--request-timeout": os.environ.get("VCL_REQUEST_TIMEOUT") or "30s",
    }
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--":
            rest += [word, *words]
        elif name not in values:
            rest.append(word)
        elif equals:
            values[name] = value
        else:
            following = next(words, None)
            if following is None:
                raise UsageError(f"{name} needs a value", cure=f"write {name}=VALUE")
            values[name] = following
    timeout = parse_duration(values["--request-timeout"])
    if timeout <= 0:
        raise UsageError("--request-timeout must be more than zero", cure="write --request-timeout=30s")
    return Session(socket=values["--socket"], timeout=timeout), rest


def as_verb(words: list[str]) -> list[str]:
    """`vcl help VERB` and `vcl --version`, as everybody tries them."""
    match words:
        case ["help", *verb]:
            return [*verb, "--help"]
        case ["--version"]:
            return ["version"]
    return words


def as_flags(words: Sequence[str]) -> list[str]:
    """`--wait=true` is `--wait`, and `--wait=false` nothing, as in kubectl; up to `--`."""
    found: list[str] = []
    ours = list(words)
    end = ours.index("--") if "--" in ours else len(ours)
    for word in ours[:end]:
        name, _, value = word.partition("=")
        if name not in FLAGS or value not in ("true", "false"):
            found.append(word)
        elif value == "true":
            found.append(name)
    return found + ours[end:]


def _group() -> VerbGroup:
    app = typer.Typer(
        cls=VerbGroup, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )

    @app.callback(help=HELP, epilog=EPILOG, invoke_without_command=False)
    def root() -> None:
        pass

    group = typer.main.get_command(app)
    assert isinstance(group, VerbGroup)
    return group


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "vcl"
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{message.rstrip('.').replace(chr(10), ' ')}; see '{command} --help'"


def _drop_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush cannot fail again."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError):
        sys.stdout = None  # a stdout without a descriptor: nothing to flush


if __name__ == "__main__":
    sys.exit(main())
