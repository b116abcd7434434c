from __future__ import annotations

import numpy as np
import pytest
import torch

from flarekit.core.channels import Channel, Window
from flarekit.training.augment import change_intensities, fill_bowel, mirror, place, sample
from flarekit.training.cases import on_grid, volume_of
from flarekit.training.losses import MAYBE
from flarekit.training.samples import Pool, Sampler, _voxels_to_see, draw_sample
from flarekit.training.tables import AugmentationFacts
from tests.training.conftest import make_case

STILL = AugmentationFacts(rotation_deg_ZYX=(0, 0, 0), scale=0, intensity=0)


def test_a_sample_has_the_tile_s_shape_and_the_case_s_classes(make_recipe):
    recipe = make_recipe(("tile_ZYX = [16, 16, 16]\nbatch", "tile_ZYX = [16, 24, 20]\nbatch"))
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, classes = draw_sample(make_case(), recipe, rng)
        assert image.shape == (1, 16, 24, 20)
        assert classes.shape == (16, 24, 20)
        assert torch.isfinite(image).all()
        assert set(classes.unique().tolist()) <= {0, 1, 2, MAYBE}


def test_rare_classes_have_their_turn(recipe):
    rng = np.random.default_rng(0)
    seen = [2 in draw_sample(make_case(), recipe, rng)[1] for _ in range(60)]
    assert np.mean(seen) > 0.25


def test_the_same_step_draws_the_same_batch_whatever_was_drawn_before(recipe):
    sampler = Sampler(recipe, [Pool(cases=[make_case(), make_case()], share=1.0)])
    first = sampler.batch(5)
    sampler.batch(1)
    again = sampler.batch(5)
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.target.classes, again.target.classes)
    assert not torch.equal(first.image, sampler.batch(6).image)


@pytest.mark.long
def test_pools_give_their_shares(recipe):
    dark, light = (
        make_case(np.full((1, 24, 24, 24), value), np.zeros((24, 24, 24), np.uint8))
        for value in (-9.0, 9.0)
    )
    pools = [Pool(cases=[dark], share=0.75), Pool(cases=[light], share=0.25)]
    sampler = Sampler(recipe, pools)
    signs = [float(sampler.batch(step).image.mean()) < 0 for step in range(200)]
    assert 0.65 < np.mean(signs) < 0.85


def test_several_channels_stay_together(make_recipe):
    recipe = make_recipe()
    case = make_case()
    both = make_case(np.concatenate([case.image_CZYX, case.classes_ZYX[None] == 1]))
    image, classes = draw_sample(both, recipe, np.random.default_rng(3))
    assert image.shape == (2, 16, 16, 16)
    agreement = float(((image[1] > image[1].median()) == (classes == 1)).float().mean())
    assert agreement > 0.9


def test_a_channel_is_hidden_now_and_then(make_recipe):
    recipe = make_recipe(("batch = 1", "augmentation = { hidden = { CT = 0.4 } }\nbatch = 1"))
    rng = np.random.default_rng(5)
    seen = [draw_sample(make_case(), recipe, rng) for _ in range(60)]
    hidden = [float(np.ptp(image.numpy())) == 0 for image, _ in seen]
    assert 0.25 < np.mean(hidden) < 0.55
    assert any((classes == 1).any() for (_, classes), h in zip(seen, hidden, strict=True) if h)


def test_bowel_is_filled_where_no_label_and_no_fat_is():
    image = torch.full((1, 30, 40, 40), -0.25)  # 30 HU
    image[:, :, :10] = -1.8  # fat
    classes = torch.zeros(30, 40, 40, dtype=torch.int64)
    classes[:, 30:] = 2
    window = Window(kind="window", low_hu=-125, high_hu=275, mean=50, std=80)
    channel = Channel(name="CT", intensity=window)
    filled = fill_bowel(image, classes, channel, (3.0, 3.0, 3.0), np.random.default_rng(0))
    changed = (filled - image)[0]
    assert 0.05 < float((changed[:, 12:30] > 1.5).float().mean()) < 0.6
    assert float(filled.max()) <= (275 - 50) / 80 + 1e-5
    assert not changed[:, 30:].any()
    assert not changed[:, :9].any()


def test_oral_contrast_is_drawn_in_training(make_recipe):
    recipe = make_recipe(
        ("batch = 1", "augmentation = { oral_contrast = 1.0, intensity = 0 }\nbatch = 1")
    )
    case = make_case(np.full((1, 24, 24, 24), -0.25))
    samples = [draw_sample(case, recipe, np.random.default_rng(seed)) for seed in range(8)]
    assert any(float(image[0][classes == 0].max()) > 1 for image, classes in samples)
    assert all(
        float(image[0][classes == 1].max()) < 0 for image, classes in samples if 1 in classes
    )


