from __future__ import annotations

import numpy as np
import pytest

from flarekit.synthesis import ORGANS, wholebody_petct
from flarekit.synthesis.body import body_around
from flarekit.synthesis.plain import plain_body, plain_scan

SPACING = (8.0, 8.0, 8.0)


def organs_of_a_patient():
    """Return ellipsoids where organs are: Z up, Y to the back, X to the left."""
    shape = (112, 40, 50)
    z, y, x = np.meshgrid(*(np.arange(n) * SPACING[0] for n in shape), indexing="ij")
    organs = np.zeros(shape, np.uint8)

    def add(name, centre, half):
        inside = sum(((a - c) / h) ** 2 for a, c, h in zip((z, y, x), centre, half, strict=True))
        organs[inside < 1] = ORGANS[name]

    for side in (-1, 1):
        add("lungs", (570, 160, 200 + side * 70), (110, 70, 55))
        add("kidneys", (400, 190, 200 + side * 60), (50, 25, 25))
        add("head_glands", (730, 150, 200 + side * 45), (20, 12, 12))
    add("heart", (530, 140, 220), (45, 40, 50))
    add("liver", (440, 150, 150), (65, 60, 80))
    add("spleen", (440, 190, 285), (45, 30, 25))
    add("stomach", (430, 135, 255), (35, 30, 40))
    add("bladder", (180, 140, 200), (30, 30, 35))
    add("brain", (820, 150, 200), (55, 75, 60))
    return organs


@pytest.fixture(scope="module")
def organs():
    return organs_of_a_patient()


@pytest.fixture(scope="module")
def scans(organs):
    return [wholebody_petct(organs, SPACING, seed) for seed in range(4)]


@pytest.mark.long
def test_the_seed_decides_everything(organs, scans):
    again = wholebody_petct(organs, SPACING, 0)
    assert np.array_equal(again.suv_ZYX, scans[0].suv_ZYX)
    assert np.array_equal(again.lesions_ZYX, scans[0].lesions_ZYX)
    assert not np.array_equal(scans[0].suv_ZYX, scans[1].suv_ZYX)


@pytest.mark.long
def test_a_body_encloses_its_organs_and_air_surrounds_it(organs, scans):
    body = body_around(organs, SPACING, np.random.default_rng(0))
    assert body.inside[organs > 0].all()
    layers = [body.fat, body.muscle, body.cavity, body.bone]
    assert not any((one & other).any() for k, one in enumerate(layers) for other in layers[:k])
    assert not any(layer[organs > 0].any() for layer in layers)
    assert (body.marrow <= body.bone).all()
    for scan in scans:
        assert scan.hu_ZYX[:, :2].mean() < -900
        assert scan.hu_ZYX.min() >= -1024
        assert np.isfinite(scan.hu_ZYX).all()


def test_physiology_is_where_it_belongs(organs, scans):
    def mean(scan, name):
        return float(scan.suv_ZYX[(organs == ORGANS[name]) & (scan.lesions_ZYX == 0)].mean())

    for scan in scans:
        assert mean(scan, "brain") > 1.3 * mean(scan, "liver")
        assert mean(scan, "bladder") > 1.5 * mean(scan, "liver")
        assert 1 < mean(scan, "liver") < 4
        assert mean(scan, "kidneys") > 0.8 * mean(scan, "liver")
        assert mean(scan, "lungs") < 0.6 * mean(scan, "liver")
        assert scan.suv_ZYX.min() >= 0


def test_plain_bodies_have_one_uptake_an_organ(organs):
    rng = np.random.default_rng(0)
    body = body_around(organs, SPACING, rng)
    for _ in range(4):
        hu, suv = plain_scan(organs, body, rng)
        assert all(np.ptp(suv[organs == value]) == 0 for value in np.unique(organs[organs > 0]))
        assert suv[organs == ORGANS["brain"]][0] > suv[organs == ORGANS["lungs"]][0]
        assert (hu[~body.inside] == -1000).all()
        assert hu[organs == ORGANS["lungs"]][0] < -500


