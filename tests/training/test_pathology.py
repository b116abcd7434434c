from __future__ import annotations

import numpy as np
import pytest
import torch

from flarekit.core.channels import Window
from flarekit.core.errors import PredictorError
from flarekit.training.augment import place, sample
from flarekit.training.losses import MAYBE
from flarekit.training.pathology import change_organs, reshape_organ
from flarekit.training.samples import draw_sample
from flarekit.training.tables import AugmentationFacts, OrganFacts
from tests.training.conftest import make_case

WINDOW = Window(kind="window", low_hu=-125, high_hu=275, mean=50, std=80)
NAMES = ("background", "liver", "spleen")
MM = (2.0, 2.0, 2.0)
STILL = AugmentationFacts(rotation_deg_ZYX=(0, 0, 0), scale=0, intensity=0)


def two_balls():
    """A liver of radius 16 mm beside a spleen of radius 10 mm, in fat."""
    z, y, x = np.meshgrid(*[np.arange(40) * 2.0] * 3, indexing="ij")
    classes = np.zeros((40, 40, 40), np.uint8)
    classes[(z - 40) ** 2 + (y - 40) ** 2 + (x - 26) ** 2 < 16**2] = 1
    classes[(z - 40) ** 2 + (y - 40) ** 2 + (x - 58) ** 2 < 10**2] = 2
    hu = np.select([classes == 1, classes == 2], [110.0, 130.0], -100.0)
    return hu, classes


def reshaped(facts, seed):
    hu, classes = two_balls()
    case = make_case(hu[None], classes, spacing_mm=MM)
    rng = np.random.default_rng(seed)
    middle = np.array([39.0, 39.0, 39.0])
    positions = place((40, 40, 40), MM, middle, STILL, rng, torch.device("cpu"))
    positions = reshape_organ(positions, case.centres, MM, facts, NAMES, rng)
    image, moved = sample(
        torch.from_numpy(hu[None].astype(np.float32)),
        torch.from_numpy(classes),
        positions,
        MM,
        torch.tensor([-100.0]),
    )
    return classes, positions, image[0], moved


def changed(facts, seed, *, classes=None, hu=None):
    usual, labels = two_balls()
    labels = torch.from_numpy(labels if classes is None else classes).long()
    image = torch.from_numpy(((usual if hu is None else hu) - 50) / 80)[None].float()
    after, moved = change_organs(
        image, labels, WINDOW, MM, facts, NAMES, np.random.default_rng(seed)
    )
    return labels, image[0] * 80 + 50, after[0] * 80 + 50, moved


