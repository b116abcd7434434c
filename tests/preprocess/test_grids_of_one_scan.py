"""What one grid of a scan says of another: the locator's of the network's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.core.spec import parse_spec
from flarekit.core.volume import Geometry, Volume
from flarekit.preprocess import locate, place
from flarekit.preprocess.resample import resample_few
from tests.preprocess.whole import resample_linear


def spec_of(spacing, tile=(4, 4, 4), **more):
    content = {
        "name": "n",
        "title": "t",
        "convention": "flare",
        "architecture": {"name": "nnunet"},
        "channels": [
            {
                "name": "CT",
                "intensity": {"kind": "window", "low_hu": 0, "high_hu": 9, "mean": 1, "std": 3},
            }
        ],
        "grid": {"spacing_mm_ZYX": list(spacing), "tile_ZYX": list(tile)},
        "labels": {"a": 1, "b": 2},
        "weights": {"sha256": "0" * 64, "parameters": 1},
        **more,
    }
    return parse_spec(content, source="test")


CUBE = {"spacing_mm_ZYX": [4.0, 4.0, 4.0], "tile_ZYX": [4, 4, 4]}
AFFINES = [
    np.diag([1.0, 1.0, 1.0, 1.0]),
    np.diag([-1.0, 1.0, -1.0, 1.0]),
    np.array([[0, 0, 1.0, 0], [1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]]),
]


def volume_of(shape, affine):
    voxels = np.random.default_rng(0).integers(0, 9, shape).astype(np.int16)
    geometry = Geometry(shape_ZYX=shape, affine=affine, header=None)
    return Volume(voxels_ZYX=voxels, geometry=geometry, path=Path("x"))


def placements(shape, affine, fine, coarse):
    volume = volume_of(shape, affine)
    return tuple(locate([volume], spec).placement(spec) for spec in (fine, coarse) if spec)


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("nnunet", [None, {"transpose": [2, 0, 1]}])
def test_values_of_a_coarse_grid_lie_where_they_lay(affine, nnunet):
    fine_spec = spec_of((1.0, 1.0, 1.0), nnunet=nnunet)
    fine, coarse = placements((24, 18, 12), affine, fine_spec, spec_of((3.0, 3.0, 3.0)))
    values = np.random.default_rng(1).random(coarse.shape_ZYX).astype(np.float32)
    found = fine.on_this_grid(values, coarse)
    labels = (values > 0.5).astype(np.uint8)
    stored = coarse.restore(labels)
    expected = fine.grid_labels(stored)
    kept = fine.grid_labels(np.ones_like(stored)) > 0  # not what pads the grid to a tile
    np.testing.assert_array_equal((found > 0.5)[kept], (expected > 0)[kept])


def test_where_the_other_grid_does_not_reach_there_is_nothing():
    fine, coarse = placements(
        (24, 18, 12), AFFINES[0], spec_of((1.0, 1.0, 1.0)), spec_of((3.0, 3.0, 3.0))
    )
    part = (slice(6, 18), slice(0, 18), slice(3, 9))
    cut = replace(coarse, box=part, grid_shape=(4, 6, 2))
    found = fine.on_this_grid(np.ones((4, 6, 2), np.float32), cut)
    expected = np.zeros((24, 18, 12), np.float32)
    expected[part] = 1
    np.testing.assert_array_equal(found, expected)


def test_what_is_not_needed_already_stays_so_whatever_another_grid_says():
    shape, spec, air = (24, 18, 12), spec_of((3.0, 3.0, 3.0)), np.zeros((24, 18, 12), bool)
    fine, coarse = placements(shape, AFFINES[0], spec_of((1.0, 1.0, 1.0)), spec)
    everywhere = np.ones(coarse.shape_ZYX, bool)
    assert fine.needed_where(everywhere, coarse).needed_ZYX.all()
    assert not replace(fine, needed_ZYX=air).needed_where(everywhere, coarse).needed_ZYX.any()


@pytest.mark.parametrize("axis", [1, 2])
def test_any_axis_may_be_resampled_by_itself(axis):
    voxels = np.random.default_rng(3).random((12, 12, 12)).astype(np.float32)
    (placement,) = placements(voxels.shape, AFFINES[0], spec_of((2.0, 2.0, 2.0)), None)
    first = replace(placement, apart=0, image_orders=(0, 3, 3))
    orders = [3, 3, 3]
    orders[axis] = 0
    found = replace(first, apart=axis, image_orders=tuple(orders)).on_grid(lambda z: voxels[z])
    turned = np.moveaxis(voxels, axis, 0)
    expected = np.moveaxis(first.on_grid(lambda z: turned[z]), 0, axis)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.long
@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_map_fills_what_was_not_decided_and_leaves_the_rest(data):
    affine = data.draw(st.sampled_from(AFFINES))
    transpose = data.draw(st.sampled_from([[0, 1, 2], [2, 0, 1]]))
    fine, coarse = placements(
        (24, 18, 12),
        affine,
        spec_of((2.0, 2.0, 2.0), nnunet={"transpose": transpose}),
        spec_of((3.0, 3.0, 3.0)),
    )
    corner = [data.draw(st.integers(0, n - 2)) for n in fine.shape_ZYX]
    tile = tuple(slice(a, min(a + 4, n)) for a, n in zip(corner, fine.shape_ZYX, strict=True))
    labels = np.zeros(fine.shape_ZYX, np.uint8)
    labels[tile] = 2
    box = fine.stored_box(tile)
    inside = np.zeros((24, 18, 12), bool)
    inside[box] = True
    assert inside[fine.restore(labels) == 2].all()  # all that the tile decides is in its box
    stored = np.where(inside, 2, 0).astype(np.uint8)
    filler = coarse.filler(np.array([0, 1], np.uint8), stored, [box])
    logits = np.zeros((2, *coarse.shape_ZYX), np.float32)
    logits[1] = 1
    filler.add(logits)
    filler.finish()
    np.testing.assert_array_equal(stored, np.where(inside, 2, 1))


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(2, 30)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_few_voxels_give_what_all_of_them_give(shape, target):
    voxels = np.random.default_rng(0).integers(-50, 50, shape).astype(np.int16)

    def floats(some):
        return (some.astype(np.float32) - 3) / 7

    few = resample_few(voxels, floats, target)
    np.testing.assert_array_equal(few, resample_linear(floats(voxels), target))


@pytest.mark.parametrize(
    "spec",
    [
        spec_of((4.0, 4.0, 4.0)),
        spec_of((4.0, 4.0, 4.0)).for_mode("exact"),
        spec_of((4.0, 4.0, 4.0), grid={**CUBE, "image_order": 2}),
        spec_of((16.0, 4.0, 4.0), nnunet={"image_order": 1, "image_order_z": 0}),
    ],
    ids=["linear", "splines", "parabolas", "an axis by itself"],
)
def test_a_much_coarser_grid_gets_the_same_voxels_as_ever(monkeypatch, spec):
    volume = volume_of((30, 26, 22), AFFINES[1])
    located = locate([volume], spec)
    quick = place([volume], located, located.placement(spec), spec).tensor_CZYX
    monkeypatch.setattr("flarekit.preprocess._FEW", 0.0)
    usual = place([volume], located, located.placement(spec), spec).tensor_CZYX
    np.testing.assert_array_equal(quick, usual)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_stored_box_of_a_tile_holds_the_voxels_that_look_at_it_and_no_others(data):
    affine = data.draw(st.sampled_from(AFFINES))
    nnunet = {"transpose": data.draw(st.sampled_from([[0, 1, 2], [2, 0, 1]]))}
    spec = spec_of((2.0, 1.5, 3.0), (16, 16, 16), nnunet=nnunet, crop={"kind": "nonzero"})
    volume = volume_of((24, 18, 12), affine)
    volume.voxels_ZYX[:3] = volume.voxels_ZYX[:, 16:] = 0  # so that the crop begins elsewhere
    route = locate([volume], spec).placement(spec)
    assert max(max(pair) for pair in route.padding) > 0
    corner = [data.draw(st.integers(0, n - 1)) for n in route.shape_ZYX]
    size = [data.draw(st.integers(1, 6)) for _ in corner]
    tile = tuple(slice(a, a + n) for a, n in zip(corner, size, strict=True))
    looking = [
        (weights[:, max(0, side.start - low) : max(0, side.stop - low)] != 0).any(axis=1)
        for weights, side, (low, _) in zip(route.logits_weights(), tile, route.padding, strict=True)
    ]
    expected = np.zeros((24, 18, 12), bool)
    route.target_of(expected)[:] = looking[0][:, None, None] & looking[1][:, None] & looking[2]
    found = np.zeros_like(expected)
    found[route.stored_box(tile)] = True
    np.testing.assert_array_equal(found, expected)
