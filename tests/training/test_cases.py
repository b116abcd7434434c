from __future__ import annotations

import nibabel
import numpy as np
import pytest

from flarekit.core.errors import InputError, PredictorError
from flarekit.training.cases import on_grid, phantom_cases, real_cases, volume_of
from flarekit.training.losses import MAYBE
from flarekit.training.sources import training_pools


def write_dataset(folder, ids, *, channels=1, shape=(20, 24, 16), labels=None):
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    rng = np.random.default_rng(0)
    for case_id in ids:
        voxels = np.zeros(shape, np.uint8)
        voxels[4:10, 4:10, 4:10] = 1
        voxels[12:16, 12:16, 4:10] = 3
        voxels[0, 0, 0] = 7
        for channel in range(channels):
            scan = (100 * (voxels > 0) + 1000 * channel + rng.normal(0, 5, shape)).astype(np.int16)
            path = folder / "imagesTr" / f"{case_id}_{channel:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(scan, affine), path)
        wanted = voxels if labels is None else labels
        nibabel.save(nibabel.Nifti1Image(wanted, affine), folder / "labelsTr" / f"{case_id}.nii.gz")
    return folder


def test_cases_come_on_the_network_s_grid_with_classes_for_values(tmp_path, recipe):
    cases = real_cases(write_dataset(tmp_path / "d", ["case_a", "case_b"]), recipe)
    (case,) = cases
    assert case.case_id == "case_a"  # the other is held out
    assert case.image_CZYX.shape == (1, 8, 12, 10)
    assert case.image_CZYX.dtype == np.float16
    assert set(np.unique(case.classes_ZYX)) == {0, 1, 2}  # spleen's 3 is class 2, 7 is nothing
    assert case.spacing_mm_ZYX == pytest.approx((8, 8, 8))
    assert not case.possible_K.any()


def test_every_channel_is_read_in_its_place(tmp_path, make_recipe):
    second = '[[predictor.channels]]\nname = "PET"\nintensity = { kind = "scale", divisor = 100 }\n'
    recipe = make_recipe(
        ("input_channels = 1", "input_channels = 2"),
        ("[predictor.grid]", f"{second}\n[predictor.grid]"),
    )
    (case,) = real_cases(write_dataset(tmp_path / "d", ["a"], channels=2), recipe)
    assert case.image_CZYX.shape[0] == 2
    assert 9.5 < float(case.image_CZYX[1].mean()) < 10.5


def test_a_missing_channel_is_named(tmp_path, recipe):
    dataset = write_dataset(tmp_path / "d", ["a"])
    (dataset / "imagesTr" / "a_0000.nii.gz").unlink()
    with pytest.raises(InputError, match=r"a_0000\.nii\.gz"):
        real_cases(dataset, recipe)


def test_labels_on_another_grid_are_refused(tmp_path, recipe):
    dataset = write_dataset(tmp_path / "d", ["a"], labels=np.zeros((5, 5, 5), np.uint8))
    with pytest.raises(InputError, match="another grid"):
        list(real_cases(dataset, recipe))


def test_a_folder_without_cases_is_refused(tmp_path, recipe):
    with pytest.raises(InputError, match="no labelled cases"):
        real_cases(tmp_path, recipe)


def scan_of(labels, spacing=8.0):
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    return volume_of(labels.astype(np.float32) * 50, affine, "scan")


def test_background_near_the_anchor_may_be_an_unlabelled_organ(make_recipe):
    recipe = make_recipe(
        ("batch = 1", 'unlabelled = ["spleen"]\nnear = "liver"\nnear_mm = 17\nbatch = 1')
    )
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[8, 8, 8] = 1
    case = on_grid("c", [scan_of(labels)], labels, recipe, unlabelled=recipe.unlabelled_classes)
    assert case.possible_K.tolist() == [True, False, True]
    assert case.classes_ZYX[8, 8, 8] == 1
    assert case.classes_ZYX[8, 8, 10] == MAYBE  # 16 mm
    assert case.classes_ZYX[8, 8, 11] == 0  # 24 mm
    assert MAYBE not in case.centres
    whole = on_grid("c", [scan_of(labels)], labels, recipe, unlabelled=())
    assert MAYBE not in whole.classes_ZYX


def test_without_an_anchor_all_background_may_be_unlabelled(make_recipe):
    recipe = make_recipe(("batch = 1", 'unlabelled = ["spleen"]\nbatch = 1'))
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[8] = 1
    case = on_grid("c", [scan_of(labels)], labels, recipe, unlabelled=recipe.unlabelled_classes)
    assert set(np.unique(case.classes_ZYX)) == {1, MAYBE}


