"""Lets `python tests/lab/cluster` run as a program: a folder that is run has no name to import itself by."""

import importlib.util
import sys
from pathlib import Path

NAME = "vcl_lab_cluster"

if __name__ == "__main__":
    place = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        NAME, place / "__init__.py", submodule_search_locations=[str(place)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)
    sys.exit(importlib.import_module(f"{NAME}.cli").main(sys.argv[1:]))
