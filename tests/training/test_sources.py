"""Several datasets in one recipe, whole-body PETs, and CTs that are not what they should be."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from flarekit.core.errors import InputError
from flarekit.training.cases import case_ids, matches
from flarekit.training.fitting import check_fit
from flarekit.training.losses import MAYBE
from flarekit.training.other_ct import outline, with_other_ct
from flarekit.training.sources import training_pools
from flarekit.training.tables import OtherCtFacts
from tests.training.test_cases import write_dataset

AIR, BODY_MM = -1000, 8.0
PET = """[[predictor.channels]]
name = "PET"
intensity = { kind = "window", low_hu = 0, high_hu = 20, mean = 2, std = 3 }
"""
CT_TO_PET = (
    ("input_channels = 1", "input_channels = 2"),
    ("[predictor.grid]", f"{PET}\n[predictor.grid]"),
    ("liver = 1\nspleen = 3", "lesion = 1"),
    ('convention = "flare"', 'convention = "autopet"\nauxiliary = ["brain", "heart"]'),
    ("num_classes = 3", "num_classes = 4"),
)
BODIES = "{ folder = 'bodies', layout = 'wholebody_pet', share = %s, known_Z = { a = %s } }"


def pet_recipe(make_recipe, datasets, other_ct="{ copies = 1 }"):
    """Return a recipe of PET/CT with tables of datasets."""
    tables = f"batch = 1\ndatasets = [{datasets}]\nother_ct = {other_ct}"
    return make_recipe(*CT_TO_PET, ("batch = 1", tables))


def write_body(folder, name, *, ct=True, label=True, slices=24):
    """Write a PET of a cylinder with one hot place, in X, Y, Z."""
    folder.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-BODY_MM, -BODY_MM, BODY_MM, 1.0])
    suv = np.zeros((20, 20, slices), np.float32)
    suv[4:16, 4:16] = 0.8
    suv[8:11, 8:11, 6:9] = 9.0
    hu = np.where(suv > 0, 40, AIR).astype(np.int16)
    files = {"suv": suv}
    files |= {"ct": hu} if ct else {}
    files |= {"label": (suv > 5).astype(np.uint8)} if label else {}
    for kind, voxels in files.items():
        nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / f"{name}_{kind}.nii.gz")


def test_patterns_name_cases_of_a_patient(tmp_path):
    dataset = write_dataset(tmp_path / "d", ["P-003_1", "P-003_2", "P-013_1", "P-030_1", "STS_003"])
    assert case_ids(dataset, only=["P-??3_*"]) == ["P-003_1", "P-003_2", "P-013_1"]
    assert case_ids(dataset, without=["P-*"]) == ["STS_003"]
    assert not matches("STS_003b", ["STS_003"])


def test_every_dataset_gives_its_share_and_keeps_a_patient_out_of_all(tmp_path, make_recipe):
    for folder, ids in {
        "ct": ["case_a", "case_b", "case_v"],
        "crops": ["case_b", "case_c"],
    }.items():
        write_dataset(tmp_path / folder, ids)
    tables = "[{ folder = 'ct', share = 0.7 }, { folder = 'crops', share = 0.3 }]"
    recipe = make_recipe(("batch = 1", f"batch = 1\nvalidation = ['case_v']\ndatasets = {tables}"))
    pools = training_pools(recipe, tmp_path)
    found = [(pool.share, [case.case_id for case in pool.cases]) for pool in pools]
    assert found == [(0.7, ["case_a"]), (0.3, ["case_c"])]


def test_a_dataset_that_is_not_there_is_named(tmp_path, make_recipe):
    recipe = make_recipe(("batch = 1", "batch = 1\ndatasets = [{ folder = 'ct', share = 1.0 }]"))
    with pytest.raises(InputError, match="ct: holds no labelled cases"):
        training_pools(recipe, tmp_path)


def test_organs_of_a_real_body_are_never_punished_and_its_lesion_is_known(tmp_path, make_recipe):
    write_body(tmp_path / "bodies", "a")
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[0, 24]]"))
    (pool,) = training_pools(recipe, tmp_path)
    (case,) = pool.cases
    assert case.possible_K.tolist() == [True, False, True, True]
    assert np.count_nonzero(case.classes_ZYX == 1) == 27
    assert set(np.unique(case.classes_ZYX)) == {1, MAYBE}


def test_slices_with_a_lesion_that_nobody_labelled_are_left_out(tmp_path, make_recipe):
    write_body(tmp_path / "bodies", "a", label=False)
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[0, 5], [12, 24]]"))
    (pool,) = training_pools(recipe, tmp_path)
    assert [len(case.classes_ZYX) for case in pool.cases] == [5, 12]
    assert all(case.image_CZYX[1].max() < 1 for case in pool.cases)
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[30, 40]]"))
    with pytest.raises(InputError, match="has no slices"):
        training_pools(recipe, tmp_path)[0].cases[0]


def test_a_body_without_a_ct_gets_a_flat_one_inside_the_pet_s_outline(tmp_path, make_recipe):
    write_body(tmp_path / "bodies", "a", ct=False)
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[0, 24]]"), "{ copies = 2 }")
    (pool,) = training_pools(recipe, tmp_path)
    assert len(pool.cases) == 2
    for case in pool.cases:
        ct = case.image_CZYX[0].astype(np.float32)
        assert len(np.unique(ct)) == 2
        assert ct[12, 10, 10] > ct[12, 0, 0]
    first, second = (case.image_CZYX[0].max() for case in pool.cases)
    assert first != second


def test_copies_have_other_cts_and_the_first_keeps_its_own(tmp_path, make_recipe):
    write_body(tmp_path / "bodies", "a")
    other = "{ copies = 3, flat = 0.0, shifted = 1.0, shift_mm = 12.0, partial = 1.0 }"
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[0, 24]]"), other)
    (pool,) = training_pools(recipe, tmp_path)
    own, *others = pool.cases
    assert own.image_CZYX[0].max(axis=(1, 2)).min() > own.image_CZYX[0].min()
    for case in others:
        assert np.array_equal(case.image_CZYX[1], own.image_CZYX[1])
        there = (case.image_CZYX[0] > case.image_CZYX[0].min()).any(axis=(1, 2))
        assert 3 <= there.sum() <= 21


def test_every_second_copy_of_a_body_gets_lesions(tmp_path, make_recipe):
    write_body(tmp_path / "bodies", "a", slices=40)
    bodies = (BODIES % (1.0, "[[0, 40]]")).replace("known_Z", "added = 6, known_Z")
    recipe = pet_recipe(make_recipe, bodies, "{ copies = 4 }")
    (pool,) = training_pools(recipe, tmp_path)
    own, more, same, others = (np.count_nonzero(case.classes_ZYX == 1) for case in pool.cases)
    assert own == same == 27
    assert max(more, others) > 27


@pytest.mark.parametrize(("flat", "values"), [(1.0, 2), (0.0, 400)])
def test_a_flat_ct_is_drawn_as_often_as_told(tmp_path, make_recipe, flat, values):
    write_body(tmp_path / "bodies", "a")
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[0, 24]]"), f"{{ flat = {flat} }}")
    (pool,) = training_pools(recipe, tmp_path)
    (case,) = pool.cases
    noisy = case.image_CZYX.copy()
    noisy[0] += np.random.default_rng(0).normal(0, 0.3, noisy.shape[1:])
    noisy = type(case)(**{**vars(case), "image_CZYX": noisy})
    changed = with_other_ct(noisy, recipe, np.random.default_rng(1))
    found = len(np.unique(changed.image_CZYX[0]))
    assert found == values if flat else found > values


def test_an_outline_has_no_holes_and_no_islands():
    suv = np.zeros((4, 30, 30))
    suv[:, 5:25, 5:25] = 0.6
    suv[:, 12:16, 12:16] = 0.0  # a lung
    suv[:, 1, 28] = 0.6
    inside = outline(suv, (6.0, 6.0, 6.0), 0.15)
    assert inside[:, 14, 14].all()
    assert not inside[:, 1, 28].any()
    assert not inside[:, 0, 0].any()


def test_without_a_table_nothing_is_changed_but_a_missing_ct(tmp_path, make_recipe):
    write_body(tmp_path / "bodies", "a")
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[0, 24]]"))
    plain = recipe.training.model_copy(update={"other_ct": OtherCtFacts()})
    (case,) = training_pools(recipe, tmp_path)[0].cases
    same = type(recipe)(**{**vars(recipe), "training": plain})
    changed = with_other_ct(case, same, np.random.default_rng(0))
    assert np.array_equal(changed.image_CZYX, case.image_CZYX)


@pytest.mark.data
def test_the_real_datasets_give_cases_to_the_shipped_recipes(shared):
    from pathlib import Path

    from flarekit.training.recipe import read_recipe

    root = Path(__file__).parents[2] / "weights"
    recipe = read_recipe(root / "mamba_ahnet_lesion" / "recipe.toml")
    nodules = shared / "data" / "Dataset003_LungNodule"
    patients = {name.split("_")[0] for name in case_ids(nodules, only=recipe.training.validation)}
    assert len(patients) == 53
    assert all(name.endswith("3") for name in patients)
    body_recipe = read_recipe(root / "att_umamba_petct" / "recipe.toml")
    only_bodies = body_recipe.training.model_copy(
        update={"datasets": body_recipe.training.datasets[1:], "synthesis": None}
    )
    recipe = type(body_recipe)(**{**vars(body_recipe), "training": only_bodies})
    (pool,) = training_pools(recipe, shared / "data")
    copies = only_bodies.other_ct.copies
    as_they_are = [pool.cases[index] for index in range(0, len(pool.cases), copies)]
    assert [case.case_id for case in as_they_are] == ["HN-CHUS-052", "HN-CHUS-052", "STS_001"]
    assert [1 in case.classes_ZYX for case in as_they_are] == [False, False, True]
    assert 1 in pool.cases[1].classes_ZYX  # added to the second copy


def test_slices_of_a_body_that_is_not_there_are_refused(tmp_path, make_recipe):
    write_body(tmp_path / "bodies", "b")
    recipe = pet_recipe(make_recipe, BODIES % (1.0, "[[0, 24]]"))
    with pytest.raises(InputError, match=r"known_Z: no case a in .*bodies"):
        check_fit(recipe, tmp_path)


@pytest.mark.parametrize("told", ["possible = { chest = ['liver'] }", "part = { chest = [0, 1] }"])
def test_what_is_said_of_negatives_that_are_not_there_is_refused(tmp_path, make_recipe, told):
    write_dataset(tmp_path / "ct", ["case_a"])
    write_dataset(tmp_path / "elsewhere", ["arm"])
    table = f"[training.negatives]\nshare = 0.5\n{told}\n\n[provenance]"
    recipe = make_recipe(("[provenance]", table))
    with pytest.raises(InputError, match="no scan among the negatives is named chest"):
        training_pools(recipe, tmp_path / "ct", negatives=[tmp_path / "elsewhere"])
    write_dataset(tmp_path / "elsewhere", ["chest_1"])
    assert len(training_pools(recipe, tmp_path / "ct", negatives=[tmp_path / "elsewhere"])) == 2
