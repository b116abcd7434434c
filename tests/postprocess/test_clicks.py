from __future__ import annotations

import numpy as np
import pytest

from flarekit import postprocess
from flarekit.core.spec import Rule
from flarekit.postprocess import Scan

LABELS = {"lesion": 1, "organ": 2}
RULE = Rule(name="clicks", labels=("lesion",), value=0.41)
SHAPE = (9, 30, 40)


def apply(label_map, suv=None, spacing=(1.0, 1.0, 1.0), **points):
    suv = np.zeros(SHAPE, np.float32) if suv is None else suv
    marked = {name: np.array(places, np.int64) for name, places in points.items()}
    scan = Scan(spacing_mm_ZYX=spacing, channels={"PET": suv}, points=marked)
    return postprocess.apply_rules(label_map, [RULE], LABELS, voxel_ml=1.0, scan=scan)


def two_lesions():
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[3:6, 5:10, 5:10] = label_map[3:6, 5:10, 20:25] = 1
    return label_map


def test_without_clicks_nothing_changes():
    np.testing.assert_array_equal(apply(two_lesions()), two_lesions())


def test_a_background_click_removes_the_component_it_lies_in():
    after = apply(two_lesions(), background=[[4, 7, 7]])
    assert not after[..., :15].any()
    np.testing.assert_array_equal(after[..., 15:], two_lesions()[..., 15:])


def test_a_background_click_on_background_changes_nothing():
    np.testing.assert_array_equal(apply(two_lesions(), background=[[0, 0, 0]]), two_lesions())


def test_of_a_component_with_both_kinds_the_part_near_the_background_click_goes():
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[4, 10, 5:35] = 1
    after = apply(label_map, tumor=[[4, 10, 8]], background=[[4, 10, 30]])
    assert np.flatnonzero(after[4, 10]).tolist() == list(range(5, 20))


def test_a_tumor_click_on_background_grows_over_what_takes_up_as_much():
    suv = np.ones(SHAPE, np.float32)
    suv[3:6, 10:14, 10:16] = 10
    suv[3:6, 20:24, 10:16] = 10  # not connected
    after = apply(np.zeros(SHAPE, np.uint8), suv, tumor=[[4, 12, 12]])
    expected = np.zeros(SHAPE, np.uint8)
    expected[3:6, 10:14, 10:16] = 1
    np.testing.assert_array_equal(after, expected)


def test_growth_keeps_to_its_reach_and_off_other_labels_and_background_clicks():
    suv = np.full((3, 3, 200), 5, np.float32)
    label_map = np.zeros(suv.shape, np.uint8)
    label_map[:, :, 110:] = 2
    after = apply(label_map, suv, tumor=[[1, 1, 100]], background=[[1, 1, 80]])
    np.testing.assert_array_equal(after == 2, label_map == 2)
    grown = np.flatnonzero((after == 1).any(axis=(0, 1)))
    assert grown.min() == 91  # 90 is as near to either click
    assert grown.max() == 109
    far = apply(np.zeros(suv.shape, np.uint8), suv, tumor=[[1, 1, 100]])
    assert np.flatnonzero(far[1, 1]).tolist() == list(range(70, 131))


def test_a_tumor_click_in_a_lesion_or_without_uptake_changes_nothing():
    np.testing.assert_array_equal(apply(two_lesions(), tumor=[[4, 7, 7]]), two_lesions())
    np.testing.assert_array_equal(apply(two_lesions(), tumor=[[0, 0, 0]]), two_lesions())


def test_clicks_at_the_corners_of_the_volume_are_fine():
    suv = np.ones(SHAPE, np.float32)
    after = apply(np.zeros(SHAPE, np.uint8), suv, tumor=[[0, 0, 0], [8, 29, 39]])
    assert after[0, 0, 0] == 1
    assert after[8, 29, 39] == 1


@pytest.mark.parametrize("label", ["tumor", "background"])
def test_other_labels_are_never_touched(label):
    label_map = np.full(SHAPE, 2, np.uint8)
    suv = np.ones(SHAPE, np.float32)
    np.testing.assert_array_equal(apply(label_map, suv, **{label: [[4, 4, 4]]}), label_map)


def scribbled(mask, uptake, **points):
    scan = Scan(
        spacing_mm_ZYX=(2.0, 1.0, 1.0),
        channels={"PET": uptake},
        points={name: np.array(places, np.int64) for name, places in points.items()},
    )
    label_map = mask.astype(np.uint8)
    return postprocess.apply_rules(label_map, [RULE], LABELS, voxel_ml=0.002, scan=scan) == 1


def ball(radius, shape=(25, 50, 50), centre=(12, 25, 25)):
    z, y, x = (
        axis - at for axis, at in zip(np.ogrid[tuple(map(slice, shape))], centre, strict=True)
    )
    return (2.0 * z) ** 2 + y**2 + x**2 <= radius**2


def test_a_scribble_on_background_takes_a_rim_away_and_leaves_the_lesion():
    truth, mask = ball(10), ball(10) | ball(14, centre=(12, 25, 29))
    uptake = np.where(truth, 6.0, 2.0).astype(np.float32)
    row = [(12, y, 39) for y in range(18, 33)]
    after = scribbled(mask, uptake, background=row)
    assert not after[tuple(np.transpose(row))].any()
    wrong_before, wrong_after = (mask & ~truth).sum(), (after & ~truth).sum()
    assert wrong_after < 0.8 * wrong_before
    assert (after & truth).sum() > 0.97 * truth.sum()


