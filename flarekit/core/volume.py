"""A scan in memory, and its orientation.

Axis order, said once: arrays are indexed (Z, Y, X), the reverse of NIfTI's (i, j, k), so that the
fastest axis comes last. A *stored* array keeps the directions the file has; an *oriented* array has
Z towards superior, Y towards posterior and X towards the patient's left. Affines map (i, j, k, 1)
to millimetres in RAS+ (right, anterior, superior), as nibabel does.
"""

from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ORIENTED = "SPL"  # where the oriented axes (Z, Y, X) point to
_IN_A_PLANE = 1e-3  # volume that unit vectors along the axes span
_RIGHT_ANGLE = 1e-3  # cosine between axes
_DIRECTIONS_RAS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What has to be kept of a file so that its mask overlays it.

    Attributes:
        shape_ZYX: number of voxels along each stored axis.
        affine: (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+.
        header: the file's own header, opaque here; the writer copies it.
    """

    shape_ZYX: tuple[int, int, int]
    affine: NDArray[np.float64]
    header: Any

    @property
    def spacing_mm_ZYX(self) -> tuple[float, float, float]:  # noqa: N802 - axis letters
        """Distance between neighbouring voxels along each stored axis, in mm."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[2]), float(lengths[1]), float(lengths[0])


@dataclass(frozen=True, kw_only=True)
class Volume:
    """One channel of one case, in the order the file stores it.

    Attributes:
        voxels_ZYX: float32, or the integers of the file where nothing scales them; finite.
        geometry: where the voxels lie.
        path: the file, for messages.
        warnings: what was odd about the file and how it was taken.
    """

    voxels_ZYX: NDArray[np.float32] | NDArray[np.integer[Any]]
    geometry: Geometry
    path: Path
    warnings: tuple[str, ...] = ()


def largest_shift_mm(
    one: NDArray[np.float64], other: NDArray[np.float64], shape_ZYX: tuple[int, int, int]
) -> float:
    """Return how far apart, at most, two affines put the same voxel of a grid.

    Two affines drift apart linearly, so a corner of the grid is where they differ most.

    Args:
        one: (4, 4) float64, stored index (i, j, k, 1) -> mm.
        other: (4, 4) float64, of the same kind.
        shape_ZYX: number of voxels along each stored axis.
    """
    z, y, x = shape_ZYX
    corners = np.array([(i, j, k, 1) for i in (0, x - 1) for j in (0, y - 1) for k in (0, z - 1)])
    return float(np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max())


@np.errstate(all="ignore")  # what is not finite spans nothing
def spans_space(affine: NDArray[np.float64]) -> bool:
    """Return whether an affine is finite and its three axes lie in no plane."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    usable = bool(np.isfinite(affine).all() and (lengths > 0).all())
    return usable and abs(float(np.linalg.det(affine[:3, :3] / lengths))) >= _IN_A_PLANE


def shear_notes(affine: NDArray[np.float64]) -> tuple[str, ...]:
    """Return a note where the axes of an affine are not at right angles, as of a tilted gantry."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if float(np.abs(directions.T @ directions - np.eye(3)).max()) <= _RIGHT_ANGLE:
        return ()
    return ("its axes are not orthogonal; the nearest rotation is used to orient it",)


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How stored axes map to oriented ones.

    Attributes:
        axes: `axes[k]` is the stored array axis that becomes oriented axis k (both in Z, Y, X).
        flipped: whether oriented axis k runs against its stored axis.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    def apply(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a stored (Z, Y, X) array in oriented axes."""
        oriented = stored.transpose(self.axes)
        return oriented[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]

    def undo(self, oriented: NDArray[Any]) -> NDArray[Any]:
        """Return a view of an oriented array in stored axes; the exact inverse of `apply`."""
        unflipped = oriented[tuple(slice(None, None, -1 if flip else 1) for flip in self.flipped)]
        return unflipped.transpose(tuple(int(axis) for axis in np.argsort(self.axes)))

    def apply_to_axes(self, values: tuple[float, float, float]) -> tuple[float, float, float]:
        """Reorder per-axis values (a spacing, say) from stored to oriented axes."""
        return values[self.axes[0]], values[self.axes[1]], values[self.axes[2]]


def repaired_directions(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the orthonormal matrix nearest to an affine's axis directions.

    Polar decomposition of the column-normalised 3x3 part: real headers are off by rounding, and
    sheared ones (gantry tilt) still have one best assignment of axes.

    Args:
        affine: (4, 4) float64 with linearly independent columns.

    Returns:
        (3, 3) float64, columns are unit directions of i, j, k in RAS+.
    """
    linear = affine[:3, :3]
    columns = linear / np.linalg.norm(linear, axis=0)
    u, _, vt = np.linalg.svd(columns)
    directions: NDArray[np.float64] = u @ vt
    return directions


def orientation_of(affine: NDArray[np.float64], axes: str = ORIENTED) -> Orientation:
    """Return the axis permutation and flips that bring a stored array into oriented axes.

    Each stored axis goes to a different anatomical axis; of the 48 ways the one whose directions
    agree best with the (repaired) affine is taken, so oblique scans are resolved too.

    Args:
        affine: (4, 4) float64, stored index (i, j, k) -> mm, RAS+.
        axes: where oriented Z, Y and X point to, one letter of RLAPSI each.

    Raises:
        ValueError: the letters do not name three different axes.
    """
    wanted = np.array([_DIRECTIONS_RAS[letter] for letter in axes], float)
    if wanted.shape != (3, 3) or abs(np.linalg.det(wanted)) < 0.5:
        raise ValueError(f"{axes!r} does not name three different axes")
    # cosine[k, a]: agreement of oriented array axis k with stored NIfTI axis a, (i, j, k)
    cosine = wanted @ repaired_directions(affine)
    nifti_axes = max(
        permutations(range(3)), key=lambda axes: sum(abs(cosine[k, axes[k]]) for k in range(3))
    )
    flipped = [bool(cosine[k, nifti_axes[k]] < 0) for k in range(3)]
    stored = [2 - axis for axis in nifti_axes]  # arrays are indexed the other way round
    return Orientation(
        axes=(stored[0], stored[1], stored[2]), flipped=(flipped[0], flipped[1], flipped[2])
    )
