"""Controllers are found by entry points: our own, and one from a separately installed package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.adapters.controllers import discover, load
from reconciler.resources.errors import InvalidInput
from reconciler.sim.controller import create

EXAMPLE = Path(__file__).parents[1] / "packages" / "vcl_controller_example"


def package(root: Path, name: str, entry: str, source: str = "") -> Path:
    """A directory that looks as if a package with one entry point had been installed into it."""
    info = root / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vcl.controllers]\n{entry}\n")
    (root / f"{name}.py").write_text(source)
    return root


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example package, built and installed by pip into a directory of its own."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    run([sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)])
    return target


def run(command: list[str], *, path: Path | None = None, cwd: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": str(path or ""), "PIP_ROOT_USER_ACTION": "ignore"}
    done = subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dummy_controller_is_installed_with_vcl() -> None:
    assert load("dummy") is create


def test_the_names_are_sorted() -> None:
    names = list(discover())
    assert names == sorted(names)
    assert "dummy" in names


def test_a_mistyped_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="there is no controller 'dumy'; did you mean 'dummy'"):
        load("dumy")


def test_an_unknown_name_lists_what_is_installed(tmp_path: Path) -> None:
    package(tmp_path, "other", "xen = other:create")
    with pytest.raises(InvalidInput, match=r"no controller 'libvirt'; installed are: xen; .*vcl.controllers"):
        load("libvirt", [str(tmp_path)])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import a_module_that_nobody_has",
            "ModuleNotFoundError: No module named 'a_module_that_nobody_has'",
        ),
        ("raise OSError('no hypervisor here')", "OSError: no hypervisor here"),
        ("def create(:", "SyntaxError"),
        ("", "AttributeError.*create"),
    ],
)
def test_a_broken_package_is_named_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    name = f"broken{abs(hash(source))}"
    package(tmp_path, name, f"xen = {name}:create", source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInput, match=f"'xen'.*package {name} 1.0.*cannot be loaded: {message}"):
        load("xen", [str(tmp_path)])


def test_an_entry_point_that_is_no_factory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "notafactory", "xen = notafactory:create", "create = 3")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInput, match="is a int, not a function"):
        load("xen", [str(tmp_path)])


def test_two_packages_with_one_name_are_both_named(tmp_path: Path) -> None:
    package(tmp_path, "first", "xen = first:create")
    package(tmp_path, "second", "xen = second:create")
    with pytest.raises(InvalidInput, match=r"first:create of package first 1\.0 and second:create"):
        discover([str(tmp_path)])


def test_one_package_seen_twice_is_no_conflict(tmp_path: Path) -> None:
    package(tmp_path / "a", "first", "xen = first:create")
    package(tmp_path / "b", "first", "xen = first:create")
    assert list(discover([str(tmp_path / "a"), str(tmp_path / "b")])) == ["xen"]


@pytest.mark.slow
def test_a_controller_of_another_package_is_found_and_keeps_the_contract(
    example: Path, tmp_path: Path
) -> None:
    ask = (
        "from reconciler.adapters.controllers import discover, load; "
        "print(*discover()); print(load('process').__module__)"
    )
    names, module = run([sys.executable, "-c", ask], path=example).splitlines()
    assert {"dummy", "process"} <= set(names.split())
    assert module == "vcl_controller_example"

    shutil.copy(EXAMPLE / "checks" / "contract.py", tmp_path / "contract.py")
    configuration = tmp_path / "pytest.ini"
    configuration.write_text("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytest_options = ["-c", str(configuration), "-p", "no:cacheprovider", "-q", str(tmp_path / "contract.py")]
    summary = run([sys.executable, "-m", "pytest", *pytest_options], path=example, cwd=tmp_path)
    assert " passed" in summary
    assert "failed" not in summary
