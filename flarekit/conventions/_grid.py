"""Bringing one volume onto the voxels of another."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flarekit.core.volume import Geometry, Volume, largest_shift_mm

_COVERED = 0.9  # of the grid: less is told
_POINTS = 16  # along each axis
_SAME_GRID_VOXELS = 0.01  # headers round: closer than this is the same grid


def onto(
    volume: Volume,
    reference: Geometry,
    *,
    outside: float,
    nearest: bool = False,
    shift_mm: NDArray[np.float64] | None = None,
) -> Volume:
    """Return a volume with the reference's geometry.

    Its voxels are kept where they lie on the reference's grid already, up to rounding; else they
    are resampled, and the volume says so in its warnings.

    Args:
        volume: what to bring over.
        reference: the grid that is wanted.
        outside: the value of voxels that the volume does not reach.
        nearest: take the nearest voxel (for labels) instead of interpolating linearly.
        shift_mm: (3,) RAS, moves the volume first.
    """
    source = volume.geometry.affine.copy()
    if shift_mm is not None:
        source[:3, 3] += shift_mm
    if volume.geometry.shape_ZYX == reference.shape_ZYX:
        gap_mm = largest_shift_mm(source, reference.affine, reference.shape_ZYX)
        if gap_mm <= _SAME_GRID_VOXELS * min(reference.spacing_mm_ZYX):
            return replace(volume, geometry=reference)
    voxels = _resampled(volume.voxels_ZYX, source, reference, outside=outside, nearest=nearest)
    note = "lies on another grid than the mask's: resampled"
    share = _covered(volume.geometry.shape_ZYX, source, reference)
    if share < _COVERED:
        note += f"; it covers {share:.0%} of the mask's grid, the rest is taken for {outside:g}"
    return replace(volume, voxels_ZYX=voxels, geometry=reference, warnings=(*volume.warnings, note))


def _covered(
    shape_ZYX: tuple[int, int, int], source: NDArray[np.float64], reference: Geometry
) -> float:
    """Return which part of a grid a volume reaches, as of points spread evenly over the grid."""
    even = (np.arange(_POINTS) + 0.5) / _POINTS
    along = [even * n - 0.5 for n in reference.shape_ZYX[::-1]]
    points = np.stack([*(each.ravel() for each in np.meshgrid(*along)), np.ones(_POINTS**3)])
    index = (np.linalg.inv(source) @ reference.affine @ points)[:3]
    past = np.array(shape_ZYX[::-1])[:, None] - 0.5
    return float(((index >= -0.5) & (index <= past)).all(axis=0).mean())


def _resampled(
    voxels_ZYX: NDArray[np.generic],
    source: NDArray[np.float64],
    reference: Geometry,
    *,
    outside: float,
    nearest: bool,
) -> NDArray[np.float32]:
    """Resample from index to index, so that SimpleITK never has to accept an affine."""
    import SimpleITK

    index_to_index = np.linalg.inv(source) @ reference.affine
    transform = SimpleITK.AffineTransform(
        index_to_index[:3, :3].ravel().tolist(), index_to_index[:3, 3].tolist()
    )
    resampled = SimpleITK.Resample(
        SimpleITK.GetImageFromArray(voxels_ZYX),
        reference.shape_ZYX[::-1],
        transform,
        SimpleITK.sitkNearestNeighbor if nearest else SimpleITK.sitkLinear,
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        np.eye(3).ravel().tolist(),
        outside,
        SimpleITK.sitkFloat32,
    )
    result: NDArray[np.float32] = SimpleITK.GetArrayFromImage(resampled)
    return result
