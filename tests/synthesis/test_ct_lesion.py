from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flarekit.synthesis import ct_lesion_voi
from flarekit.synthesis.ct_lesion import blend, tissue_masks, unclipped
from flarekit.synthesis.shapes import BlobLook, blob_depth, smooth_noise

SPACING = (3.0, 1.5, 1.5)


def torso(*, clipped=False):
    """Return a body of soft tissue and fat with one lung, in air."""
    z, y, x = np.meshgrid(np.arange(24), np.arange(120), np.arange(140), indexing="ij")
    r = ((y - 60) / 50.0) ** 2 + ((x - 70) / 60.0) ** 2
    hu = np.where(r < 1, -100.0, -1000.0)
    hu[r < 0.75] = 45
    lung = ((y - 60) / 28.0) ** 2 + ((x - 95) / 24.0) ** 2 < 1
    hu[lung & (z > 2) & (z < 21)] = -850
    hu += np.random.default_rng(0).normal(0, 8, hu.shape)
    if clipped:
        hu = np.clip(hu, -125, 275)
    return hu.astype(np.float32)


@pytest.mark.long
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_a_voi_has_one_lesion_in_its_middle(seed):
    voi = ct_lesion_voi(torso(), SPACING, seed)
    assert voi.hu_ZYX.shape == voi.lesion_ZYX.shape
    assert voi.hu_ZYX.dtype == np.float32
    where = np.argwhere(voi.lesion_ZYX)
    box_middle = (where.min(axis=0) + where.max(axis=0)) / 2
    assert np.abs(box_middle - np.array(voi.hu_ZYX.shape) / 2).max() <= 1
    assert abs(voi.hu_ZYX.shape[1] * SPACING[1] - 170) < 3
    assert np.isfinite(voi.hu_ZYX).all()


def test_the_seed_decides_everything_and_the_scan_is_not_touched():
    scan = torso()
    before = scan.copy()
    one, same, other = (ct_lesion_voi(scan, SPACING, seed) for seed in (3, 3, 4))
    assert np.array_equal(one.hu_ZYX, same.hu_ZYX)
    assert np.array_equal(one.lesion_ZYX, same.lesion_ZYX)
    assert not np.array_equal(one.lesion_ZYX, other.lesion_ZYX)
    assert np.array_equal(scan, before)


def test_outside_the_lesion_s_border_the_scan_stays_as_it_was():
    scan = torso()
    blended, mask = blend(scan, SPACING, (12, 60, 50), 25, "tissue", np.random.default_rng(1))
    changed = np.abs(blended - scan) > 1
    from scipy.ndimage import distance_transform_edt

    assert distance_transform_edt(~mask, sampling=SPACING)[changed].max() < 20
    assert changed[mask].mean() > 0.5


@pytest.mark.parametrize(
    ("place", "centre"),
    [("lung", (12, 60, 95)), pytest.param("tissue", (12, 60, 40), marks=pytest.mark.long)],
)
def test_a_lesion_s_volume_is_about_that_of_its_diameter(place, centre):
    volumes = []
    for seed in range(6):
        _, mask = blend(torso(), SPACING, centre, 24, place, np.random.default_rng(seed))
        volumes.append(mask.sum() * np.prod(SPACING))
    assert 0.5 < np.median(volumes) / (np.pi / 6 * 24**3) < 2


@pytest.mark.long
def test_lesions_keep_the_grain_of_the_scan():
    scan = torso()
    deviations = []
    for seed in range(5):
        blended, mask = blend(
            scan, SPACING, (12, 60, 40), 30, "tissue", np.random.default_rng(seed)
        )
        from scipy.ndimage import binary_erosion, gaussian_filter

        inner = binary_erosion(mask, iterations=2)
        deviations.append((blended - gaussian_filter(blended, 1))[inner].std())
    assert 2 < np.median(deviations) < 30


def test_clipped_scans_get_their_air_and_lungs_back():
    clipped = torso(clipped=True)
    filled = unclipped(clipped, SPACING, np.random.default_rng(0))
    assert filled[12, 60, 95] < -600  # lung
    assert filled[12, 3, 3] < -950  # air
    body = clipped > 40
    assert np.array_equal(filled[body], clipped[body])
    whole = torso()
    assert np.array_equal(
        unclipped(whole, SPACING, np.random.default_rng(0)), np.maximum(whole, -1000)
    )


def test_tissues_are_told_apart():
    masks = tissue_masks(torso(), SPACING)
    assert masks["lung"][12, 60, 95]
    assert masks["tissue"][12, 60, 40]
    assert masks["fat"][12, 60, 14]
    assert not any(mask[12, 2, 2] for mask in masks.values())


def test_a_scan_without_a_body_has_no_place_for_a_lesion():
    with pytest.raises(ValueError, match="no place"):
        ct_lesion_voi(np.full((10, 40, 40), -1000.0), SPACING, 0)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(8, 40))
def test_a_blob_is_deep_in_its_middle_and_outside_far_away(seed, diameter):
    shape, spacing = (24, 60, 60), (4.0, 2.0, 2.0)
    look = BlobLook(diameter_mm=diameter)
    depth = blob_depth(shape, spacing, (12, 30, 30), look, np.random.default_rng(seed))
    assert depth[12, 30, 30] > 0
    offset = (np.indices(shape).T - (12, 30, 30)) * spacing
    far = 1.6 * diameter < np.linalg.norm(offset, axis=-1).T
    assert depth[far].max(initial=-1) < 0


def test_spikes_reach_beyond_a_blob_s_round():
    def reach(spikes):
        look = BlobLook(diameter_mm=20, elongation=0, lobes=0, spikes=spikes)
        depth = blob_depth((40, 40, 40), (1, 1, 1), (20, 20, 20), look, np.random.default_rng(2))
        offset = np.linalg.norm(np.indices((40, 40, 40)).T - 20, axis=-1).T
        return offset[depth > 0].max()

    assert reach(10) > reach(0) + 2


def test_noise_is_smooth_over_its_length_in_millimetres():
    field = smooth_noise((40, 80, 80), (4.0, 2.0, 2.0), 12.0, np.random.default_rng(0))
    assert abs(float(field.mean())) < 1e-3
    assert float(field.std()) == pytest.approx(1, abs=1e-3)
    along = [
        float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        for a, b in ((field[:-2], field[2:]), (field[:, :-4], field[:, 4:]))
    ]  # 8 mm each
    assert along[0] == pytest.approx(along[1], abs=0.12)
    assert along[0] > 0.75