def test_a_2d_network_gets_slices_of_one_z(make_recipe):
    recipe = make_recipe(("tile_ZYX = [16, 16, 16]", "tile_ZYX = [1, 16, 16]"))
    volume = np.broadcast_to(np.arange(24)[:, None, None], (24, 24, 24))
    case = make_case(volume[None].astype(float), volume.astype(np.uint8) % 3)
    facts = recipe.training.model_copy(update={"augmentation": STILL, "batch": 4})
    recipe = type(recipe)(**{**recipe.__dict__, "training": facts})
    batch = Sampler(recipe, [Pool(cases=[case], share=1)]).batch(0)
    assert batch.image.shape == (4, 1, 16, 16)
    assert batch.target.classes.shape == (4, 16, 16)
    for image, classes in zip(batch.image, batch.target.classes, strict=True):
        z = round(float(image.max()))  # outside the scan is its lowest value
        assert set(image.round(decimals=3).unique().tolist()) <= {0, z}
        assert set(classes.unique().tolist()) <= {0, z % 3}


def test_where_a_tile_is_the_whole_axis_it_is_cut_in_the_middle(make_recipe):
    recipe = make_recipe(
        ("spacing_mm_ZYX = [8.0, 8.0, 8.0]", 'spacing_mm_ZYX = [8.0, "fit", "fit"]'),
    )
    facts = recipe.training.model_copy(update={"augmentation": STILL})
    recipe = type(recipe)(**{**recipe.__dict__, "training": facts})
    marked = np.zeros((24, 16, 16), np.uint8)
    marked[:, 3, 5] = 1
    case = make_case(marked[None].astype(float), marked)
    for seed in range(5):
        _, classes = draw_sample(case, recipe, np.random.default_rng(seed))
        assert set(map(tuple, (classes == 1).nonzero()[:, 1:].tolist())) == {(3, 5)}


def moved(image, classes, tile, spacing_mm, facts, seed):
    """Read a tile around the middle of a room whose lowest value is 0."""
    rng = np.random.default_rng(seed)
    middle = (np.array(classes.shape) - 1) / 2 * np.array(spacing_mm)
    positions = place(tile, spacing_mm, middle, facts, rng, image.device)
    lowest = torch.zeros(len(image))
    return mirror(*sample(image, classes, positions, spacing_mm, lowest), facts, rng)


def test_without_changes_the_middle_is_cut_out():
    room = torch.arange(24**3, dtype=torch.float32).reshape(1, 24, 24, 24)
    classes = (room[0] % 3).to(torch.uint8)
    image, cut = moved(room, classes, (16, 16, 16), (2.0, 1.0, 1.0), STILL, 0)
    torch.testing.assert_close(image, room[:, 4:20, 4:20, 4:20], rtol=1e-5, atol=0.02)
    assert torch.equal(cut, classes[4:20, 4:20, 4:20].long())


def test_outside_the_case_is_its_lowest_value_and_background():
    room = torch.full((1, 8, 8, 8), 5.0)
    positions = place((8, 8, 8), (1.0, 1.0, 1.0), np.array([3.5, 3.5, 9.5]), STILL,
                      np.random.default_rng(0), room.device)  # fmt: skip
    classes = torch.ones(8, 8, 8, dtype=torch.uint8)
    image, cut = sample(room, classes, positions, (1.0, 1.0, 1.0), torch.tensor([-3.0]))
    assert (image[0, :, :, :2] == 5).all()
    assert (image[0, :, :, 2:] == -3).all()
    assert cut.sum() == 8 * 8 * 2


def test_a_sample_of_another_spacing_shows_the_same_millimetres(make_recipe):
    """A case on its scan's grid of 4 mm is read at the network's 8 mm."""
    recipe = make_recipe(("batch = 1", 'batch = 1\ncase_grid = "scan"'))
    facts = recipe.training.model_copy(update={"augmentation": STILL, "tile_ZYX": (8, 8, 8)})
    recipe = type(recipe)(**{**recipe.__dict__, "training": facts})
    ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 24, 24))
    case = make_case(ramp[None], spacing_mm=(4.0, 4.0, 4.0))
    image, classes = draw_sample(case, recipe, np.random.default_rng(4))
    steps = image[0].diff(dim=0)
    assert float(steps[steps > 0.1].median()) == pytest.approx(2.0)
    assert classes.shape == (8, 8, 8)