@pytest.mark.parametrize("seed", range(6))
def test_a_grown_organ_takes_its_label_along_and_nothing_folds(seed):
    facts = OrganFacts(changed=1.0, factor={"spleen": (1.6, 2.2)}, shift_mm=5.0)
    before, positions, image, after = reshaped(facts, seed)
    assert (after == 2).sum() > 2 * (before == 2).sum()
    for value, hu in ((1, 110.0), (2, 130.0)):
        inside = image[after == value]
        assert float((inside - hu).abs().median()) < 5
    for axis in range(3):
        assert (positions.diff(dim=axis)[..., axis] > 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_shrunk_organ_is_smaller_and_nothing_folds(seed):
    facts = OrganFacts(changed=1.0, factor={"liver": (0.7, 0.8)}, shift_mm=20.0)
    before, positions, _, after = reshaped(facts, seed)
    assert (after == 1).sum() < 0.75 * (before == 1).sum()
    for axis in range(3):
        assert (positions.diff(dim=axis)[..., axis] > 0).all()


def test_organs_without_a_factor_keep_their_size():
    facts = OrganFacts(changed=1.0)
    before, _, _, after = reshaped(facts, 0)
    assert np.array_equal(before, after.numpy())


def test_one_slice_stays_one_slice():
    hu, classes = two_balls()
    case = make_case(hu[None], classes, spacing_mm=MM)
    rng = np.random.default_rng(0)
    positions = place((1, 40, 40), MM, np.array([40.0, 39.0, 39.0]), STILL, rng,
                      torch.device("cpu"))  # fmt: skip
    facts = OrganFacts(changed=1.0, factor={"liver": (1.5, 1.5)}, shift_mm=9.0)
    after = reshape_organ(positions, case.centres, MM, facts, NAMES, rng)
    assert torch.equal(after[..., 0], positions[..., 0])
    assert not torch.equal(after, positions)


def test_a_removed_organ_is_neither_seen_nor_labelled():
    labels, _, after, moved = changed(OrganFacts(removed={"spleen": 1.0}), 1)
    gone = labels == 2
    assert not (moved == 2).any()
    assert torch.equal(moved == 1, labels == 1)
    assert float(after[gone].mean()) < 90  # it was 130
    assert float(after[labels == 1].mean()) == pytest.approx(110, abs=1)


@pytest.mark.parametrize("seed", range(4))
def test_lesions_stay_part_of_their_organ_and_inside_it(seed):
    facts = OrganFacts(lesions=1.0, lesion_labels=("liver",))
    labels, before, after, moved = changed(facts, seed)
    assert torch.equal(moved, labels)
    different = (after - before).abs() > 1
    assert different.any()
    assert not different[labels != 1].any()


def test_lesions_of_an_organ_that_is_not_there_change_nothing():
    _, classes = two_balls()
    classes[classes == 1] = 0
    facts = OrganFacts(lesions=1.0, lesion_labels=("liver",))
    _, before, after, _ = changed(facts, 0, classes=classes)
    torch.testing.assert_close(before, after, atol=1e-3, rtol=0)


def test_without_contrast_medium_organs_come_near_each_other_and_labels_stay():
    facts = OrganFacts(contrast=1.0)
    spreads = []
    for seed in range(12):
        labels, _, after, moved = changed(facts, seed)
        assert torch.equal(moved, labels)
        spreads.append(float(after[labels == 2].mean()))
        assert float(after[labels == 0].mean()) == pytest.approx(-100, abs=6)
    assert min(spreads) < 95  # it was 130
    assert max(spreads) > min(spreads) + 20


def test_fluid_stands_in_fat_only():
    facts = OrganFacts(fluid=1.0)
    wet = []
    for seed in range(6):
        labels, before, after, moved = changed(facts, seed)
        assert torch.equal(moved, labels)
        different = (after - before).abs() > 20
        assert not different[labels > 0].any()
        wet.append(float(different[labels == 0].float().mean()))
    assert max(wet) > 0.02


def test_unknown_voxels_are_no_organ():
    _, classes = two_balls()
    classes[classes == 2] = MAYBE
    facts = OrganFacts(removed={"spleen": 1.0}, contrast=1.0, fluid=1.0)
    labels, _, after, moved = changed(facts, 0, classes=classes)
    assert torch.equal(moved, labels)
    assert torch.isfinite(after).all()


def test_the_recipe_s_organs_reach_the_samples(make_recipe):
    table = "organs = { changed = 1.0, factor = { liver = [1.5, 1.5] } }"
    recipe = make_recipe(("batch = 1", f"batch = 1\naugmentation = {{ intensity = 0, {table} }}"))
    plain = make_recipe(("batch = 1", "batch = 1\naugmentation = { intensity = 0 }"))
    more = 0
    for seed in range(6):
        grown = draw_sample(make_case(), recipe, np.random.default_rng(seed))[1]
        usual = draw_sample(make_case(), plain, np.random.default_rng(seed))[1]
        more += int((grown == 1).sum()) - int((usual == 1).sum())
    assert more > 0


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("removed = { kidney = 0.5 }", "no label kidney"),
        ("factor = { liver = [0.2, 1.0] }", "between 0.7 and 3"),
        ("factor = { liver = [1.5, 1.0] }", "between 0.7 and 3"),
        ("changed = 2.0", "less than or equal to 1"),
    ],
)
def test_tables_that_make_no_sense_are_refused(make_recipe, table, fault):
    with pytest.raises(PredictorError, match=fault):
        make_recipe(("batch = 1", f"batch = 1\naugmentation = {{ organs = {{ {table} }} }}"))
