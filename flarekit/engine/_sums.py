"""The slab of summed logits in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flarekit.engine._restoration import Restoration
from flarekit.engine._slab import Place


@dataclass(frozen=True, kw_only=True)
class NumpySums:
    """Weighted logits of every class and, last, the weights; see `flarekit.engine._slab.Sums`."""

    slab_KZYX: NDArray[np.float32]
    weights_ZYX: NDArray[np.float32]

    def add(self, logits_KZYX: NDArray[np.float32], place: Place, z: int = 0) -> None:
        """Add one tile's logits, times the window's weights; they are spoilt."""
        (y, x), (depth, height, width) = place, logits_KZYX.shape[1:]
        np.multiply(logits_KZYX, self.weights_ZYX, out=logits_KZYX)
        part = self.slab_KZYX[:, z : z + depth, y : y + height, x : x + width]
        part[:-1] += logits_KZYX
        part[-1] += self.weights_ZYX

    def classes(self, count: int, size_YX: Place) -> NDArray[np.uint8]:
        """Return the class index of the first slices' voxels."""
        part = self.slab_KZYX[:-1, :count, : size_YX[0], : size_YX[1]]
        classes, best = np.zeros(part.shape[1:], np.uint8), part[0].copy()
        for index, sums_ZYX in enumerate(part[1:], start=1):
            np.putmask(classes, sums_ZYX > best, index)
            np.maximum(best, sums_ZYX, out=best)
        return classes

    def logits(self, count: int, size_YX: Place) -> NDArray[np.float32]:
        """Return the mean logits of the first slices, (K, count, Y, X), in the place of the sums.

        They are good until `move_on`: a second copy would be as large as all that is summed.
        """
        part = self.slab_KZYX[:, :count, : size_YX[0], : size_YX[1]]
        weights_ZYX = part[-1]
        np.putmask(weights_ZYX, weights_ZYX == 0, 1)
        part[:-1] /= weights_ZYX
        weights_ZYX[:] = 1  # what is asked for again is the same
        return part[:-1]

    def labels(
        self,
        count: int,  # noqa: ARG002 - it is for sums on a device
        size_YX: Place,  # noqa: ARG002
        restoration: Callable[[], Restoration],  # noqa: ARG002
    ) -> NDArray[np.uint8] | None:
        """Return None, because the sums are on the host and labels are decided there."""
        return None

    def finite(self, count: int) -> bool:
        """Return whether every sum in the first slices is a number."""
        return bool(np.isfinite(self.slab_KZYX[:, :count].sum()))

    def move_on(self, count: int) -> None:
        """Drop the first slices; zeros follow at the end."""
        keep = max(0, self.slab_KZYX.shape[1] - count)
        for slab_ZYX in self.slab_KZYX:
            slab_ZYX[:keep] = slab_ZYX[count : count + keep]  # NumPy minds the overlap
            slab_ZYX[keep:] = 0
