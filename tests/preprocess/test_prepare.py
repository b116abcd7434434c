from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from flarekit.core.channels import Rescale, Scale, SliceZScore, Window, ZScore
from flarekit.core.errors import InputError
from flarekit.core.spec import parse_spec
from flarekit.core.volume import Geometry, Volume
from flarekit.preprocess import locate, prepare
from flarekit.preprocess.crop import Body, filled_mask, find_body, nonzero_box, nonzero_mask
from flarekit.preprocess.intensity import normalise, normalise_slices
from flarekit.preprocess.resample import (
    resample_nearest,
    resampled_shape,
)
from tests.preprocess.whole import argmax_resampled, resample_linear, restore_logits

WINDOW = {"kind": "window", "low_hu": -200, "high_hu": 300, "mean": 50, "std": 100}


def spec_of(
    spacing=(2.0, 2.0, 2.0),
    *,
    tile=(8, 16, 16),
    crop=None,
    channels=1,
    intensity=WINDOW,
    nnunet=None,
):
    return parse_spec(
        {
            "name": "n",
            "title": "t",
            "convention": "flare",
            "architecture": {"name": "nnunet"},
            "channels": channels
            if isinstance(channels, list)
            else [{"name": "CT", "intensity": intensity}] * channels,
            "crop": crop,
            "grid": {"spacing_mm_ZYX": spacing, "tile_ZYX": tile},
            "nnunet": nnunet,
            "labels": {"organ": 1},
            "weights": {"sha256": "0" * 64, "parameters": 1},
        },
        source="test",
    )


def volume_of(voxels_ZYX, affine):
    geometry = Geometry(shape_ZYX=voxels_ZYX.shape, affine=affine, header=None)
    return Volume(voxels_ZYX=voxels_ZYX.astype(np.float32), geometry=geometry, path=Path("x"))


@st.composite
def affines(draw, spacings=(0.7, 1.0, 2.0, 5.0)):
    linear = np.zeros((3, 3))
    for nifti_axis, world in enumerate(draw(st.permutations([0, 1, 2]))):
        linear[world, nifti_axis] = draw(st.sampled_from([1, -1])) * draw(st.sampled_from(spacings))
    affine = np.eye(4)
    affine[:3, :3] = linear
    return affine


@pytest.mark.long
@settings(deadline=None, max_examples=60)
@given(affines(), st.tuples(*[st.integers(1, 9)] * 3))
def test_labels_come_back_exactly_where_the_grid_is_the_scan_s_own(affine, shape):
    labels = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint8)
    prepared = prepare([volume_of(labels, affine)], spec_of(("scan", "scan", "scan")))
    np.testing.assert_array_equal(prepared.restore(prepared.grid_labels(labels)), labels)


@settings(deadline=None, max_examples=30)
@given(affines(spacings=(1.0, 1.5, 2.5)))
def test_a_smooth_organ_survives_another_spacing(affine):
    shape = (40, 36, 44)
    distance = sum(
        ((n - size / 2) / (size / 3)) ** 2 for n, size in zip(np.indices(shape), shape, strict=True)
    )
    labels = (distance < 1).astype(np.uint8)
    prepared = prepare([volume_of(labels, affine)], spec_of((2.0, 2.0, 2.0)))
    back = prepared.restore(prepared.grid_labels(labels))
    assert back.shape == shape
    assert 2 * (back & labels).sum() / (back.sum() + labels.sum()) > 0.9


def body(shape=(12, 40, 40)):
    voxels = np.full(shape, -3024.0)
    voxels[:, 10:30, 12:28] = 40
    voxels[:, 35, 5:35] = 100  # the table
    return voxels


def body_box(voxels, spacing_mm, threshold, margin_mm):
    return find_body([voxels], spacing_mm, thresholds=[threshold], margin_mm=margin_mm).box


def test_the_crop_holds_the_body_and_leaves_table_and_padding():
    box = body_box(body(), (5.0, 1.0, 1.0), threshold=-110, margin_mm=2)
    assert box[1].start <= 8
    assert 32 <= box[1].stop <= 35
    assert box[2].start <= 10
    assert 30 <= box[2].stop < 40


