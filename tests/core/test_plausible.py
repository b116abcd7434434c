from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flarekit.core.errors import InputError
from flarekit.core.plausible import check_geometry, check_intensities, check_range
from flarekit.core.volume import Geometry, Volume


def scan(voxels, spacing_mm=5.0):
    voxels = np.asarray(voxels)
    affine = np.diag([*np.broadcast_to(spacing_mm, 3), 1.0])
    geometry = Geometry(shape_ZYX=voxels.shape, affine=affine, header=None)
    return Volume(voxels_ZYX=voxels, geometry=geometry, path=Path("a.nii.gz"))


def body(dtype=np.int16):
    """A CT of 400 x 400 x 100 mm: soft tissue and bone in air."""
    voxels = np.full((20, 80, 80), -1000.0)
    voxels[:, 20:60, 15:65] = 40
    voxels[:, 50:55, 38:42] = 900
    return voxels.astype(dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.int32])
def test_a_ct_in_hu_and_a_pet_in_suv_are_not_remarked_on(dtype):
    assert check_geometry(scan(body(dtype))) == ()
    assert check_intensities(scan(body(dtype)), "CT") == ()
    assert check_intensities(scan((body() > 0) * 7.5), "PET") == ()
    assert check_intensities(scan(body() * 100), "MR") == ()


@pytest.mark.parametrize(
    ("voxels", "words"),
    [
        ((body() + 1024).astype(np.uint16), "no voxel is below -200 HU .the lowest is 24"),
        (body() + 1000, "no voxel is below -200 HU"),
        (np.clip(body(np.float32), -125, 275), "no voxel is below -200 HU"),
        ((body(np.float32) + 1000) / 2000, "between 0 and 0.95"),
        ((body(np.float32)) / 1000, "between -1 and 0.9"),
        ((body(np.float32) + 1000) / 10, "no voxel is below -200 HU"),
        (((body(np.float32) + 1000) / 8).astype(np.uint8), "no voxel is below -200 HU"),
        (body() - 1024, "0.0031 of its voxels lie between -200 and 300 HU"),
        (body(np.float32) * 1e6, "beyond 32767"),
        (body(np.int32) * 100, "beyond 32767"),
        (np.zeros((20, 80, 80), np.int16), "between 0 and 0"),
        (np.full((20, 80, 80), -1024, np.int16), "0 of its voxels"),
    ],
)
@pytest.mark.parametrize("channel", ["CT", "ct", "baseline-CT"])
def test_a_ct_that_is_not_in_hu_is_named(voxels, words, channel):
    (note,) = check_intensities(scan(voxels), channel)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(note)


def test_a_shift_shows_in_a_small_piece_of_a_body_too():
    piece = np.full((10, 20, 20), 40)
    piece[0, 0, 0] = 50
    assert check_intensities(scan(piece), "CT") == ()
    (note,) = check_intensities(scan(piece + 1024), "CT")
    assert "soft tissue" in note
    lung = np.full((6, 40, 40), -850)
    lung[0, 0, 0] = -840
    assert check_intensities(scan(lung, 1.0), "CT") == ()


def test_a_little_air_is_found_wherever_it_lies():
    voxels = body() + 1024
    voxels[1, 1, 1] = -1000
    large = np.repeat(np.repeat(voxels, 8, 1), 8, 2)
    large[large == -1000] = 24
    large[1, 3, 5] = -1000
    assert check_intensities(scan(large, 1.0), "CT") == ()


@pytest.mark.parametrize(
    ("peak", "words"),
    [
        (-1000, "below an SUV of -10: is it a PET"),
        (8836.0, "beyond an SUV of 1000"),
        (0.01, "below an SUV of 0.5"),
        (0, "0,"),
    ],
)
def test_a_pet_that_is_not_in_suv_is_named(peak, words):
    (note,) = check_intensities(scan((body() > 0) * peak), "PET")
    assert words in note


@pytest.mark.parametrize("kind", ["float32", "int64", "uint64"])
def test_a_value_that_no_scan_can_hold_is_refused_and_the_limit_itself_is_not(kind):
    voxels = np.zeros((3, 4, 5), kind)
    voxels[1, 2, 3] = 10_000_000_000
    check_range(scan(voxels))
    voxels[1, 2, 4] = 12_000_000_000
    with pytest.raises(InputError, match=r"a.nii.gz: its values reach 0 and 1.2e\+10.*\(1 of its"):
        check_range(scan(voxels))
    if kind != "uint64":
        with pytest.raises(InputError, match=r"reach -1.2e\+10 and 0, .*\(1 of its 60 voxels"):
            check_range(scan(np.where(voxels > 1.1e10, -voxels, 0)))


