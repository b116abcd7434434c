"""What nnU-Net (2.8) does around its network: transpose, crop, normalise, splines.

Isensee et al., Nature Methods 18 (2021), online methods; where they are silent, nnunetv2 decides.
"""

import numpy as np

from flarekit.core.grid import Nnunet
from flarekit.preprocess.resample import Orders, Shape

_ANISOTROPIC = 3.0  # from this ratio on, the coarsest axis is resampled by itself


def separate_axis(
    how: Nnunet, spacing_mm: tuple[float, float, float], target_mm: tuple[float, float, float]
) -> int | None:
    """Return the axis that is resampled by itself, None where all go together.

    nnU-Net's choice: the coarsest axis of the first of the two spacings that is anisotropic; never
    where two axes share the coarsest spacing.
    """
    if how.separate_z is False:
        return None
    for spacing in (spacing_mm, target_mm):
        if how.separate_z or max(spacing) / min(spacing) > _ANISOTROPIC:
            coarsest = np.flatnonzero(np.array(spacing) == max(spacing))
            return int(coarsest[0]) if len(coarsest) == 1 else None
    return None


def spline_orders(order: int, axis: int | None, axis_order: int) -> Orders:
    """Return the order along each axis where one of them may have its own."""
    z, y, x = (axis_order if each == axis else order for each in range(3))
    return z, y, x


def padding_to(shape_ZYX: Shape, tile_ZYX: Shape) -> tuple[tuple[int, int], ...]:
    """Return the zeros that make a volume as large as a tile, as even as can be on both sides."""
    missing = [max(0, tile - n) for tile, n in zip(tile_ZYX, shape_ZYX, strict=True)]
    return tuple((n // 2, n - n // 2) for n in missing)
