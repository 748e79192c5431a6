"""How problems are shown."""

from __future__ import annotations

from reconciler.resources.problems import Problem, Severity, in_order, render, show_path, summary


def problem(**changes: object) -> Problem:
    values = {"file": "web.yaml", "line": 6, "column": 3, "path": "spec.vcpu", "message": "unknown field"}
    return Problem(**(values | changes))


def test_a_problem_is_shown_with_its_position_and_its_line() -> None:
    shown = problem(message="unknown field; did you mean 'cpu'?", source_line="  vcpu: 4")
    assert render(shown) == "web.yaml:6:3: spec.vcpu: unknown field; did you mean 'cpu'?\n   6 |   vcpu: 4"


def test_a_warning_says_so_after_its_position() -> None:
    assert render(problem(severity=Severity.WARNING)) == "web.yaml:6:3: warning: spec.vcpu: unknown field"


def test_a_problem_of_the_whole_file_has_no_path() -> None:
    assert render(problem(path="", line=1, column=1)) == "web.yaml:1:1: unknown field"


def test_a_terminal_is_not_moved_by_what_a_file_holds() -> None:
    shown = render(problem(file="a\x1b[2J.yaml", source_line="\tx: \x1b[31m\u202e"))
    assert shown == "a?[2J.yaml:6:3: spec.vcpu: unknown field\n   6 |  x: ?[31m?"


def test_a_long_line_is_cut() -> None:
    assert render(problem(source_line="x" * 10_000)).endswith("xxx...")
    assert len(render(problem(source_line="x" * 10_000))) < 300


def test_paths_read_like_code_and_odd_keys_are_quoted() -> None:
    assert show_path(("spec", "disks", 0, "size")) == "spec.disks[0].size"
    assert show_path(("metadata", "labels", "a b/\x1b")) == "metadata.labels['a b/\\x1b']"


def test_problems_are_counted_in_words() -> None:
    warning = problem(severity=Severity.WARNING, file="db.yaml")
    assert summary([]) == "no problems"
    assert summary([problem()]) == "1 error in 1 file"
    assert summary([problem(), problem(line=7)]) == "2 errors in 1 file"
    assert summary([problem(), warning, warning]) == "1 error and 2 warnings in 2 files"


def test_problems_are_sorted_by_file_line_and_column_and_told_once() -> None:
    first, second, third = problem(line=2), problem(line=10), problem(file="z.yaml", line=1)
    assert in_order([third, second, first, second]) == (first, second, third)
