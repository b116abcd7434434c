from __future__ import annotations

import numpy as np
import pytest
from accuracy_cases import oriented, write_mha
from accuracy_vois import click_in, cut_voi, lesion_vois

from flarekit import conventions
from flarekit.conventions.uls23 import SHAPE_ZYX
from flarekit.core.errors import InputError
from flarekit.core.records import RunRecord
from flarekit.evaluation.masks import read_mask

MIDDLE = (64, 128, 128)


def test_the_clicked_voxel_comes_to_the_middle_and_outside_is_the_lowest_value():
    rng = np.random.default_rng(0)
    hu = rng.integers(-500, 300, (40, 300, 60))
    lesion = np.zeros(hu.shape, np.uint8)
    lesion[5, 150, 30] = 1
    cut, mask = cut_voi(hu, lesion, (5, 150, 30))
    assert cut.shape == mask.shape == SHAPE_ZYX
    assert np.argwhere(mask).tolist() == [list(MIDDLE)]
    assert cut[MIDDLE] == hu[5, 150, 30]
    assert np.array_equal(cut[59:99, :, 98:158], hu[:, 22:278])
    outside = np.ones(SHAPE_ZYX, bool)
    outside[59:99, :, 98:158] = False
    assert (cut[outside] == hu[:, 22:278].min()).all()


def test_a_click_lies_in_the_largest_lesion_even_where_its_middle_is_hollow():
    ring = np.zeros((5, 9, 9), bool)
    ring[2, 1:8, 1:8] = True
    ring[2, 2:7, 2:7] = False
    ring[0, 0, 0] = True
    click = click_in(ring)
    assert ring[click]
    assert click != (0, 0, 0)


@pytest.fixture
def vois(tmp_path, write_scan):
    """Return a folder with a volume of interest whose axes run to the right and to the front."""
    folder = tmp_path / "vois"
    folder.mkdir()
    lesion = np.zeros((8, 20, 20), np.int16)
    lesion[4, 10, 10] = 1
    affine = np.diag([0.7, 0.7, 2.0, 1.0])
    write_scan(folder / "nodule_ct.nii.gz", lesion * 50 - 800, affine)
    write_scan(folder / "nodule_mask.nii.gz", lesion, affine)
    return folder


def run_record(mask):
    from flarekit.core.budget import Budget
    from flarekit.core.records import CaseRecord

    case = CaseRecord(case_id="lesions-0000", mask=mask)
    words = dict.fromkeys(
        ("predictor", "convention", "mode", "engine", "device", "device_name", "precision"), ""
    )
    return RunRecord(**words, budget=Budget(), seconds={}, wall_s=0.0, cases=(case,))


def test_uls23_finds_the_lesions_at_the_middle_with_their_spacing(tmp_path, vois, make_dataset):
    (tmp_path / "trial").mkdir()
    dataset = make_dataset(affine=np.diag([2.0, 2.0, 3.0, 1.0]))
    trial = lesion_vois(tmp_path / "trial", dataset=dataset, held_out=["case_b"], vois=vois)
    assert trial.groups == {"nodule": "lesion VOIs", "case_b": dataset.name}
    convention = conventions.get("uls23", labels={"lesion": 1})
    cases = convention.find_cases(trial.inputs, 1)
    assert [case.spacing_mm_ZYX for case in cases] == [
        pytest.approx((2.0, 0.7, 0.7)),
        (3.0, 2.0, 2.0),
    ]
    (volume,) = convention.read_case(cases[0])
    assert volume.voxels_ZYX[tuple(n // 2 for n in volume.voxels_ZYX.shape)] == -750
    for name in trial.groups:
        truth = read_mask(trial.truths / f"{name}.mha").values_ZYX
        assert truth[MIDDLE] == 1


def test_a_lesion_of_a_dataset_is_cut_whole(tmp_path, make_dataset):
    (tmp_path / "trial").mkdir()
    dataset = make_dataset(affine=np.diag([2.0, 2.0, 3.0, 1.0]))
    trial = lesion_vois(tmp_path / "trial", dataset=dataset, held_out=["case_b"], vois=None)
    stored = read_mask(dataset / "labelsTr" / "case_b.nii.gz")
    cut = read_mask(trial.truths / "case_b.mha")
    assert cut.values_ZYX.sum() * cut.voxel_ml == pytest.approx(
        stored.values_ZYX.sum() * stored.voxel_ml
    )


def test_masks_of_a_run_come_apart_in_the_order_of_the_stack(tmp_path, vois, make_dataset):
    (tmp_path / "trial").mkdir()
    dataset = make_dataset()
    trial = lesion_vois(tmp_path / "trial", dataset=dataset, held_out=["case_b"], vois=vois)
    stack = np.zeros((256, 256, 256), np.uint8)
    stack[128 + 7, 3, 4] = 1
    mask = trial.outputs / "images" / "ct-binary-uls" / "lesions.mha"
    write_mha(mask, stack, (1.0, 1.0, 1.0))
    folder = trial.masks(run_record(mask))
    assert not read_mask(folder / "nodule.mha").values_ZYX.any()
    second, spacing_mm = oriented(folder / "case_b.mha")
    assert np.argwhere(second).tolist() == [[7, 3, 4]]
    assert spacing_mm == (2.0, 2.0, 2.0)


def test_without_any_lesion_it_says_what_to_give(tmp_path):
    with pytest.raises(InputError, match="no lesions"):
        lesion_vois(tmp_path, dataset=None, held_out=[], vois=None)
