"""A folder that another convention would read is not only refused: its convention is named."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.core.errors import InputError
from flarekit.segmentation.inputs import cases_in
from flarekit.verification.trials import TaskFacts


@pytest.mark.parametrize("name", ["flare", "autopet", "uls23"])
def test_a_folder_is_told_to_be_another_convention_s(name, tmp_path, monkeypatch):
    if name == "uls23":
        monkeypatch.setattr("flarekit.conventions.uls23.samples.SHAPE_ZYX", (4, 8, 8))
        monkeypatch.setattr("flarekit.conventions.uls23.layout.SHAPE_ZYX", (4, 8, 8))
        folder = tmp_path / "images" / "stacked-3d-ct-lesion-volumes"
        folder.mkdir(parents=True)
        stack = SimpleITK.GetImageFromArray(np.zeros((4, 8, 8), np.int16))
        SimpleITK.WriteImage(stack, str(folder / "a.mha"))
        (tmp_path / "stacked-3d-volumetric-spacings.json").write_text("[[1, 1, 1]]")
    else:
        conventions.checks_of(name).write_sample(tmp_path, TaskFacts(values=frozenset({0})))
    channels = 2 if name == "autopet" else 1
    other = "autopet" if name == "flare" else "flare"
    with (
        pytest.raises(InputError, match=f"laid out as {name} wants it") as caught,
        cases_in(other, conventions.get(other, labels={"lesion": 1}), tmp_path, channels),
    ):
        pass
    assert caught.value.fix.startswith(f"add --convention {name}, or else ")


def test_nothing_is_named_where_no_convention_finds_anything(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    assert conventions.fitting(tmp_path, 1, but="dicom") == []
    with (
        pytest.raises(InputError, match="no file named") as caught,
        cases_in("flare", conventions.get("flare"), tmp_path, 1),
    ):
        pass
    assert "--convention" not in caught.value.fix


def test_the_convention_that_found_nothing_is_not_named_again(tmp_path):
    conventions.checks_of("autopet").write_sample(tmp_path, TaskFacts(values=frozenset({0})))
    second_task = conventions.get("autopet", {"edition": 4, "task": 2}, labels={"lesion": 1})
    with (
        pytest.raises(InputError) as caught,
        cases_in("autopet", second_task, tmp_path, 2),
    ):
        pass
    assert "--convention" not in caught.value.fix


def test_what_another_convention_stumbles_over_takes_nothing_away(tmp_path, monkeypatch):
    def stumble(*_):
        raise PermissionError("no")

    monkeypatch.setattr("flarekit.conventions.dicom.layout.find_series", stumble)
    with (
        pytest.raises(InputError, match="no file named"),
        cases_in("flare", conventions.get("flare"), tmp_path, 1),
    ):
        pass
