from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekit.core.volume import Orientation, orientation_of, repaired_directions

ORIENTED = np.arange(2 * 3 * 5).reshape(2, 3, 5)  # Z superior, Y posterior, X left
WAYS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def stored_as(axes, signs, tilt=None):
    """Store the oriented array with NIfTI axis a along world axis axes[a] times signs[a]."""
    linear = np.zeros((3, 3))
    for nifti_axis, (world, sign) in enumerate(zip(axes, signs, strict=True)):
        linear[world, nifti_axis] = sign
    affine = np.eye(4)
    affine[:3, :3] = linear if tilt is None else tilt @ linear
    ras_XYZ = ORIENTED[:, ::-1, ::-1].transpose(2, 1, 0)  # x right, y anterior, z superior
    stored_XYZ = ras_XYZ.transpose(axes)
    stored_XYZ = stored_XYZ[tuple(slice(None, None, sign) for sign in signs)]
    return stored_XYZ.transpose(2, 1, 0), affine


@pytest.mark.parametrize(("axes", "signs"), WAYS)
def test_an_asymmetric_phantom_comes_to_one_array_from_all_48_orientations(axes, signs):
    stored_ZYX, affine = stored_as(axes, signs)
    orientation = orientation_of(affine)
    np.testing.assert_array_equal(orientation.apply(stored_ZYX), ORIENTED)
    np.testing.assert_array_equal(orientation.undo(ORIENTED), stored_ZYX)


@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
@pytest.mark.parametrize("way", [0, 13, 29, 47])
def test_oblique_scans_go_to_the_nearest_axes(degrees, way):
    angle = np.radians(degrees)
    tilt = np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )
    stored_ZYX, affine = stored_as(*WAYS[way], tilt=tilt)
    np.testing.assert_array_equal(orientation_of(affine).apply(stored_ZYX), ORIENTED)


@given(
    st.permutations([0, 1, 2]), st.tuples(*[st.booleans()] * 3), st.tuples(*[st.integers(1, 5)] * 3)
)
def test_undo_is_the_exact_inverse_of_apply(axes, flipped, shape):
    orientation = Orientation(axes=tuple(axes), flipped=flipped)
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(orientation.undo(orientation.apply(array)), array)
    oriented = orientation.apply(array)
    assert oriented.shape == orientation.apply_to_axes(array.shape)


def test_other_axes_can_be_asked_for():
    stored_ZYX, affine = stored_as((0, 1, 2), (1, 1, 1))
    oriented = orientation_of(affine, "SRA").apply(stored_ZYX)
    np.testing.assert_array_equal(oriented, ORIENTED[:, ::-1, ::-1].transpose(0, 2, 1))
    with pytest.raises(ValueError, match="three different axes"):
        orientation_of(affine, "SRL")


def test_directions_off_by_rounding_are_repaired_to_a_rotation():
    linear = np.diag([0.7, 0.7, 5.0])
    linear[0, 1] = 2e-3
    affine = np.eye(4)
    affine[:3, :3] = linear
    repaired = repaired_directions(affine)
    np.testing.assert_allclose(repaired @ repaired.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(repaired, np.eye(3), atol=2e-3)
