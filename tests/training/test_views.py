"""Windows around lesions: a sample shows what prediction would show of such a scan."""

from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.core.errors import PredictorError
from flarekit.preprocess import prepare
from flarekit.training.cases import on_grid, volume_of
from flarekit.training.samples import draw_sample
from flarekit.training.tables import ViewFacts
from flarekit.training.views import draw_view
from tests.training.conftest import make_case

FLAT = (
    ('name = "nnunet"', 'name = "mamba_ahnet"'),
    (
        "n_stages = 2\nfeatures_per_stage = [4, 8]\nkernel_sizes = [[3, 3, 3], [3, 3, 3]]\n"
        "strides = [[1, 1, 1], [2, 2, 2]]\nn_conv_per_stage = [1, 1]\n",
        "",
    ),
    ("n_conv_per_stage_decoder = [1]\n", ""),
    ("num_classes = 3", "num_classes = 2"),
    ("liver = 1\nspleen = 3", "lesion = 1"),
    (
        "spacing_mm_ZYX = [8.0, 8.0, 8.0]\ntile_ZYX = [16, 16, 16]",
        'spacing_mm_ZYX = ["scan", "fit", "fit"]\ntile_ZYX = [1, 32, 32]',
    ),
)


ALL_OF_IT = "{ context = [100, 100], off_centre = 0.0, anywhere = 0.0, border = 0.0 }"


def lesion_recipe(make_recipe, views=ALL_OF_IT, *more):
    """Return a recipe whose samples are not augmented but for their windows."""
    still = "rotation_deg_ZYX = [0, 0, 0]\nscale = 0.0\nintensity = 0.0"
    return make_recipe(
        *FLAT,
        (
            "tile_ZYX = [16, 16, 16]\nbatch",
            f'case_grid = "scan"\nviews = {views}\nforeground = 1.0\ntile_ZYX = [1, 32, 32]\nbatch',
        ),
        ("[provenance]", f"[training.augmentation]\n{still}\n\n[provenance]"),
        *more,
    )


def nodule(shape=(5, 20, 24), lesion=(slice(1, 4), slice(8, 13), slice(9, 16))):
    """Return HU of a small scan and the lesion in its middle."""
    labels = np.zeros(shape, np.uint8)
    labels[lesion] = 1
    hu = np.random.default_rng(0).integers(-120, 270, shape) * (1 - 0.5 * labels)
    return hu.astype(np.float32), labels


def case_of(recipe, hu, labels, spacing_mm=(2.0, 0.8, 0.7)):
    z, y, x = spacing_mm
    volume = volume_of(hu, np.diag([-x, -y, z, 1.0]), "nodule")
    return on_grid("nodule", [volume], labels, recipe, unlabelled=())


def predicted_view(folder, recipe, hu, middle):
    """Return what prediction brings to the network of a scan that ULS23 cut around a voxel."""
    stack = np.full((128, 256, 256), np.rint(hu.min()), np.int16)
    start = [64 - middle[0], 128 - middle[1], 128 - middle[2]]
    box = tuple(slice(first, first + n) for first, n in zip(start, hu.shape, strict=True))
    stack[box] = np.rint(hu)
    path = folder / "images" / "stacked-3d-ct-lesion-volumes" / "stack.mha"
    path.parent.mkdir(parents=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(stack), str(path), True)
    (folder / "stacked-3d-volumetric-spacings.json").write_text(json.dumps([[0.7, 0.8, 2.0]]))
    convention = conventions.get("uls23", {}, labels={"lesion": 1})
    (case,) = convention.find_cases(folder, 1)
    return prepare(convention.read_case(case), recipe.spec).tensor_CZYX


def test_a_window_as_wide_as_the_scan_is_what_prediction_sees_of_it(tmp_path, make_recipe):
    recipe = lesion_recipe(make_recipe)
    hu, labels = nodule()
    hu = np.rint(hu)
    image, classes = draw_sample(case_of(recipe, hu, labels), recipe, np.random.default_rng(0))
    seen = predicted_view(tmp_path, recipe, hu, (2, 10, 12))[..., 2:-2, 2:-2]
    assert image.shape == (1, 1, 32, 32)
    nearest = np.abs(seen - image.numpy()[..., 2:-2, 2:-2]).max(axis=(0, 2, 3)).min()
    assert nearest < 0.02
    assert 0.03 < (classes == 1).float().mean() < 0.2


