"""A secret that others could read is not used, and every refusal says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.adapters.mesh import load_secret
from reconciler.resources.errors import InvalidInput


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    path.chmod(0o600)
    return path


def refused(path: Path) -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        load_secret(path)
    assert str(path) in error.value.message
    assert error.value.cure
    return error.value


def test_the_secret_is_what_stands_in_the_file(secret: Path) -> None:
    assert load_secret(secret) == load_secret(str(secret)) == b"0123456789abcdef0123456789abcdef"
    secret.chmod(0o400)
    assert load_secret(secret)


def test_a_missing_file_says_who_makes_it(tmp_path: Path) -> None:
    assert "vcl init" in refused(tmp_path / "secret").cure


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o666])
def test_a_file_that_is_open_to_others_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    error = refused(secret)
    assert f"{mode:04o}" in error.message
    assert error.cure == f"chmod 600 {secret}"


def test_a_file_of_another_user_is_refused(secret: Path) -> None:
    os.chown(secret, 4711, 4711)
    assert "4711" in refused(secret).message


@pytest.mark.parametrize("content", ["", "\n", "short\n"])
def test_a_secret_that_is_too_short_is_refused(secret: Path, content: str) -> None:
    secret.write_text(content)
    assert "openssl rand" in refused(secret).cure


def test_a_directory_or_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    assert "regular file" in refused(tmp_path).message
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "regular file" in refused(pipe).message


def test_a_file_below_a_file_cannot_be_read(secret: Path) -> None:
    assert "cannot be read" in refused(secret / "x").message
