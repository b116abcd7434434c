"""What a component is shaped like, and how far that is from training lesions."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from flarekit.core.gate import Gate, component_features

UNIT = tuple(tuple(float(row == column) for column in range(4)) for row in range(4))


def features(mask, spacing=(1.0, 1.0, 1.0), level=7.0):
    return component_features(mask, np.full(mask.shape, level), spacing)


def ball(radius, n=31):
    z, y, x = (axis - n // 2 for axis in np.ogrid[:n, :n, :n])
    return z**2 + y**2 + x**2 <= radius**2


def test_a_ball_has_its_volume_and_its_diameter():
    volume, extent, _, intensity = features(ball(10.0))
    assert np.exp(volume) == pytest.approx(4 / 3 * np.pi * 1.0, rel=0.02)
    assert np.exp(extent) == pytest.approx(20.0, rel=0.03)
    assert intensity == 7.0


def test_features_are_in_mm_whatever_the_voxels():
    block = np.ones((6, 12, 12), bool)
    finer = np.ones((12, 24, 24), bool)
    np.testing.assert_allclose(
        features(block, (2.0, 1.0, 1.0)), features(finer, (1.0, 0.5, 0.5)), atol=1e-9
    )


def test_a_tube_is_less_compact_than_a_ball_of_its_volume():
    tube = np.zeros((60, 9, 9), bool)
    tube[:, 3:6, 3:6] = True
    assert features(tube)[2] < features(ball(5.0))[2] - 0.2


def test_one_voxel_has_finite_features():
    assert np.isfinite(features(np.ones((1, 1, 1), bool))).all()


def test_distance_is_mahalanobis():
    covariance = np.diag([4.0, 1.0, 1.0, 9.0])
    gate = Gate(
        channel="CT",
        mean=(1.0, 0.0, 0.0, 0.0),
        covariance=tuple(map(tuple, covariance.tolist())),
        components=9,
    )
    assert gate.distance(np.array([5.0, 0.0, 0.0, 3.0])) == pytest.approx(np.sqrt(4 + 1))


@pytest.mark.parametrize("entry", [((0, 0), -1.0), ((0, 1), 0.5)])
def test_a_covariance_that_is_none_is_refused(entry):
    (row, column), value = entry
    matrix = np.eye(4)
    matrix[row, column] = value
    with pytest.raises(ValidationError, match="positive definite"):
        Gate(
            channel="CT",
            mean=(0.0,) * 4,
            covariance=tuple(map(tuple, matrix.tolist())),
            components=9,
        )