def test_a_value_that_stands_for_an_auxiliary_class_means_nothing_in_real_labels(make_recipe):
    recipe = make_recipe(
        ("num_classes = 3", "num_classes = 4"),
        ('convention = "flare"', 'convention = "flare"\nauxiliary = ["heart"]'),
    )
    labels = np.zeros((16, 16, 16), np.uint8)
    labels[4], labels[8] = 1, 255
    real = on_grid("c", [scan_of(labels)], labels, recipe, unlabelled=recipe.unlabelled_classes)
    made = on_grid("c", [scan_of(labels)], labels, recipe, unlabelled=())
    assert set(np.unique(real.classes_ZYX)) == {1, MAYBE}
    assert set(np.unique(made.classes_ZYX)) == {0, 1, 3}


def test_the_spacing_that_fit_becomes_is_that_of_what_the_crop_left(make_recipe):
    recipe = make_recipe(
        ("spacing_mm_ZYX = [8.0, 8.0, 8.0]", 'spacing_mm_ZYX = ["scan", "fit", "fit"]'),
        ("[predictor.grid]", "[predictor.crop]\nthreshold = 10\nmargin_mm = 0\n\n[predictor.grid]"),
    )
    labels = np.zeros((10, 60, 60), np.uint8)
    labels[:, 10:50, 20:40] = 1
    case = on_grid("c", [scan_of(labels, 2.0)], labels, recipe, unlabelled=())
    z, y, x = case.spacing_mm_ZYX
    assert z == pytest.approx(2)
    assert case.classes_ZYX.shape[1:] == (16, 16)
    seen_mm = [
        np.ptp(np.flatnonzero((case.classes_ZYX == 1).any(axis=axes))) + 1
        for axes in ((0, 2), (0, 1))
    ]
    assert seen_mm[0] * y == pytest.approx(80, abs=2 * y)
    assert seen_mm[1] * x == pytest.approx(40, abs=2 * x)


def test_phantoms_are_made_only_when_they_are_drawn(make_recipe, monkeypatch):
    recipe = make_recipe(("batch = 1", "phantom_seeds = [1000, 1003]\nbatch = 1"))
    made = []

    def phantom(seed):
        made.append(seed)
        labels = np.zeros((8, 8, 8), np.uint8)
        labels[2:5] = 1
        return type("P", (), {"hu_ZYX": labels * 50, "labels_ZYX": labels, "affine": np.eye(4)})

    monkeypatch.setattr("flarekit.phantom.abdomen_phantom", phantom)
    cases = phantom_cases(recipe)
    assert len(cases) == 3
    assert made == []
    assert cases[1] is cases[1]
    assert made == [1001]


def test_pools_have_the_shares_of_the_recipe(tmp_path, make_recipe):
    recipe = make_recipe(
        ("batch = 1", "phantom_seeds = [1000, 1002]\nphantom_share = 0.25\nbatch = 1")
    )
    pools = training_pools(recipe, write_dataset(tmp_path / "d", ["a"]))
    assert [(len(pool.cases), pool.share) for pool in pools] == [(2, 0.25), (1, 0.75)]


ONE_LABEL = (
    ("liver = 1\nspleen = 3", "lesion = 1"),
    ("num_classes = 3", "num_classes = 2"),
)