def test_a_scribble_on_tumor_beside_the_mask_moves_its_border_outwards():
    truth, mask = ball(12, centre=(12, 25, 27)), ball(10)
    uptake = np.where(truth, 6.0, 1.0).astype(np.float32)
    row = [(12, y, 37) for y in range(21, 30)]
    after = scribbled(mask, uptake, tumor=row)
    assert after[tuple(np.transpose(row))].all()
    assert (truth & ~after).sum() < 0.8 * (truth & ~mask).sum()
    assert (after & ~truth).sum() <= (mask & ~truth).sum()


def test_a_scribble_far_from_any_lesion_is_a_lesion_of_its_own():
    truth = ball(5, centre=(6, 10, 10))
    uptake = np.where(truth, 8.0, 1.0).astype(np.float32)
    row = [(6, 10, x) for x in range(7, 14)]
    for mask in (ball(5, centre=(20, 40, 40)), np.zeros(truth.shape, bool)):
        after = scribbled(mask, uptake, tumor=row)
        assert (after & truth).sum() > 0.9 * truth.sum()
        assert (after & ~truth & ~mask).sum() < 0.2 * truth.sum()


def test_the_order_of_scribbles_does_not_matter():
    mask = ball(10)
    uptake = np.full(mask.shape, 3.0, np.float32)
    rows = [[(12, y, 37) for y in range(21, 30)], [(12, 13, x) for x in range(21, 30)]]
    one = scribbled(mask, uptake, tumor=rows[0] + rows[1])
    other = scribbled(mask, uptake, tumor=rows[1] + rows[0])
    np.testing.assert_array_equal(one, other)


def test_a_click_on_background_at_the_rim_leaves_most_of_the_lesion():
    mask = ball(12)
    uptake = np.full(mask.shape, 3.0, np.float32)
    after = scribbled(mask, uptake, background=[(12, 25, 36)])
    assert not after[12, 25, 36]
    assert after.sum() > 0.9 * mask.sum()
    assert not scribbled(mask, uptake, background=[(12, 25, 27)]).any()


def test_what_only_breaks_off_as_a_border_moves_is_dropped():
    mask = ball(12)
    mask[12, 25, 37:41] = True
    mask[12, 24:27, 41:43] = True
    uptake = np.full(mask.shape, 3.0, np.float32)
    after = scribbled(mask, uptake, background=[(12, 25, x) for x in range(36, 41)])
    assert not after[12, 25, 37:].any()
    assert not after[12, 24:27, 41:43].any()
    assert after.sum() > 0.8 * ball(12).sum()


def test_a_scribble_changes_the_components_near_it_and_no_other():
    shape = (25, 50, 120)
    other = ball(9, shape, (12, 25, 95))
    other[3, 3, 3] = True  # a speck, which is not anybody's crumb
    mask = ball(10, shape, (12, 25, 25)) | other
    uptake = np.full(shape, 3.0, np.float32)
    after = scribbled(mask, uptake, background=[(12, y, 33) for y in range(20, 31)])
    assert after[..., :50].sum() < mask[..., :50].sum()
    np.testing.assert_array_equal(after & other, other)
    np.testing.assert_array_equal(after[..., 60:], mask[..., 60:])


@pytest.mark.parametrize("spacing", [(2.0, 1.0, 1.0), (3.0, 4.0, 4.0), (5.0, 7.0, 7.0)])
def test_scribbles_on_grids_of_any_spacing_take_hold(spacing):
    shape = (24, 40, 40)
    z, y, x = (
        (axis - length // 2) * mm
        for axis, length, mm in zip(np.ogrid[tuple(map(slice, shape))], shape, spacing, strict=True)
    )
    radius = 8 * spacing[1]
    mask = z**2 + y**2 + x**2 <= radius**2
    row = [(12, at, 20 + 6) for at in range(17, 24)]
    scan = Scan(
        spacing_mm_ZYX=spacing,
        channels={"PET": np.full(shape, 3.0, np.float32)},
        points={"background": np.array(row, np.int64)},
    )
    after = postprocess.apply_rules(mask.astype(np.uint8), [RULE], LABELS, voxel_ml=1.0, scan=scan)
    assert not after[tuple(np.transpose(row))].any()
    assert 0.3 * mask.sum() < (after == 1).sum() < mask.sum()


def test_what_grows_from_a_scribble_ends_at_a_scribble_on_background():
    uptake = np.full((25, 50, 50), 5.0, np.float32)
    mask = ball(4, centre=(20, 44, 44))
    tumor = [(6, 10, x) for x in range(7, 14)]
    background = [(6, y, 22) for y in range(4, 17)]
    free = scribbled(mask, uptake, tumor=tumor)
    bounded = scribbled(mask, uptake, tumor=tumor, background=background)
    assert free[6, 10, 22]
    assert not bounded[6, 4:17, 22:30].any()
    assert bounded[tuple(np.transpose(tumor))].any()


@pytest.mark.parametrize("name", ["tumor", "background"])
def test_scribbles_of_one_kind_only_add_or_only_take_away(name):
    mask = ball(11)
    uptake = np.full(mask.shape, 3.0, np.float32)
    rows = {
        "tumor": [(12, y, 39) for y in range(20, 31)],
        "background": [(12, y, 31) for y in range(20, 31)],
    }
    after = scribbled(mask, uptake, **{name: rows[name]})
    assert (after & ~mask).any() == (name == "tumor")
    assert (mask & ~after).any() == (name == "background")


def test_clicks_that_happen_to_lie_in_one_slice_are_no_scribble():
    mask = ball(10)
    uptake = np.where(mask, 6.0, 1.0).astype(np.float32)
    tumor = [(12, 25, 25)]
    background = [(12, 44, 30), (12, 44, 36), (12, 40, 41), (12, 46, 46)]
    np.testing.assert_array_equal(scribbled(mask, uptake, tumor=tumor, background=background), mask)
