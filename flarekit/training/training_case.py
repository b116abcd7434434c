"""A case as training sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Spacing = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class TrainingCase:
    """One case on the network's grid, or its scan's (`TrainingFacts.case_grid`).

    Attributes:
        image_CZYX: float16, normalised.
        classes_ZYX: uint8 class indices, MAYBE where the labels cannot tell.
        possible_K: bool, the classes that MAYBE stands for.
        centres: index in `Recipe.organ_names` -> (n, 3) int32 voxel indices of that class or
            neighbour, thinned.
        hard_negatives: (n, 3) int32 voxel indices of each connected part, see `HardNegativeFacts`.
        spacing_mm_ZYX: of the grid.
    """

    case_id: str
    image_CZYX: NDArray[np.float16]
    classes_ZYX: NDArray[np.uint8]
    possible_K: NDArray[np.bool_]
    centres: dict[int, NDArray[np.int32]]
    hard_negatives: Sequence[NDArray[np.int32]] = ()
    spacing_mm_ZYX: Spacing
