from __future__ import annotations

import os
from pathlib import Path

import pytest

from flarekit.core.apart import keep_apart, keep_files
from flarekit.core.errors import UsageError

MASK = Path("masks", "a.nii.gz")


@pytest.fixture
def folders(tmp_path):
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    (inputs / "masks").mkdir(parents=True)
    (inputs / MASK).write_bytes(b"precious")
    outputs.mkdir()
    return inputs, outputs


def test_two_folders_are_fine_also_where_the_output_is_new_or_holds_older_masks(folders):
    inputs, outputs = folders
    keep_apart(inputs, outputs, [MASK])
    keep_apart(inputs, outputs / "new", [MASK])
    (outputs / "masks").mkdir()
    (outputs / MASK).write_bytes(b"older")
    keep_apart(inputs, outputs, [MASK])
    keep_apart(inputs / "none", outputs, [MASK])


def test_a_new_file_within_the_input_folder_replaces_nothing(folders):
    keep_apart(folders[0], folders[0] / "new", [MASK])


def test_the_input_folder_is_no_output_folder_however_it_is_spelled(folders, monkeypatch):
    inputs, outputs = folders
    link = outputs / "link"
    link.symlink_to(inputs)
    monkeypatch.chdir(inputs)
    for spelled in (inputs, Path(), link, outputs / ".." / "in", inputs / "masks" / ".."):
        with pytest.raises(UsageError, match="is the input folder"):
            keep_apart(inputs, spelled, [])
        with pytest.raises(UsageError, match="is the input folder"):
            keep_apart(spelled, inputs, [])


def test_a_file_of_the_input_folder_is_not_replaced_however_it_is_reached(folders):
    inputs, outputs = folders
    (outputs / "masks").symlink_to(inputs / "masks")
    with pytest.raises(UsageError, match=r"a.nii.gz: is a file of the input folder"):
        keep_apart(inputs, outputs, [Path("other"), MASK])
    (outputs / "masks").unlink()
    (outputs / "masks").mkdir()
    (outputs / MASK).symlink_to(inputs / MASK)
    with pytest.raises(UsageError, match="would be replaced"):
        keep_apart(inputs, outputs, [MASK])
    (outputs / MASK).unlink()
    os.link(inputs / MASK, outputs / MASK)
    with pytest.raises(UsageError, match="would be replaced"):
        keep_apart(inputs, outputs, [MASK])
    with pytest.raises(UsageError, match="would be replaced"):
        keep_apart(inputs, inputs / "masks", [Path("a.nii.gz")])


def test_a_file_that_is_read_is_not_written_however_it_is_spelled(folders):
    inputs, outputs = folders
    (outputs / "link").symlink_to(inputs / MASK)
    for spelled in (inputs / MASK, inputs / "masks" / ".." / MASK, outputs / "link"):
        with pytest.raises(UsageError, match="is an input and would be replaced"):
            keep_files([inputs / MASK], [outputs / "new.json", spelled])
    keep_files([inputs / MASK, inputs / "none"], [outputs / "new.json", inputs / "scores.json"])
