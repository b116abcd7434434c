from __future__ import annotations

import hashlib
import inspect
import os
from unittest.mock import Mock

import pytest

from flarekit.core import errors
from flarekit.core.files import sha256_of, write_atomically

ALL = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if each.__module__ == errors.__name__
]


def test_a_write_replaces_the_old_content_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_bytes(b"old")

    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(errors.OutputError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_sha256_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize("error", ALL)
def test_every_error_stands_in_the_drawn_tree_with_its_exit_code(error):
    assert issubclass(error, errors.FlarekitError)
    assert errors.__doc__ is not None
    (line,) = [line for line in errors.__doc__.splitlines() if error.__name__ in line]
    assert str(error.exit_code) in line.split(error.__name__)[1]


def test_an_error_says_what_happened_and_what_to_do():
    error = errors.InputError("x.nii: is empty", fix="download it again")
    assert str(error) == "x.nii: is empty (download it again)"
