"""Validation cases laid out as the organiser does, and false components of a real body."""

from __future__ import annotations

import nibabel
import numpy as np
from accuracy_real_body import ct_of, describe
from accuracy_validation import cases_of, voi_of

from flarekit.training.recipe import read_recipe
from tests.training.conftest import RECIPE


def test_the_validation_cases_of_every_dataset_are_found(tmp_path):
    tables = "datasets = [{ folder = 'a', share = 0.5 }, { folder = 'b', share = 0.5 }]"
    text = RECIPE.replace("batch = 1", f"batch = 1\nvalidation = ['P_??3']\n{tables}")
    (tmp_path / "recipe.toml").write_text(text)
    for folder, names in {"a": ["P_003", "P_004"], "b": ["P_003", "P_013"]}.items():
        (tmp_path / folder / "labelsTr").mkdir(parents=True)
        for name in names:
            (tmp_path / folder / "labelsTr" / f"{name}.nii.gz").touch()
    recipe = read_recipe(tmp_path / "recipe.toml")
    found = [(folder.name, name) for folder, name in cases_of(recipe, tmp_path, "validation", 1)]
    assert found == [("a", "P_003"), ("b", "P_003"), ("b", "P_013")]


def test_a_click_is_in_the_middle_or_anywhere_in_the_lesion(tmp_path):
    lesion = np.zeros((30, 28, 8), np.uint8)
    lesion[10:20, 12:18, 2:6] = 1
    for folder, voxels in {"imagesTr": lesion * 100 - 50, "labelsTr": lesion}.items():
        (tmp_path / folder).mkdir()
        name = "c_0000.nii.gz" if folder == "imagesTr" else "c.nii.gz"
        image = nibabel.Nifti1Image(voxels.astype(np.int16), np.diag([-1.0, -1.0, 3.0, 1.0]))
        nibabel.save(image, tmp_path / folder / name)
    middle, other = (voi_of(tmp_path, "c", click).lesion_ZYX for click in ("middle", "anywhere"))
    assert middle.shape == (128, 256, 256)
    assert middle.sum() == other.sum() == lesion.sum()
    assert middle[64, 128, 128] == other[64, 128, 128] == 1
    where = np.argwhere(middle)
    assert np.abs((where.min(axis=0) + where.max(axis=0)) / 2 - [64, 128, 128]).max() <= 1


def test_false_components_are_told_by_size_and_place():
    truth = np.zeros((20, 20, 20), bool)
    truth[2:6, 2:6, 2:6] = True
    mask = truth.copy()
    mask[1, 2:6, 2:6] = True  # touches the lesion: not false
    mask[15:19, 10:14, 10:14] = True
    mask[10, 0, 0] = True
    suv = np.where(mask, 5.0, 1.0)
    total, *lines = describe(mask, truth, suv, (5.0, 5.0, 5.0))
    assert total == "false positives: 8.1 ml in 2 components"
    assert lines == ["     8.0 ml,    18 mm below the top, SUV to 5.0"]


def test_a_flat_ct_is_that_inside_the_outline(tmp_path):
    suv = np.zeros((6, 20, 20))
    suv[:, 5:15, 5:15] = 1.0
    hu = ct_of(tmp_path, "c", suv, (4.0, 4.0, 4.0), 20)
    assert set(np.unique(hu)) == {-1000, 20}
    assert (hu[3, 8:12, 8:12] == 20).all()
