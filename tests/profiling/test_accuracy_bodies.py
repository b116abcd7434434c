from __future__ import annotations

import numpy as np
import pytest
from accuracy_bodies import largest_false_ml, unseen_maps, volumes_ml, worst_of

from flarekit.core.errors import InputError
from flarekit.synthesis import ORGANS
from flarekit.training.recipe import read_recipe
from flarekit.training.sources import synthetic_cases
from flarekit.training.tables import SynthesisFacts

FACTS = SynthesisFacts(kind="wholebody_petct", seeds=(0, 3), share=0.5)
SPACING = (5.0, 10.0, 10.0)  # half a millilitre a voxel


def make_maps(folder, names):
    folder.mkdir()
    for name in names:
        (folder / f"{name}.nii.gz").touch()
    return folder


def test_maps_of_patients_that_training_saw_are_left_out(tmp_path):
    material = make_maps(tmp_path / "maps", ["a_1_x", "a_2_x", "b_1_x", "b_1_y", "b_2_x"])
    assert [path.name for path in unseen_maps(material, FACTS)] == ["b_2_x.nii.gz"]


def test_maps_that_a_recipe_holds_out_are_unseen(tmp_path, make_predictor):
    material = make_maps(tmp_path / "maps", [f"c_{k}_x" for k in range(7)])
    facts = FACTS.model_copy(update={"held_out": ("c_0", "c_4"), "seeds": (0, 20)})
    assert [path.name[:3] for path in unseen_maps(material, facts)] == ["c_0", "c_4"]
    predictor = make_predictor(
        "autopet", {"lesion": 1}, 2, "[training]\nheld_out = []\ntile_ZYX = [16, 16, 16]\n"
    )
    recipe = read_recipe(predictor.folder / "recipe.toml")
    used = {maker.path.name[:3] for maker in synthetic_cases(recipe, facts, [material]).makers}
    assert used == {"c_1", "c_2", "c_3", "c_5", "c_6"}


def test_training_uses_none_of_the_unseen_maps(tmp_path, make_predictor):
    predictor = make_predictor(
        "autopet", {"lesion": 1}, 2, "[training]\nheld_out = []\ntile_ZYX = [16, 16, 16]\n"
    )
    recipe = read_recipe(predictor.folder / "recipe.toml")
    material = make_maps(tmp_path / "maps", [f"c_{k}_x" for k in range(7)])
    used = {maker.path for maker in synthetic_cases(recipe, FACTS, [material]).makers}
    unseen = set(unseen_maps(material, FACTS))
    assert len(used) == 3
    assert used | unseen == set(material.iterdir())
    assert not used & unseen


def test_material_without_an_unseen_map_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no organ map that training did not use"):
        unseen_maps(make_maps(tmp_path / "maps", ["a_1_x", "a_2_x"]), FACTS)


@pytest.fixture
def body():
    """Return an empty prediction and truth, and organs with a bladder of 4 x 4 x 4 voxels."""
    organs = np.zeros((20, 20, 20), np.uint8)
    organs[8:12, 8:12, 8:12] = ORGANS["bladder"]
    return np.zeros(organs.shape, bool), np.zeros(organs.shape, bool), organs


def test_the_largest_component_in_an_organ_counts_not_their_sum(body):
    predicted, truth, organs = body
    predicted[8:10, 8:10, 8:10] = True
    predicted[11, 11, 11] = True
    found = largest_false_ml(predicted, truth, organs, SPACING)
    assert found == {"brain": 0.0, "heart": 0.0, "bladder": 4.0}


def test_uptake_spilt_just_over_the_border_counts_and_far_away_does_not(body):
    predicted, truth, organs = body
    predicted[7, 9, 9] = True  # 5 mm below
    predicted[6, 9, 9] = True  # 10 mm below
    predicted[9, 7, 9] = True  # 10 mm in front
    assert largest_false_ml(predicted, truth, organs, SPACING)["bladder"] == 0.5


def test_true_lesions_are_no_false_positives_but_what_is_attached_is(body):
    predicted, truth, organs = body
    predicted[8:12, 8, 8] = truth[8:10, 8, 8] = True
    assert largest_false_ml(predicted, truth, organs, SPACING)["bladder"] == 1.0


def test_volumes_and_worst_cases_are_per_organ(body):
    assert volumes_ml(body[2], SPACING) == {"brain": 0.0, "heart": 0.0, "bladder": 32.0}
    cases = {
        "one": {"brain": 1.0, "heart": 0.0, "bladder": 3.0},
        "two": {"brain": 2.0, "heart": 0.0, "bladder": 0.5},
    }
    assert worst_of(cases) == {"brain": 2.0, "heart": 0.0, "bladder": 3.0}
