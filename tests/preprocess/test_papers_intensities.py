"""The ways in which the papers normalise and resize that no organiser asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from flarekit.core.channels import PercentileZScore, Scale, SliceRescale
from flarekit.core.grid import Grid
from flarekit.core.volume import Geometry, Volume
from flarekit.preprocess import prepare
from flarekit.preprocess.axis_maps import LANCZOS, axis_map, resample_axis
from flarekit.preprocess.intensity import normalise, normalise_slices

ONE_TO_99 = {"kind": "percentile_z_score", "low_percentile": 1.0, "high_percentile": 99.0}


def test_a_volume_is_clipped_to_its_percentiles_and_scored_as_a_whole():
    voxels = np.random.default_rng(0).normal(40, 20, (6, 30, 30)).astype(np.float32)
    voxels[0, 0, 0] = 1e6
    scored = normalise(voxels, PercentileZScore(**ONE_TO_99))
    assert scored.mean() == pytest.approx(0, abs=1e-4)
    assert scored.std() == pytest.approx(1, abs=1e-4)
    assert scored.max() < 4


def test_the_mean_and_deviation_of_a_training_set_may_be_given():
    voxels = np.arange(101, dtype=np.int16).reshape(1, 1, 101)
    scored = normalise(voxels, PercentileZScore(**ONE_TO_99, mean=50.0, std=10.0))
    expected = (np.clip(np.arange(101), 1, 99) - 50) / 10
    np.testing.assert_allclose(scored[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize(
    "bad", [{"low_percentile": 99.0}, {"mean": 1.0}, {"std": 1.0}, {"high_percentile": 101.0}]
)
def test_percentiles_that_cross_and_halves_of_a_pair_are_refused(bad):
    with pytest.raises(ValidationError):
        PercentileZScore(**{**ONE_TO_99, **bad})


def test_every_slice_is_stretched_by_its_own_minimum_and_maximum():
    voxels = np.float32([[[1, 3], [5, 2]], [[-7, -7], [-7, -7]], [[0, 100], [50, 25]]])
    stretched = normalise_slices(voxels, SliceRescale(kind="slice_rescale"))
    np.testing.assert_allclose(stretched[0], [[0, 0.5], [1, 0.25]])
    assert not stretched[1].any()
    np.testing.assert_allclose(stretched[2], [[0, 1], [0.5, 0.25]])


@pytest.mark.parametrize("target", [16, 40, 61, 97])
def test_lanczos_is_pillow_s(target):
    image = pytest.importorskip("PIL.Image")
    row = np.random.default_rng(1).random((1, 61)).astype(np.float32)
    theirs = np.asarray(image.fromarray(row).resize((target, 1), image.Resampling.LANCZOS))
    ours = resample_axis(row, 1, axis_map(61, target, LANCZOS))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_grid_resizes_by_lanczos_where_it_says_so(toy):
    voxels = np.random.default_rng(2).random((2, 24, 24)).astype(np.float32)
    geometry = Geometry(shape_ZYX=voxels.shape, affine=np.diag([-1.0, -1, 1, 1]), header=None)
    volume = Volume(voxels_ZYX=voxels, geometry=geometry, path=Path("x"))
    channel = toy.spec.channels[0].model_copy(
        update={"intensity": Scale(kind="scale", divisor=1.0)}
    )
    axes = axis_map(24, 16, LANCZOS)
    expected = resample_axis(resample_axis(voxels, 2, axes), 1, axes)
    facts = {"spacing_mm_ZYX": ("scan", "fit", "fit"), "tile_ZYX": (1, 16, 16), "lanczos": True}
    for order in (1, 3):  # of the modes fast and exact
        grid = Grid(**facts, image_order=order)
        spec = toy.spec.model_copy(update={"channels": (channel,), "crop": None, "grid": grid})
        tensor = prepare([volume], spec).tensor_CZYX
        np.testing.assert_allclose(
            tensor[0], np.clip(expected, voxels.min(), voxels.max()), atol=1e-6
        )
