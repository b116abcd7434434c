"""A lesion that goes on in a normal organ, at the organ's uptake, is part of that organ.

The first label named is the lesion's, the others are organs', often `internal` ones. A network that
is unsure of an organ splits it: one piece is a lesion, the other is not, and the uptake is the same
on both sides of the border. Such a piece becomes background where the organs beside it have at
least a fraction `value` of the volume of both. A lesion that touches an organ stays: little of its
surface does, or the uptake changes there.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of
from flarekit.postprocess._scan import Scan

TAKES_VALUE = True
NEEDS_CHANNEL = "PET"
LEAST_LABELS = 2
_LEAST_BORDER = 0.1  # of the surface of a piece
_SAME = 1.5  # ratio of two medians up to which the uptake is the same
_VALLEY = 0.7  # of the lower median; a border darker than that parts two uptakes

_Mask = NDArray[np.bool_]
_Level = NDArray[np.floating | np.integer]
_Box = tuple[slice, slice, slice]


def apply_to_scan(
    label_map_ZYX: NDArray[np.uint8], labels: Sequence[int], value: float | None, scan: Scan
) -> NDArray[np.uint8]:
    """Take away the components of the first label that are parts of the others."""
    result = label_map_ZYX.copy()
    box = box_of(label_map_ZYX)
    if box is None or value is None:
        return result
    uptake = scan.channel(NEEDS_CHANNEL)[box]
    lesions = _Parts(result[box] == labels[0])
    organs = _Parts(np.isin(result[box], labels[1:]))
    for lesion in range(1, lesions.count + 1):
        beside = sum(organs.sizes[organ] for organ in _continued(lesion, lesions, organs, uptake))
        if beside and beside >= value * (beside + lesions.sizes[lesion]):
            place = lesions.boxes[lesion]
            result[box][place][lesions.numbered[place] == lesion] = 0
    return result


class _Parts:
    """The components of a mask, numbered from 1; the first of `sizes` and `boxes` is what is not.

    Attributes:
        sizes: in voxels.
    """

    def __init__(self, mask: _Mask) -> None:
        import cc3d

        self.numbered, self.count = cc3d.connected_components(mask, connectivity=26, return_N=True)
        statistics = cc3d.statistics(self.numbered)
        self.sizes: list[int] = statistics["voxel_counts"].tolist()
        self.boxes: list[_Box] = statistics["bounding_boxes"]


def _continued(lesion: int, lesions: _Parts, organs: _Parts, uptake: _Level) -> Iterator[int]:
    """Yield the organ components that a lesion's uptake goes on in."""
    from scipy.ndimage import binary_dilation

    box = _grown(lesions.boxes[lesion])
    own, near, level = lesions.numbered[box] == lesion, organs.numbered[box], uptake[box]
    surface = int((own & binary_dilation(~own)).sum())
    for organ in np.unique(near[(near > 0) & binary_dilation(own)]).tolist():
        beside = near == organ
        border = own & binary_dilation(beside)
        if border.sum() < _LEAST_BORDER * surface:
            continue
        whole = organs.boxes[organ]
        of_lesion = float(np.median(level[own]))
        of_organ = float(np.median(uptake[whole][organs.numbered[whole] == organ]))
        at_border = float(np.median(level[border | (beside & binary_dilation(own))]))
        low, high = sorted((of_lesion, of_organ))
        if high <= _SAME * low and at_border >= _VALLEY * low:
            yield organ


def _grown(box: _Box) -> _Box:
    z, y, x = (slice(max(0, side.start - 1), side.stop + 1) for side in box)
    return z, y, x
