"""Whether two files have the same voxels in space, and in what they differ where they have not."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from flarekit.core.volume import Geometry, largest_shift_mm

_SAME_SPACING = 1e-3  # of the spacing
_SAME_DIRECTION = 1e-3  # between direction cosines
_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def grid_difference(one: Geometry, other: Geometry, most_mm: float) -> str:
    """Return in what a grid differs from another one, in words; empty where it does not.

    Args:
        one: the grid that is looked at; "it" of the words.
        other: the grid that it should have.
        most_mm: distance between the places of one voxel that counts as rounding.
    """
    found = []
    if one.shape_ZYX != other.shape_ZYX:
        found.append(f"it has {_by(one.shape_ZYX[::-1])} voxels, not {_by(other.shape_ZYX[::-1])}")
    elif largest_shift_mm(one.affine, other.affine, one.shape_ZYX) <= most_mm:
        return ""
    mine, wanted = (np.linalg.norm(each.affine[:3, :3], axis=0) for each in (one, other))
    if not np.allclose(mine, wanted, rtol=_SAME_SPACING, atol=0):
        found.append(f"its spacing is {_numbers(mine)} mm, not {_numbers(wanted)}")
    turned = np.abs(one.affine[:3, :3] / mine - other.affine[:3, :3] / wanted).max()
    if turned > _SAME_DIRECTION:
        found.append(_turned(one, other))
    origins = one.affine[:3, 3], other.affine[:3, 3]
    if np.linalg.norm(origins[0] - origins[1]) > most_mm:
        places = [f"({', '.join(f'{mm:.6g}' for mm in each)})" for each in origins]
        found.append(f"its first voxel lies at {places[0]} mm, not at {places[1]}")
    if not found:
        shift_mm = largest_shift_mm(one.affine, other.affine, one.shape_ZYX)
        found.append(f"its voxels lie up to {shift_mm:.3g} mm from where they should")
    return "; ".join(found)


def _turned(one: Geometry, other: Geometry) -> str:
    mine, wanted = (_axes(each.affine) for each in (one, other))
    if mine != wanted:
        return f"its axes run to {mine}, not to {wanted}"
    return f"its axes, which run to {mine}, are turned against the other's"


def _axes(affine: NDArray[np.float64]) -> str:
    """Return where stored axes point to, one letter each: R, A or S, or the other way."""
    letters = []
    for column in affine[:3, :3].T:
        axis = int(np.argmax(np.abs(column)))
        letters.append(_LETTERS[axis][int(column[axis] > 0)])
    return "".join(letters)


def _by(sizes: Iterable[int]) -> str:
    return " x ".join(map(str, sizes))


def _numbers(values: Iterable[float]) -> str:
    return " x ".join(f"{value:.6g}" for value in values)
