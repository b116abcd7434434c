"""What lesions of a training set are shaped like, as numbers, and how far a component is from them.

Four features of a component: the logarithms of its volume (ml), of its extent (mm, the longest axis
of an ellipsoid with its moments) and of its compactness (its surface against that of a ball of its
volume, 1 for a ball), and its mean intensity in one channel. The distance is Mahalanobis's.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from flarekit.core.channels import Number
from flarekit.core.tables import Table

FEATURES = ("log_volume_ml", "log_extent_mm", "log_compactness", "intensity")
_Row = tuple[Number, Number, Number, Number]


class Gate(Table):
    """How the features of training lesions are distributed.

    Attributes:
        channel: whose intensity is the fourth feature.
        mean: of each feature.
        covariance: of the features.
        components: how many lesions were measured.
    """

    channel: str
    mean: _Row
    covariance: tuple[_Row, _Row, _Row, _Row]
    components: Annotated[int, Field(ge=1, strict=True)]

    @model_validator(mode="after")
    def _positive(self) -> Gate:
        matrix = np.array(self.covariance)
        if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix).min() <= 0:
            raise ValueError("covariance is not symmetric and positive definite")
        return self

    def distance(self, features: NDArray[np.float64]) -> float:
        """Return how far a component is from training lesions, in standard deviations.

        Args:
            features: (4,), of `component_features`.
        """
        off = features - np.array(self.mean)
        return float(np.sqrt(off @ np.linalg.solve(np.array(self.covariance), off)))


def component_features(
    inside_ZYX: NDArray[np.bool_],
    intensity_ZYX: NDArray[np.floating | np.integer],
    spacing_mm_ZYX: tuple[float, float, float],
) -> NDArray[np.float64]:
    """Return the four features of a component.

    Args:
        inside_ZYX: bool, the component in its box, not empty.
        intensity_ZYX: of that box.
        spacing_mm_ZYX: distance between neighbouring voxels.
    """
    spacing = np.array(spacing_mm_ZYX)
    volume_mm3 = float(inside_ZYX.sum() * spacing.prod())
    places_mm = np.argwhere(inside_ZYX) * spacing
    moments = np.cov(places_mm.T, bias=True) + np.diag(spacing**2 / 12)  # of a voxel itself
    extent_mm = 2 * float(np.sqrt(5 * np.linalg.eigvalsh(moments)[-1]))
    of_ball_mm2 = float(np.pi ** (1 / 3) * (6 * volume_mm3) ** (2 / 3))
    compactness = of_ball_mm2 / _surface_mm2(inside_ZYX, spacing)
    return np.array(
        [
            np.log(volume_mm3 / 1000),
            np.log(extent_mm),
            np.log(compactness),
            float(intensity_ZYX[inside_ZYX].mean(dtype=np.float64)),
        ]
    )


def _surface_mm2(inside_ZYX: NDArray[np.bool_], spacing: NDArray[np.float64]) -> float:
    """Return the area of all faces of voxels that lead outside."""
    padded = np.pad(inside_ZYX, 1)
    faces = [np.count_nonzero(np.diff(padded, axis=axis)) for axis in range(3)]
    return float(np.dot(faces, spacing.prod() / spacing))