def test_turns_are_turns_in_millimetres_not_in_voxels():
    """A ball on an anisotropic grid stays a ball."""
    spacing = (4.0, 1.0, 1.0)
    z, y, x = np.meshgrid(*(np.arange(n) - n / 2 + 0.5 for n in (24, 96, 96)), indexing="ij")
    ball = (z * 4) ** 2 + y**2 + x**2 < 20**2
    facts = AugmentationFacts(rotation_deg_ZYX=(60, 60, 60), scale=0)
    image, classes = torch.from_numpy(ball[None].astype(np.float32)), torch.from_numpy(ball)
    for seed in range(5):
        _, turned = moved(image, classes.byte(), (16, 64, 64), spacing, facts, seed)
        still = torch.from_numpy(ball[4:20, 16:80, 16:80])
        dice = 2 * float((turned.bool() & still).sum()) / float(turned.sum() + still.sum())
        assert dice > 0.9


def test_mirroring_flips_only_the_axes_it_is_told():
    room = torch.arange(12.0)[None, None, None].expand(1, 6, 6, 12).clone()
    facts = STILL.model_copy(update={"mirror_axes": (0, 1)})
    for seed in range(6):
        image, _ = moved(room, room[0].byte(), (4, 4, 8), (1, 1, 1), facts, seed)
        assert torch.equal(image[0, 0, 0].round(), torch.arange(2.0, 10.0))


@pytest.mark.parametrize("flat", [False, True])
def test_bends_move_voxels_by_millimetres(flat):
    size = (1, 40, 40) if flat else (40, 40, 40)
    tile = (1, 32, 32) if flat else (32, 32, 32)
    ramp = torch.arange(40.0).expand(1, *size).clone()
    facts = STILL.model_copy(update={"elastic_mm": 2.0})
    shifts = []
    for seed in range(8):
        image, _ = moved(ramp, ramp[0].byte(), tile, (1, 1, 1), facts, seed)
        inside = image[0] > 0  # outside the room is 0
        shifts.append((image[0] - torch.arange(4.0, 36.0))[inside])
    deviation = float(torch.cat(shifts).std())
    assert 0.5 < deviation < 3.0


def test_intensities_change_channel_by_channel_and_not_at_all_where_told():
    image = torch.rand(2, 6, 6, 6)
    rng = np.random.default_rng(1)
    assert change_intensities(image, STILL, rng) is image
    heavy = AugmentationFacts(intensity=2, low_resolution=1)
    changed = change_intensities(image, heavy, rng)
    assert changed.shape == image.shape
    assert torch.isfinite(changed).all()
    assert not torch.equal(changed[0] - image[0], changed[1] - image[1])


def test_hard_negatives_are_seen_and_large_parts_more_often(make_recipe):
    recipe = make_recipe(
        ("learning_rate = 1e-2", "learning_rate = 1e-2\nforeground = 0.0"),
        (
            "[provenance]",
            '[training.hard_negatives]\nchannel = "CT"\nabove = 200\nshare = 1.0\n\n[provenance]',
        ),
    )
    hu = np.zeros((30, 30, 30), np.float32)
    hu[2:8, 2:8, 2:8] = 260  # large
    hu[24:27, 24:27, 24:27] = 260  # small
    hu[24:27, 2:6, 2:6] = 260  # labelled
    labels = np.zeros(hu.shape, np.uint8)
    labels[24:27, 2:6, 2:6] = 1
    volume = volume_of(hu, np.diag([-8.0, -8.0, 8.0, 1.0]), "case")
    case = on_grid("case", [volume], labels, recipe, unlabelled=())
    assert sorted(len(part) for part in case.hard_negatives) == [27, 216]
    facts = recipe.training.model_copy(update={"augmentation": STILL})
    recipe = type(recipe)(**{**recipe.__dict__, "training": facts})
    rng = np.random.default_rng(2)
    seen = [float(draw_sample(case, recipe, rng)[0].max()) > 1 for _ in range(20)]
    assert all(seen)
    parts = [len(_voxels_to_see(case, recipe, rng)) for _ in range(200)]
    assert 0.6 < parts.count(216) / 200 < 0.85  # 0.74: the roots of 216 and 27


def test_oral_contrast_is_drawn_in_slices_too(make_recipe):
    recipe = make_recipe(
        ("tile_ZYX = [16, 16, 16]", "tile_ZYX = [1, 16, 16]"),
        ("batch = 1", "augmentation = { oral_contrast = 1.0, intensity = 0 }\nbatch = 1"),
    )
    case = make_case(np.full((1, 24, 24, 24), -0.25))
    samples = [draw_sample(case, recipe, np.random.default_rng(seed))[0] for seed in range(8)]
    assert any(float(image.max()) > 0.5 for image in samples)