def test_synthetic_lesions_need_material_and_come_from_it(tmp_path, make_recipe):
    recipe = make_recipe(
        *ONE_LABEL,
        (
            "batch = 1",
            'synthesis = { kind = "ct_lesions", seeds = [0, 3], share = 1.0 }\nbatch = 1',
        ),
    )
    with pytest.raises(InputError, match="--material"):
        training_pools(recipe, tmp_path)
    folder = tmp_path / "cts"
    folder.mkdir()
    scan = np.full((60, 60, 30), 40, np.int16)
    scan[:4] = scan[-4:] = scan[:, :4] = scan[:, -4:] = -1000
    affine = np.diag([-3.0, -3.0, 4.0, 1.0])
    for name in ("one.nii.gz", "one_mask.nii.gz", "case_b.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(scan, affine), folder / name)
    (pool,) = training_pools(recipe, tmp_path, [folder])
    assert len(pool.cases) == 3
    case = pool.cases[2]
    assert case.case_id == "one.nii.gz-lesion-2"  # not the mask, not what is held out
    assert 1 in case.centres
    middle = np.array(case.classes_ZYX.shape) / 2
    assert np.abs(case.centres[1].mean(axis=0) + 0.5 - middle).max() < 3


def test_synthetic_bodies_are_made_on_the_network_s_grid(tmp_path, make_recipe):
    second = '[[predictor.channels]]\nname = "PET"\nintensity = { kind = "scale", divisor = 1 }\n'
    recipe = make_recipe(
        *ONE_LABEL,
        ("num_classes = 2", "num_classes = 4"),
        ("input_channels = 1", "input_channels = 2"),
        ("[predictor.grid]", f"{second}\n[predictor.grid]"),
        ('convention = "flare"', 'convention = "flare"\nauxiliary = ["liver", "bladder"]'),
        (
            "batch = 1",
            'synthesis = { kind = "wholebody_petct", seeds = [4, 5], share = 1.0 }\nbatch = 1',
        ),
    )
    organs = np.zeros((90, 80, 100), np.uint8)
    organs[30:45, 30:50, 55:75] = organs[50:65, 30:50, 55:75] = 5
    organs[32:46, 30:52, 42:55] = 3
    organs[44:52, 30:36, 15:20] = 4
    path = tmp_path / "organs.nii.gz"
    nibabel.save(nibabel.Nifti1Image(organs, np.diag([-4.0, -4.0, 4.0, 1.0])), path)
    (pool,) = training_pools(recipe, tmp_path, [tmp_path])
    case = pool.cases[0]
    assert case.image_CZYX.shape[0] == 2
    assert case.image_CZYX.shape[1] == 50
    assert case.spacing_mm_ZYX == pytest.approx((8, 8, 8), rel=0.02)
    assert float(case.image_CZYX[1].max()) > 1
    assert set(np.unique(case.classes_ZYX)) <= {0, 1, 2, 3}
    liver, bladder = case.centres[2].mean(axis=0), case.centres[3].mean(axis=0)
    assert liver == pytest.approx([24, 20, 19], abs=1.5)
    assert bladder[0] < liver[0]
    assert not case.possible_K.any()


def test_neighbours_are_seen_and_are_background(tmp_path, make_recipe):
    recipe = make_recipe(
        ("spleen = 3\n", ""),
        ("num_classes = 3", "num_classes = 2"),
        ("batch = 1", "batch = 1\nneighbours = { spleen = 3, kidney = 2 }"),
    )
    (case,) = real_cases(write_dataset(tmp_path / "d", ["case_a"]), recipe)
    assert set(np.unique(case.classes_ZYX)) == {0, 1}
    assert recipe.organ_names == ("background", "liver", "spleen", "kidney")
    assert set(case.centres) == {1, 2}  # no kidney in it
    assert (case.classes_ZYX[tuple(case.centres[2].T)] == 0).all()


def test_cases_on_their_scan_s_grid_keep_its_spacing(tmp_path, make_recipe):
    recipe = make_recipe(("batch = 1", 'batch = 1\ncase_grid = "scan"'))
    (case,) = real_cases(write_dataset(tmp_path / "d", ["case_a"]), recipe)
    assert case.image_CZYX.shape == (1, 16, 24, 20)
    assert case.spacing_mm_ZYX == pytest.approx((4, 4, 4))


def test_validation_cases_are_not_trained_on(tmp_path, make_recipe):
    recipe = make_recipe(("batch = 1", 'batch = 1\nvalidation = ["case_c"]'))
    cases = real_cases(write_dataset(tmp_path / "d", ["case_a", "case_b", "case_c"]), recipe)
    assert [case.case_id for case in cases] == ["case_a"]


def test_cases_that_are_labelled_in_part_say_so_by_their_names(tmp_path, make_recipe):
    labels = np.zeros((20, 24, 16), np.uint8)
    labels[4:8, 4:8, 4:8] = 1
    labels[12:16, 12:16, 4:8] = 3
    write_dataset(tmp_path, ["liver_a", "full_a", "none_a"], labels=labels)
    recipe = make_recipe(
        (
            "[provenance]",
            "[training.labelled]\n"
            '"liver_*" = ["liver"]\n"none_*" = []\n"*" = ["liver", "spleen"]\n\n[provenance]',
        )
    )
    cases = {case.case_id: case for case in real_cases(tmp_path, recipe)}
    assert cases["full_a"].possible_K.tolist() == [False] * 3
    assert cases["liver_a"].possible_K.tolist() == [True, False, True]
    assert set(np.unique(cases["liver_a"].classes_ZYX)) == {1, MAYBE}
    assert cases["none_a"].possible_K.tolist() == [True] * 3
    assert set(np.unique(cases["none_a"].classes_ZYX)) == {MAYBE}
    assert set(np.unique(cases["full_a"].classes_ZYX)) == {0, 1, 2}


def test_labels_that_a_set_of_cases_cannot_have_are_refused(make_recipe):
    with pytest.raises(PredictorError, match="unknown labels kidney"):
        make_recipe(("[provenance]", '[training.labelled]\n"a*" = ["kidney"]\n\n[provenance]'))