def test_a_channel_that_shows_a_part_of_the_body_does_not_cut_the_rest_away():
    ct, pet = np.full((40, 30, 30), -1024, np.int16), np.zeros((40, 30, 30), np.float32)
    pet[4:36, 8:20, 9:21] = 1.5
    ct[20:36, 8:20, 9:21] = 40
    ct[20:36, 8:20, 21:24] = 40  # an arm that the PET hardly shows
    found = find_body([ct, pet], (1.0, 1.0, 1.0), thresholds=[-300, 0.2], margin_mm=2)
    assert [(part.start, part.stop) for part in found.box] == [(1, 39), (5, 23), (6, 27)]
    inside = found.at(np.arange(40), np.arange(30), np.arange(30))
    assert inside[4:36, 8:20, 9:21].all()
    assert not inside[:, :, 28:].any()
    assert found.unseen == (0.5, 0.0)
    alone = find_body([ct], (1.0, 1.0, 1.0), thresholds=[-300], margin_mm=2)
    assert alone.box[0] == slice(17, 39)
    assert alone.unseen == (0.0,)


def test_what_one_channel_does_not_show_of_the_body_is_told_with_its_file():
    ct, pet = np.full((40, 30, 30), -1024, np.float32), np.zeros((40, 30, 30), np.float32)
    pet[4:36, 8:20, 9:21] = 1.5
    ct[12:36, 8:20, 9:21] = 40
    channel = {"name": "CT", "intensity": WINDOW}
    spec = spec_of(
        channels=[channel, {**channel, "name": "PET"}],
        crop={"threshold": [-300, 0.2], "margin_mm": 2},
    )
    volumes = [volume_of(each, np.diag([-1.0, -1.0, 1.0, 1.0])) for each in (ct, pet)]
    (note,) = locate(volumes, spec).notes
    assert note.startswith(f"{volumes[0].path}: shows nothing of the body in 25% of the slices")
    assert "the CT tells the network nothing" in note
    ct[5:36, 8:20, 9:21] = 40  # one slice less is what blurring makes
    volumes[0] = volume_of(ct, np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert locate(volumes, spec).notes == ()
    assert locate(volumes, spec).box[0] == slice(1, 39)


def test_a_scan_of_air_is_kept_whole():
    air = np.full((3, 4, 5), -1000.0, np.float32)
    assert body_box(air, (1.0, 1.0, 1.0), threshold=-110, margin_mm=5) == (
        slice(0, 3), slice(0, 4), slice(0, 5))  # fmt: skip
    assert nonzero_box(nonzero_mask([air * 0])) == (slice(0, 3), slice(0, 4), slice(0, 5))


def test_nonzero_looks_at_all_channels_and_fills_what_they_enclose():
    first, second = np.zeros((5, 5, 5), np.float32), np.zeros((5, 5, 5), np.float32)
    first[1:4, 1:4, 1:4] = 1
    first[2, 2, 2] = 0
    second[4, 4, 4] = 1
    mask = filled_mask(nonzero_mask([first, second]))
    assert mask[2, 2, 2]
    assert nonzero_box(mask) == (slice(1, 5),) * 3


def test_labels_outside_the_crop_are_background():
    prepared = prepare(
        [volume_of(body(), np.diag([1.0, 1.0, 5.0, 1.0]))],
        spec_of(("scan", "scan", "scan"), crop={"threshold": -110, "margin_mm": 2.0}),
    )
    assert prepared.tensor_CZYX.shape[2] < 40
    full = prepared.restore(np.ones(prepared.tensor_CZYX.shape[1:], np.uint8))
    assert full.shape == (12, 40, 40)
    assert full[:, 10:30, 12:28].all()
    assert not full[:, :5].any()


def test_padding_does_not_bleed_into_the_body():
    prepared = prepare([volume_of(body(), np.diag([1.0, 1.0, 5.0, 1.0]))], spec_of())
    assert prepared.tensor_CZYX.min() == pytest.approx((-200 - 50) / 100)


def test_a_window_of_hand_computed_values():
    how = Window(low_hu=-100, high_hu=200, mean=50, std=10)
    voxels = np.float32([[[-3024, -100, 50, 200, 3000]]])
    np.testing.assert_allclose(normalise(voxels, how), [[[-15, -15, 0, 15, 15]]])


def test_other_intensities_of_hand_computed_values():
    voxels = np.float32([[[1, 3], [5, 7]]])
    root5 = np.sqrt(5)
    z = np.float32([[[-3, -1], [1, 3]]]) / root5
    np.testing.assert_allclose(normalise(voxels, ZScore(kind="z_score")), z, rtol=1e-6)
    np.testing.assert_allclose(normalise(voxels, Rescale(kind="rescale")), (voxels - 1) / 6)
    np.testing.assert_allclose(normalise(voxels, Scale(kind="scale", divisor=2.0)), voxels / 2)


def test_a_masked_z_score_looks_inside_and_puts_zero_outside():
    voxels = np.float32([[[100, 1, 3]]])
    inside = np.array([[[False, True, True]]])
    scored = normalise(voxels, ZScore(kind="z_score", masked=True), inside=inside)
    np.testing.assert_allclose(scored, [[[0, -1, 1]]])


def test_slices_are_scored_one_by_one_and_outliers_are_clipped():
    rng = np.random.default_rng(0)
    voxels = rng.normal(0, 1, (3, 50, 50)).astype(np.float32)
    voxels[1] = voxels[0] * 7 + 1000
    voxels[2] = 5
    voxels[0, 0, 0] = 1e6
    how = SliceZScore(kind="slice_z_score", low_percentile=1.0, high_percentile=99.0)
    scored = normalise_slices(voxels, how)
    np.testing.assert_allclose(scored.mean(axis=(1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(scored[:2].std(axis=(1, 2)), 1, atol=1e-3)
    assert scored[0].max() < 4
    assert not scored[2].any()


@pytest.mark.parametrize("kind", ["z_score", "rescale"])
def test_a_constant_volume_divides_by_nothing(kind):
    how = ZScore(kind=kind) if kind == "z_score" else Rescale(kind=kind)
    assert not normalise(np.full((2, 2, 2), 7, np.float32), how).any()


@pytest.mark.parametrize("shape", [(8, 6, 10), (1, 3, 20), (5, 9, 7), (5, 18, 3)])
def test_linear_resampling_is_scipy_s_with_outer_edges_kept(shape):
    voxels = np.random.default_rng(0).normal(size=(5, 9, 7)).astype(np.float32)
    factors = [b / a for a, b in zip(voxels.shape, shape, strict=True)]
    theirs = ndimage.zoom(voxels, factors, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(resample_linear(voxels, shape), theirs, atol=1e-5)


def test_resampling_to_the_same_shape_changes_nothing():
    voxels = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    assert resample_linear(voxels, (3, 4, 5)) is voxels


def test_nearest_labels_repeat_evenly():
    labels = np.uint8([[[1, 2, 3]]])
    assert resample_nearest(labels, (1, 1, 6)).tolist() == [[[1, 1, 2, 2, 3, 3]]]
    assert (
        resample_nearest(resample_nearest(labels, (1, 1, 9)), (1, 1, 3)).tolist() == labels.tolist()
    )


def test_the_nearest_label_is_the_one_that_the_voxel_s_centre_lies_in():
    labels = np.arange(1, 10, dtype=np.uint8).reshape(9, 1, 1)
    assert resample_nearest(labels, (3, 1, 1)).ravel().tolist() == [2, 5, 8]
    assert resample_nearest(labels, (1, 1, 1)).ravel().tolist() == [5]


def test_the_grid_covers_the_extent_of_the_scan():
    assert resampled_shape((41, 512, 512), (5.0, 0.8, 0.8), (3.0, 2.0, 2.0)) == (68, 205, 205)
    assert resampled_shape((1, 1, 1), (1.0, 1.0, 1.0), (9.0, 9.0, 9.0)) == (1, 1, 1)


def test_fit_makes_one_tile_cover_the_plane_and_scan_keeps_the_slices():
    voxels = np.zeros((7, 30, 50), np.float32)
    prepared = prepare(
        [volume_of(voxels, np.diag([-1.0, -1.0, 3.0, 1.0]))],
        spec_of(("scan", "fit", "fit"), tile=(1, 16, 24)),
    )
    assert prepared.tensor_CZYX.shape == (1, 7, 16, 24)


def test_the_volume_of_a_voxel_is_the_grid_s():
    voxels = np.zeros((10, 20, 30), np.float32)
    prepared = prepare([volume_of(voxels, np.diag([1.0, 1.0, 3.0, 1.0]))], spec_of((3.0, 2.0, 2.0)))
    assert prepared.voxel_ml == pytest.approx(3 * 2 * 2 / 1000)


def test_channels_on_two_grids_are_refused():
    voxels = np.zeros((4, 5, 6), np.float32)
    other = np.eye(4)
    other[0, 3] = 1
    with pytest.raises(InputError, match="another grid"):
        prepare([volume_of(voxels, np.eye(4)), volume_of(voxels, other)], spec_of(channels=2))
    other[0, 3] = 1e-5
    prepare([volume_of(voxels, np.eye(4)), volume_of(voxels, other)], spec_of(channels=2))


def test_too_few_channels_are_refused():
    with pytest.raises(InputError, match="takes 2"):
        prepare([volume_of(np.zeros((4, 5, 6)), np.eye(4))], spec_of(channels=2))


@pytest.mark.parametrize("shape", [(9, 11, 20), (3, 30, 8), (1, 5, 5), (6, 7, 8)])
def test_the_slice_wise_argmax_is_the_argmax_of_trilinear_logits(shape):
    import torch

    logits = np.random.default_rng(0).normal(size=(4, 6, 7, 8)).astype(np.float32)
    values = np.array([0, 3, 7, 200], np.uint8)
    ours = argmax_resampled(logits, shape, values)
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], size=shape, mode="trilinear", align_corners=False
    )
    theirs = values[whole[0].argmax(dim=0).numpy()]
    assert (ours == theirs).mean() > 0.999  # ties may fall either way


def test_deciding_on_the_scan_s_grid_brings_labels_to_their_place():
    labels = np.zeros((12, 30, 32), np.uint8)
    labels[3:9, 8:20, 10:24] = 1
    affine = np.diag([-1.0, 1.0, 2.5, 1.0])
    spec = spec_of((2.5, 2.0, 2.0))
    spec = spec.model_copy(update={"grid": spec.grid.model_copy(update={"decide": "scan"})})
    prepared = prepare([volume_of(labels, affine)], spec)
    on_grid = prepared.grid_labels(labels)
    logits = np.stack([(on_grid == k).astype(np.float32) for k in (0, 1)])
    back = restore_logits(prepared, logits, np.array([0, 1], np.uint8))
    assert back.shape == labels.shape
    assert 2 * (back & labels).sum() / (back.sum() + labels.sum()) > 0.93


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_a_corner_mark_is_found_and_put_back_in_all_48_orientations(axes, signs):
    mark = np.zeros((4, 5, 6), np.uint8)  # oriented: superior, posterior, left
    mark[-1, 0, -2:] = 1  # a superior, anterior, left mark
    ras_XYZ = mark[:, ::-1, ::-1].transpose(2, 1, 0)
    stored_XYZ = ras_XYZ.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for nifti_axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[world, nifti_axis] = sign * (1.0, 2.0, 3.0)[world]
    stored = np.ascontiguousarray(stored_XYZ.T)
    prepared = prepare([volume_of(stored * 400.0, affine)], spec_of((3.0, 2.0, 1.0)))
    np.testing.assert_array_equal(prepared.tensor_CZYX[0] > 0, mark > 0)
    restored = prepared.restore(mark)
    np.testing.assert_array_equal(restored, stored)
    assert restored.flags.c_contiguous
    np.testing.assert_array_equal(prepared.grid_labels(stored), mark)


@settings(deadline=None, max_examples=30)
@given(
    affines(),
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.floats(-35, 35)] * 2),
    st.tuples(*[st.sampled_from([0.6, 1.3, 4.0])] * 3),
    st.booleans(),
)
def test_a_restored_mask_has_the_scan_s_stored_shape_whatever_the_grid(
    affine, shape, degrees, spacing, cropped
):
    about_x, about_z = np.radians(degrees)
    turn_x, turn_z = np.eye(4), np.eye(4)
    turn_x[1:3, 1:3] = [[np.cos(about_x), -np.sin(about_x)], [np.sin(about_x), np.cos(about_x)]]
    turn_z[:2, :2] = [[np.cos(about_z), -np.sin(about_z)], [np.sin(about_z), np.cos(about_z)]]
    voxels = np.random.default_rng(1).integers(-1000, 100, shape)
    crop = {"threshold": -110, "margin_mm": 1.0} if cropped else None
    prepared = prepare([volume_of(voxels, turn_z @ turn_x @ affine)], spec_of(spacing, crop=crop))
    grid = prepared.tensor_CZYX.shape[1:]
    assert prepared.tensor_CZYX.dtype == np.float32
    assert prepared.grid_labels(np.ones(shape, np.uint8)).shape == grid
    restored = prepared.restore(np.ones(grid, np.uint8))
    assert restored.shape == shape
    assert restored.dtype == np.uint8
    covered_ml = prepared.voxel_ml * np.prod(grid)
    assert covered_ml == pytest.approx(prepared.stored_voxel_ml * np.count_nonzero(restored))


@pytest.mark.long
@settings(deadline=None, max_examples=30)
@given(
    st.tuples(*[st.integers(1, 300)] * 3).filter(lambda shape: np.prod(shape) < 2e5),
    st.tuples(*[st.sampled_from([0.7, 1.0, 5.0])] * 3),
    st.floats(0, 9),
    st.data(),
)
def test_the_crop_holds_the_body_with_its_margin(shape, spacing, margin_mm, data):
    body = tuple(
        slice(low, data.draw(st.integers(min(n, low + 4), n)))
        for n in shape
        for low in [data.draw(st.integers(0, max(0, n - 4)))]
    )
    voxels = np.full(shape, -3024.0, np.float32)
    voxels[body] = 40
    box = body_box(voxels, spacing, threshold=-110, margin_mm=margin_mm)
    for kept, inner, mm, count in zip(box, body, spacing, shape, strict=True):
        margin = int(np.floor(margin_mm / mm))
        assert 0 <= kept.start <= max(0, inner.start - margin)
        assert min(count, inner.stop + margin) <= kept.stop <= count


def test_the_crop_of_a_view_is_the_crop_of_its_copy():
    voxels = body().astype(np.float32)
    for view in (voxels[::-1, :, ::-1], voxels.transpose(2, 0, 1)[:, ::-1]):
        options = {"threshold": -110, "margin_mm": 2}
        mm = (1.0, 2.0, 3.0)
        assert body_box(view, mm, **options) == body_box(view.copy(), mm, **options)


@pytest.mark.parametrize("shape", [(8, 6, 10), (1, 3, 20), (5, 18, 3), (2, 2, 2)])
def test_linear_resampling_is_simpleitk_s_about_voxel_centres(shape):
    voxels = np.random.default_rng(0).normal(size=(5, 9, 7)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(voxels)
    spacing = [a / b for a, b in zip(voxels.shape[::-1], shape[::-1], strict=True)]
    theirs = SimpleITK.Resample(
        image,
        shape[::-1],
        SimpleITK.Transform(),
        SimpleITK.sitkLinear,
        [s / 2 - 0.5 for s in spacing],
        spacing,
        np.eye(3).ravel().tolist(),
    )
    ours = resample_linear(voxels, shape)
    np.testing.assert_allclose(ours, SimpleITK.GetArrayFromImage(theirs), atol=1e-5)


def test_linear_resampling_takes_views_and_arrays_that_cannot_be_written():
    voxels = np.random.default_rng(0).normal(size=(1, 4, 5)).astype(np.float32)
    wanted = resample_linear(voxels, (2, 4, 5))
    np.testing.assert_array_equal(resample_linear(voxels[::-1], (2, 4, 5)), wanted)
    frozen = voxels.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(resample_linear(frozen, (2, 4, 5)), wanted)


@pytest.mark.parametrize("decide", ["network", "scan"])
def test_labels_and_logits_of_another_grid_are_a_mistake_of_the_caller(decide):
    spec = spec_of()
    spec = spec.model_copy(update={"grid": spec.grid.model_copy(update={"decide": decide})})
    prepared = prepare([volume_of(np.zeros((4, 6, 8)), np.diag([2.0, 2.0, 4.0, 1.0]))], spec)
    assert prepared.tensor_CZYX.shape == (1, 8, 6, 8)
    values = np.array([0, 1], np.uint8)
    with pytest.raises(ValueError, match=r"uint8 \(8, 6, 8\) expected, got uint8 \(4, 6, 8\)"):
        prepared.restore(np.zeros((4, 6, 8), np.uint8))
    with pytest.raises(ValueError, match="got int64"):
        prepared.restore(np.zeros((8, 6, 8), np.int64))
    with pytest.raises(ValueError, match=r"uint8 \(4, 6, 8\) expected"):
        prepared.grid_labels(np.zeros((8, 6, 8), np.uint8))
    for wrong in ((3, 8, 6, 8), (2, 4, 6, 8)):
        with pytest.raises(ValueError, match=r"logits \(2, 8, 6, 8\) expected"):
            restore_logits(prepared, np.zeros(wrong, np.float32), values)


def test_channels_that_drift_apart_at_the_far_end_are_refused():
    voxels = np.zeros((4, 5, 300), np.float32)
    drifting = np.eye(4)
    drifting[0, 0] = 1.005  # 1.5 voxels at the far end
    with pytest.raises(InputError, match="another grid.*resample the channels"):
        prepare([volume_of(voxels, np.eye(4)), volume_of(voxels, drifting)], spec_of(channels=2))


def test_preparing_and_restoring_leave_their_input_as_it_was():
    voxels, affine = body().astype(np.float32), np.diag([1.0, 1.0, 5.0, 1.0])
    crop = {"threshold": -110, "margin_mm": 2.0}
    prepared = prepare([volume := volume_of(voxels, affine)], spec_of((5.0, 1.0, 1.0), crop=crop))
    labels = np.ones(prepared.tensor_CZYX.shape[1:], np.uint8)
    restored = prepared.restore(labels)
    restored[:] = 9
    prepared.tensor_CZYX[:] = 9
    np.testing.assert_array_equal(volume.voxels_ZYX, body())
    assert (labels == 1).all()


def test_a_thinned_body_is_looked_up_where_the_voxels_lie():
    inside = np.zeros((2, 2, 2), bool)
    inside[1, 0, 1] = True
    box = (slice(0, 5), slice(0, 3), slice(0, 6))
    body = Body(box=box, inside_ZYX=inside, strides=(2, 2, 3), unseen=())
    expected = inside[np.ix_([0, 0, 1, 1, 1], [0, 0, 1], [0, 0, 0, 1, 1, 1])]
    np.testing.assert_array_equal(body.at(*map(np.arange, (5, 3, 6))), expected)


def test_only_air_outside_the_body_is_not_needed():
    scan = np.full((12, 40, 40), -1000, np.float32)
    scan[2:10, 10:30, 10:30] = 40
    scan[4:8, 15:25, 15:25] = -900  # lungs: air, but enclosed
    found = find_body([scan], (2.0, 1.0, 1.0), thresholds=[-110], margin_mm=2)
    inside = found.at(np.arange(12), np.arange(40), np.arange(40))
    assert inside[2:10, 10:30, 10:30].all()
    assert not inside[:, :6].any()
    assert not inside[:, :, 34:].any()
    assert found.box == body_box(scan, (2.0, 1.0, 1.0), threshold=-110, margin_mm=2)


@pytest.mark.parametrize(
    ("names", "thresholds"),
    [(["CT"], (-300.0,)), (["CT", "PET"], (-300.0, 0.4)), (["suv", "CT"], (0.4, -300.0))],
)
def test_the_fast_mode_of_an_imported_network_looks_for_the_body_in_all_channels(names, thresholds):
    intensities = [{"kind": "z_score"} if name == "PET" else WINDOW for name in names]
    channels = [
        {"name": name, "intensity": how} for name, how in zip(names, intensities, strict=True)
    ]
    spec = spec_of(channels=channels, crop={"kind": "nonzero"}, nnunet={})
    assert spec.for_mode("fast").crop.thresholds == thresholds
    assert spec.for_mode("exact").crop == spec.crop


def test_a_channel_of_an_unknown_unit_leaves_the_crop_of_an_imported_network_as_it_is():
    channels = [
        {"name": "CT", "intensity": WINDOW},
        {"name": "T2", "intensity": {"kind": "z_score"}},
    ]
    spec = spec_of(channels=channels, crop={"kind": "nonzero"}, nnunet={})
    assert spec.for_mode("fast").crop == spec.crop


def test_the_fast_profile_of_an_imported_ct_network_looks_at_the_body_only():
    scan = np.full((10, 30, 30), -1000, np.int16)
    scan[2:8, 8:20, 8:20] = 40
    spec = spec_of(crop={"kind": "nonzero"}, nnunet={})
    volume = volume_of(scan, np.eye(4))
    prepared = prepare([volume], spec.for_mode("fast"))
    assert prepared.needed_ZYX is not None
    assert prepared.image_orders == (1, 1, 1)
    exact = prepare([volume], spec.for_mode("exact"))
    assert exact.needed_ZYX is None
    assert exact.cropped_shape == (10, 30, 30)


def test_a_placement_is_restricted_to_what_is_near_something_found():
    volume = volume_of(np.zeros((20, 24, 28)), np.diag([-2.0, -2.0, 2.0, 1.0]))
    placement = locate([volume], spec_of()).placement(spec_of())
    found = np.zeros((20, 24, 28), bool)
    found[8, 10, 12] = True
    needed = placement.restricted_to(found, 4.0).needed_ZYX
    expected = np.zeros_like(found)
    expected[6:11, 8:13, 10:15] = True
    np.testing.assert_array_equal(needed, expected)
    again = placement.restricted_to(found, 4.0).restricted_to(np.roll(found, 2, 0), 2.0)
    assert np.argwhere(again.needed_ZYX.any(axis=(1, 2))).ravel().tolist() == [9, 10]
    assert not placement.restricted_to(np.zeros_like(found), 4.0).needed_ZYX.any()