@pytest.mark.parametrize("kind", ["int16", "uint32"])
def test_no_integer_of_32_bits_is_too_large_for_a_scan(kind):
    check_range(scan(np.full((3, 4, 5), np.iinfo(kind).max, kind)))


@pytest.mark.parametrize("spacing_mm", [13.0, (13, 1, 1), (1, 13, 1), (1, 1, 130), (0.05, 1, 1)])
def test_a_field_of_view_or_a_spacing_that_can_hardly_be_is_named(spacing_mm):
    (note,) = check_geometry(scan(body(), spacing_mm))
    assert "suspect" in note
    assert "mm" in note


@pytest.mark.parametrize("spacing_mm", [100.0, (1, 1, 1000), (1e30, 1, 1), 1e-4, (1e-30, 1, 1)])
def test_a_field_of_view_or_a_spacing_that_cannot_be_is_refused(spacing_mm):
    with pytest.raises(InputError, match=r"a.nii.gz: its (field of view|spacing) is"):
        check_geometry(scan(body(), spacing_mm))


def test_the_body_may_be_long_but_not_wide_along_any_stored_axis():
    long = scan(np.zeros((400, 8, 8)), 5.0)
    assert check_geometry(long) == ()
    turned = np.array([[0, 0, 5.0, 0], [0, 5, 0, 0], [5, 0, 0, 0], [0, 0, 0, 1]])
    geometry = Geometry(shape_ZYX=(400, 8, 8), affine=turned, header=None)
    wide = Volume(voxels_ZYX=long.voxels_ZYX, geometry=geometry, path=Path("a"))
    (note,) = check_geometry(wide)
    assert "2000 x 40 x 40 mm" in note


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "notes"),
    [
        ((5, 5, 100), (10.0, 10.0, 10.0), 0),
        ((5, 5, 101), (10.0, 10.0, 10.0), 1),
        ((5, 100, 5), (10.0, 10.0, 10.0), 0),
        ((5, 101, 5), (10.0, 10.0, 10.0), 1),
        ((250, 5, 5), (10.0, 10.0, 10.0), 0),
        ((251, 5, 5), (10.0, 10.0, 10.0), 1),
        ((500, 5, 5), (10.0, 10.0, 10.0), 1),
        ((5, 5, 5), (20.0, 0.1, 0.1), 0),
        ((5, 5, 5), (21.0, 1.0, 1.0), 1),
        ((5, 5, 5), (1.0, 0.09, 1.0), 1),
        ((5, 5, 5), (1.0, 0.001, 1.0), 1),
    ],
)
def test_a_limit_itself_is_allowed(shape, spacing_mm, notes):
    z_mm, y_mm, x_mm = spacing_mm
    assert len(check_geometry(scan(np.zeros(shape), (x_mm, y_mm, z_mm)))) == notes


@pytest.mark.parametrize(("shape", "spacing_mm"), [((501, 5, 5), 10.0), ((5, 5, 5), 0.0009)])
def test_what_is_beyond_a_limit_is_refused(shape, spacing_mm):
    with pytest.raises(InputError):
        check_geometry(scan(np.zeros(shape), spacing_mm))


@pytest.mark.parametrize(
    ("low", "high", "doubtful"),
    [(-10, 1000, 0), (-10.5, 5, 1), (0, 1000.5, 1), (0, 0.5, 0), (0, 0.49, 1)],
)
def test_the_limits_of_suv_are_allowed_themselves(low, high, doubtful):
    voxels = np.zeros((4, 4, 4), np.float32)
    voxels[0, 0, 0], voxels[1, 1, 1] = low, high
    assert len(check_intensities(scan(voxels), "PET")) == doubtful


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-1, 1, "between"),
        (-32767, 40, ""),
        (-32768, 40, "beyond"),
        (-1000, 32767, ""),
        (-1000, 32768, "beyond"),
        (-200, 40, "no voxel is below"),
        (-201, 40, ""),
    ],
)
def test_the_limits_of_hu_are_allowed_themselves(low, high, words):
    voxels = np.zeros((20, 50, 50), np.int32)
    voxels[0, 0, 0], voxels[1, 1, 1] = low, high
    notes = check_intensities(scan(voxels), "CT")
    assert words in notes[0] if words else notes == ()


@pytest.mark.parametrize("channel", ["CT", "MR", "mri", "follow-up-CT"])
@pytest.mark.parametrize("value", [7, -1024])
def test_a_scan_that_shows_nothing_is_named(channel, value):
    (note,) = check_intensities(scan(np.full((4, 5, 6), value, np.int16)), channel)
    assert f"one value ({value})" in note


def test_a_channel_of_clicks_may_show_nothing():
    assert check_intensities(scan(np.zeros((4, 5, 6), np.uint8)), "tumor") == ()