def test_windows_are_of_every_width_and_hold_the_click(make_recipe):
    recipe = lesion_recipe(make_recipe)
    hu, labels = nodule(shape=(5, 120, 120), lesion=(slice(1, 4), slice(50, 60), slice(55, 67)))
    case = case_of(recipe, hu, labels)
    facts = ViewFacts(context=(1.2, 30.0), off_centre=0.2, border=0.3)
    rng = np.random.default_rng(1)
    widths, offsets, shares = [], [], []
    for _ in range(300):
        view = draw_view(case, facts, (32, 32), rng)
        (y, x), (rows, columns) = view.middle_YX, view.box_YX
        assert rows.start <= y + 0.5 < rows.stop
        assert columns.start <= x + 0.5 < columns.stop
        widths.append(view.spacing_mm_YX[1] * 32 / 0.7)
        offsets.append(x - 60.5)
        shares.append((columns.stop - columns.start) / widths[-1])
    assert np.percentile(widths, 5) < 24
    assert np.percentile(widths, 95) > 110
    assert np.std(offsets) > 1.5
    assert 0.05 < np.mean(np.array(shares) < 0.9) < 0.6  # padding on one side


def test_no_window_is_wider_than_the_convention_s_volume(make_recipe):
    recipe = lesion_recipe(make_recipe)
    hu, labels = nodule(shape=(5, 120, 120), lesion=(slice(1, 4), slice(50, 60), slice(55, 67)))
    case = case_of(recipe, hu, labels)
    facts = ViewFacts(context=(100, 100), most_voxels=40, border=0.0)
    view = draw_view(case, facts, (32, 32), np.random.default_rng(0))
    assert [side.stop - side.start for side in view.box_YX] == [40, 40]


def test_a_case_without_a_lesion_is_seen_around_its_middle():
    case = make_case(classes_ZYX=np.zeros((4, 20, 30), np.uint8))
    view = draw_view(case, ViewFacts(off_centre=0, border=0), (32, 32), np.random.default_rng(0))
    assert view.middle_YX == (9.5, 14.5)


def test_intensities_of_any_unit_are_stretched_within_the_window(make_recipe):
    window = 'kind = "window", low_hu = -125, high_hu = 275, mean = 50, std = 80'
    recipe = lesion_recipe(make_recipe, ALL_OF_IT, (window, 'kind = "rescale"'))
    hu, labels = nodule(shape=(3, 60, 60), lesion=(slice(0, 3), slice(25, 35), slice(25, 35)))
    hu[:, 0, 0] = 5000  # outside every window
    recipe_of_windows = recipe.training.model_copy(
        update={"views": ViewFacts(context=(2, 2), off_centre=0, anywhere=0, border=0)}
    )
    case = case_of(recipe, hu, labels)
    narrow = type(recipe)(**{**vars(recipe), "training": recipe_of_windows})
    image, _ = draw_sample(case, narrow, np.random.default_rng(0))
    assert float(image.max()) > 0.8
    assert float(draw_sample(case, recipe, np.random.default_rng(0))[0][..., 4:, 4:].max()) < 0.2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('case_grid = "scan"', 'case_grid = "network"', "case_grid"),
        ('"scan", "fit", "fit"', '"scan", 1.0, 1.0', "fits Y and X"),
        ("context = [100, 100]", "context = [9, 3]", "least width first"),
        (
            "foreground = 1.0",
            "foreground = 1.0\ndatasets = [{ folder = 'a', share = 0.4 }]",
            "less",
        ),
        (
            "foreground = 1.0",
            "foreground = 1.0\ndatasets = [{ folder = '../a', share = 1 }]",
            "folder",
        ),
        ("foreground = 1.0", "foreground = 1.0\nother_ct = { flat = 0.5 }", "CT and PET"),
    ],
)
def test_windows_and_datasets_that_cannot_be_are_refused(make_recipe, old, new, message):
    with pytest.raises(PredictorError, match=message):
        lesion_recipe(make_recipe, ALL_OF_IT, (old, new))


def test_the_image_is_drawn_in_training_only_and_only_by_the_network_that_can(make_recipe):
    with_image = ("foreground = 1.0", "foreground = 1.0\nreconstruction = 0.1")
    recipe = lesion_recipe(make_recipe, ALL_OF_IT, with_image)
    assert recipe.regime.objective.reconstruction == 0.1
    with pytest.raises(PredictorError, match="only mamba_ahnet"):
        make_recipe(("batch = 1", "batch = 1\nreconstruction = 0.1"))
