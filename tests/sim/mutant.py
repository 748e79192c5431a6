"""Runs tests on the product with one line of it changed: MODULE BEFORE AFTER TESTS...

Ends with 0 when one of the tests fails, 1 when all pass, and 2 when it could not be tried.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

import pytest


class Mutated(SourceFileLoader):
    """Loads a module with `after` in the place of `before`."""

    def __init__(self, name: str, path: str, before: str, after: str) -> None:
        super().__init__(name, path)
        source = Path(path).read_text(encoding="utf-8")
        if source.count(before) != 1:
            sys.exit(f"{before!r} is {source.count(before)} times in {path}")
        self._mutated = source.replace(before, after)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._mutated, self.path, "exec")


class Finder(MetaPathFinder):
    """Finds that one module, before all others do."""

    def __init__(self, name: str, before: str, after: str) -> None:
        self._name, self._before, self._after = name, before, after

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == self._name else None
        if spec is not None and spec.origin is not None:
            spec.loader = Mutated(fullname, spec.origin, self._before, self._after)
        return spec


def main(module: str, before: str, after: str, *tests: str) -> int:
    sys.meta_path.insert(0, Finder(module, before, after))
    code = pytest.main(["-x", "-p", "no:cacheprovider", "-m", "", *tests])
    if module not in sys.modules:
        return 2
    return {pytest.ExitCode.TESTS_FAILED: 0, pytest.ExitCode.OK: 1}.get(pytest.ExitCode(code), 2)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
