"""Pictures of a case: where truth and prediction agree, and the scan behind them."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from flarekit.evaluation.picture import Pictures, draw_case

pytest.importorskip("matplotlib")

BOTH, ONLY_TRUTH, ONLY_PREDICTED = (0.3, 0.85, 0.35), (0.2, 0.5, 1.0), (1.0, 0.3, 0.2)


def drawn(folder, case_id="a"):
    from matplotlib.image import imread

    return imread(folder / f"{case_id}.png")[..., :3]


def share(picture, colour):
    """Return the share of pixels that have a colour, painted over black at an opacity of 0.55."""
    return float((np.abs(picture - 0.55 * np.array(colour)).max(axis=-1) < 0.02).mean())


def block(left):
    """Return a cube that begins at a column."""
    values = np.zeros((16, 16, 16), np.uint8)
    values[4:12, 4:12, left : left + 8] = 1
    return values


@pytest.mark.long
def test_colours_tell_what_both_have_and_what_only_one_has(tmp_path, mask):
    pictures = Pictures(folder=tmp_path)
    truth = mask(block(4))
    assert draw_case(pictures, "a", truth, mask(block(4)), {"liver": 1}) == []
    same = [share(drawn(tmp_path), colour) for colour in (BOTH, ONLY_TRUTH, ONLY_PREDICTED)]
    assert same[0] > 0.01
    assert same[1:] == [0, 0]
    draw_case(pictures, "a", truth, mask(block(8)), {"liver": 1})
    shifted = [share(drawn(tmp_path), colour) for colour in (BOTH, ONLY_TRUTH, ONLY_PREDICTED)]
    assert 0 < shifted[0] < same[0]
    assert shifted[1] > 0
    assert shifted[2] > 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("hu", "shade", "least"), [(-160, 0.0, 0.9), (-60, 0.25, 0.2), (240, 1.0, 0.2)]
)
def test_a_ct_is_shown_from_minus_160_to_240_hu(tmp_path, mask, hu, shade, least):
    scan = np.full((16, 16, 16), hu, np.int16)
    scan[0] = -1000
    nibabel.save(nibabel.Nifti1Image(scan.T, np.eye(4)), tmp_path / "a_0000.nii.gz")
    nothing = mask(np.zeros((16, 16, 16)))
    pictures = Pictures(folder=tmp_path, scans=tmp_path)
    assert draw_case(pictures, "a", nothing, None, {"liver": 1}) == []
    near = np.abs(drawn(tmp_path) - shade).max(axis=-1) < 0.01
    assert near.mean() > least  # what lies around the planes is black


@pytest.mark.long
def test_a_scan_on_another_grid_is_told_and_left_out(tmp_path, mask):
    def bright_pixels(shape):
        scan = np.full(shape, 240, np.int16)
        scan[0] = -1000
        nibabel.save(nibabel.Nifti1Image(scan.T, np.eye(4)), tmp_path / "a_0000.nii.gz")
        pictures = Pictures(folder=tmp_path, scans=tmp_path)
        notes = draw_case(pictures, "a", mask(block(4)), None, {"liver": 1})
        return notes, float((drawn(tmp_path).min(axis=-1) > 0.95).mean())

    notes, bright = bright_pixels((16, 16, 16))
    assert notes == []
    assert bright > 0.05
    notes, dark = bright_pixels((16, 16, 17))
    assert notes == [f"picture: {tmp_path / 'a_0000.nii.gz'} is not on the truth's grid"]
    assert dark < bright / 5