@pytest.mark.long
def test_plain_outlines_enclose_organs_and_have_no_skeleton(organs):
    shares, ends = [], []
    for seed in range(12):
        body = plain_body(organs, SPACING, np.random.default_rng(seed))
        assert body.inside[organs > 0].all()
        layers = [body.fat, body.muscle, body.cavity]
        assert (sum(layer.astype(int) for layer in layers) == (body.inside & (organs == 0))).all()
        assert not body.bone.any()
        shares.append(body.inside.mean())
        ends.append(bool(body.inside[0].any()))
    assert min(shares) > (organs > 0).mean()
    assert max(shares) > 1.5 * min(shares)
    assert set(ends) == {False, True}
    with pytest.raises(ValueError, match="no organs"):
        plain_body(np.zeros_like(organs), SPACING, np.random.default_rng(0))


@pytest.mark.long
@pytest.mark.parametrize("plain", [0.0, 1.0])
def test_a_body_is_plain_when_told_so(organs, monkeypatch, plain):
    calls = []

    def noted(*arguments):
        calls.append(arguments)
        return plain_scan(*arguments)

    monkeypatch.setattr("flarekit.synthesis.wholebody.plain_scan", noted)
    for seed in range(3):
        wholebody_petct(organs, SPACING, seed, plain=plain)
    assert len(calls) == 3 * plain


def test_bright_organs_are_no_lesions(organs, scans):
    hot = np.isin(organs, [ORGANS[name] for name in ("brain", "heart", "kidneys", "bladder")])
    assert all(not scan.lesions_ZYX[hot].any() for scan in scans)


@pytest.mark.long
def test_lesions_stand_out_and_some_bodies_have_none(organs):
    many = [wholebody_petct(organs, SPACING, seed, most_lesions=3) for seed in range(6)]
    counts = [int(scan.lesions_ZYX.sum()) for scan in many]
    assert min(counts) == 0
    assert max(counts) > 20
    for scan in many:
        lesion = scan.lesions_ZYX > 0
        if lesion.sum() > 20:
            assert np.percentile(scan.suv_ZYX[lesion], 90) > 1.5


def test_the_noise_grows_with_activity_and_is_smooth(organs, scans):
    scan = scans[0]
    liver = (organs == ORGANS["liver"]) & (scan.lesions_ZYX == 0)
    lung = (organs == ORGANS["lungs"]) & (scan.lesions_ZYX == 0)
    from scipy.ndimage import binary_erosion

    liver, lung = (binary_erosion(mask, iterations=1) for mask in (liver, lung))
    assert scan.suv_ZYX[liver].std() > scan.suv_ZYX[lung].std()
    neighbours = np.corrcoef(scan.suv_ZYX[liver][:-1], scan.suv_ZYX[liver][1:])[0, 1]
    assert neighbours > 0.2


def test_a_map_without_a_trunk_is_refused():
    with pytest.raises(ValueError, match="trunk"):
        wholebody_petct(np.zeros((20, 20, 20), np.uint8), SPACING, 0)


def test_a_field_of_view_without_head_or_pelvis_works(organs):
    middle = organs[44:88]
    scan = wholebody_petct(middle, SPACING, 1)
    assert scan.suv_ZYX.shape == middle.shape
    assert np.isfinite(scan.suv_ZYX).all()


@pytest.mark.data
def test_real_organ_maps_become_bodies(shared):
    from flarekit.core.nifti import read_nifti
    from flarekit.core.volume import orientation_of

    path = sorted((shared / "data" / "wholebody_organs").glob("*.nii.gz"))[0]
    volume = read_nifti(path)
    orientation = orientation_of(volume.geometry.affine)
    organs = orientation.apply(volume.voxels_ZYX.astype(np.uint8))[::2, ::2, ::2]
    spacing = tuple(2 * mm for mm in orientation.apply_to_axes(volume.geometry.spacing_mm_ZYX))
    scan = wholebody_petct(organs, spacing, 0)
    body = scan.hu_ZYX > -300
    assert 0.05 < body.mean() < 0.5
    assert scan.suv_ZYX[organs == ORGANS["bladder"]].mean() > 3
