from __future__ import annotations

import errno
import hashlib
import inspect
import os
import shutil
import signal
import subprocess
import sys
from unittest.mock import Mock

import pytest

from flarekit.core import errors
from flarekit.core.files import inputs_below, make_folder, sha256_of, write_atomically

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


def test_a_file_in_the_place_of_a_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(errors.OutputError, match="cannot be written.*check that the output"):
        write_atomically(tmp_path / "file" / "a.json", b"new")
    with pytest.raises(errors.OutputError, match="cannot be made.*name a folder"):
        make_folder(tmp_path / "file" / "b")
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_stopped_halfway_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.json", b"new")
    assert os.listdir(tmp_path) == []


def test_the_longest_name_a_file_can_have_is_written(tmp_path):
    path = tmp_path / f"{'x' * 248}.nii.gz"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_folder_that_is_there_already_is_fine(tmp_path):
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_sha256_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"content").hexdigest()


@pytest.mark.parametrize("error", ALL)
def test_every_error_stands_in_the_drawn_tree_with_its_exit_code(error):
    assert issubclass(error, errors.FlarekitError)
    assert errors.__doc__ is not None
    (line,) = [line for line in errors.__doc__.splitlines() if error.__name__ in line]
    assert str(error.exit_code) in line.split(error.__name__)[1]


def test_the_drawn_tree_is_the_class_tree():
    assert errors.__doc__ is not None
    above: list[str] = []
    drawn = {}
    for line in errors.__doc__.splitlines():
        name = next((each.__name__ for each in ALL if each.__name__ in line.split()), None)
        if name is not None:
            depth = line.index(name) // 4
            above[depth:] = [name]
            drawn[name] = above[depth - 1] if depth else "Exception"
    assert drawn == {each.__name__: each.__base__.__name__ for each in ALL}


def test_an_error_without_a_remedy_cannot_be_raised():
    with pytest.raises(TypeError, match="fix"):
        errors.FlarekitError("x.nii: is empty")


def test_an_error_says_what_happened_and_what_to_do():
    error = errors.InputError("x.nii: is empty", fix="download it again")
    assert str(error) == "x.nii: is empty (download it again)"


def test_a_writer_that_is_killed_leaves_nothing(tmp_path):
    code = f"""
import os, sys
from pathlib import Path
from flarekit.core import files
os.link = lambda *a, **k: os.kill(os.getpid(), 9)  # killed when all is written but the name
files.write_atomically(Path({str(tmp_path)!r}) / "mask.nii.gz", b"x" * 10_000_000)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_without_unnamed_files_a_temporary_name_does(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    write_atomically(tmp_path / "a", b"whole")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"whole"]


def test_a_file_gets_the_usual_permissions(tmp_path):
    write_atomically(tmp_path / "a", b"whole")
    (tmp_path / "b").write_bytes(b"whole")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_links_to_folders_are_followed_once_and_circles_end(tmp_path):
    real, tree = tmp_path / "real", tmp_path / "tree"
    for place in (real / "deep", tree / "own"):
        place.mkdir(parents=True)
        (place / "scan").touch()
    (tree / "a_link").symlink_to(tree / "own")
    (tree / "linked").symlink_to(real)
    (real / "circle").symlink_to(tree)
    (tree / "file").symlink_to(real / "deep" / "scan")
    (tree / "gone").symlink_to(tmp_path / "nowhere")
    found = [path.relative_to(tree).as_posix() for path in inputs_below(tree)]
    assert found == ["file", "gone", "linked/deep/scan", "own/scan"]


def test_a_folder_that_cannot_be_opened_is_told(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "scan").touch()
    scandir = os.scandir

    def refusing(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    faults = []
    assert inputs_below(tmp_path, faults) == [tmp_path / "scan"]
    assert faults == [f"{tmp_path / 'closed'}: cannot be read: Permission denied"]


def test_a_folder_that_goes_after_it_was_listed_is_told_and_the_rest_is_found(
    tmp_path, monkeypatch
):
    for place in (tmp_path / "goes", tmp_path / "stays"):
        place.mkdir()
        (place / "scan").touch()
    walk, faults = os.walk, []

    def removed_meanwhile(*arguments, **how):
        for listed in walk(*arguments, **how):
            if listed[0].endswith("goes"):
                shutil.rmtree(listed[0])
            yield listed

    monkeypatch.setattr("flarekit.core.files.os.walk", removed_meanwhile)
    assert inputs_below(tmp_path, faults) == [tmp_path / "stays" / "scan"]
    assert faults == [f"{tmp_path / 'goes'}: cannot be read: No such file or directory"]
