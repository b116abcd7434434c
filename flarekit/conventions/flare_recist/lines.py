"""The lines that somebody drew across lesions (RECIST), as voxels and as lengths."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.flare_recist.npz import Header, NpzFile
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.line import line_ends

_MOST_LINE_VOXELS = 1 << 22  # of all lines together: more is not a drawing of lines


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line across one lesion.

    Attributes:
        value: of the lesion.
        places_ZYX: (N, 3) indices of its voxels, all in one slice.
        length_mm: from the middle of its first voxel to that of its last.
    """

    value: int
    places_ZYX: NDArray[np.int64]
    length_mm: float

    @property
    def middle_ZYX(self) -> tuple[int, int, int]:  # noqa: N802 - axis letters
        """The voxel in the middle of its box."""
        low, high = self.places_ZYX.min(axis=0), self.places_ZYX.max(axis=0)
        z, y, x = ((low + high) // 2).tolist()
        return z, y, x


def find_lines(
    file: NpzFile, name: str, spacing_mm_ZYX: tuple[float, float, float]
) -> tuple[list[Line], tuple[str, ...]]:
    """Return the lines of a file in ascending order of their values, and what was odd.

    Values that are not positive integers are left out. Of a value on several slices the slice with
    the longest line is taken.

    Raises:
        InputError: the array is missing or unusable, or holds masks instead of lines.
    """
    header = file.header(name)
    places, values = _marked(file, name, header)
    whole = (values == np.rint(values)) & (values > 0) & (values < 2**16)
    notes = []
    if not whole.all():
        notes.append(f"{name}: {np.count_nonzero(~whole)} voxels hold no lesion's number: left out")
    places, numbers = places[whole], np.rint(values[whole]).astype(np.int64)
    lines = []
    order = np.argsort(numbers, kind="stable")
    places, numbers = places[order], numbers[order]
    for value in np.unique(numbers):
        own = places[np.searchsorted(numbers, value) : np.searchsorted(numbers, value, "right")]
        candidates = [own[own[:, 0] == z] for z in np.unique(own[:, 0])]
        found = [_line(int(value), each, spacing_mm_ZYX) for each in candidates]
        lines.append(max(found, key=lambda line: line.length_mm))
        if len(found) > 1:
            z = lines[-1].middle_ZYX[0]
            notes.append(
                f"{name}: lesion {value} is marked on {len(found)} slices: slice {z} is taken"
            )
    return lines, tuple(notes)


def _line(
    value: int, places_ZYX: NDArray[np.int64], spacing_mm_ZYX: tuple[float, float, float]
) -> Line:
    one, other = line_ends(places_ZYX, spacing_mm_ZYX)
    length_mm = float(np.linalg.norm((other - one) * np.array(spacing_mm_ZYX)))
    return Line(value=value, places_ZYX=places_ZYX, length_mm=length_mm)


def _marked(
    file: NpzFile, name: str, header: Header
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the indices (N, 3) of all voxels that are not 0, and their values."""
    places, values, start, total = [], [], 0, 0
    for piece in file.pieces(name):
        found = np.flatnonzero(piece)
        total += len(found)
        if total > _MOST_LINE_VOXELS:
            raise UnreadableVolumeError(
                file.path,
                f"its array {name!r} marks more than {_MOST_LINE_VOXELS} voxels",
                fix="draw one line across each lesion, not its mask",
            )
        places.append(found + start)
        values.append(np.nan_to_num(piece[found].astype(np.float64), nan=-1.0))
        start += len(piece)
    flat = np.concatenate([np.zeros(0, np.int64), *places])
    indices = np.unravel_index(flat, header.shape, order=header.order)
    return np.stack(indices, axis=1).astype(np.int64), np.concatenate([np.zeros(0), *values])
