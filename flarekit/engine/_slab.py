"""What the window adds up: the slab it fills, in NumPy here, and the slices that leave it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import DeviceError

Place = tuple[int, int]
Array = Any  # a torch tensor or a NumPy array: what the engine's sums are made of


@dataclass(frozen=True, kw_only=True, eq=False)
class Restoration:
    """How labels on a finer (or coarser) grid come out of logits: weights along each axis.

    Attributes:
        padding: what surrounds the grid in the logits that come, before and after, along each axis.
        weights_Z: (target, source) float32: what each slice wanted takes of each slice that comes.
        weights_Y: the same for rows.
        weights_X: the same for columns.
        class_values: value of each class in the labels; of each region where `regions`.
        regions: classes overlap: one is where its logit is positive, later ones over earlier ones.
    """

    padding: tuple[tuple[int, int], ...]
    weights_Z: NDArray[np.float32]
    weights_Y: NDArray[np.float32]
    weights_X: NDArray[np.float32]
    class_values: NDArray[np.uint8]
    regions: bool = False


class Sums(Protocol):
    """Weighted logits of every class in a slab, and the weights."""

    def add(self, logits_KZYX: Array, place: Place, z: int = 0) -> None:
        """Add one tile's logits, times the window's weights, at its (Y, X), from slice z on."""
        ...

    def classes(self, count: int, size_YX: Place) -> NDArray[np.uint8]:
        """Return the class index of the first slices' voxels."""
        ...

    def logits(self, count: int, size_YX: Place) -> NDArray[np.float32]:
        """Return the mean logits of the first slices, (K, count, Y, X)."""
        ...

    def labels(
        self, count: int, size_YX: Place, restoration: Callable[[], Restoration]
    ) -> NDArray[np.uint8] | None:
        """Return what labels the first slices complete on the scan's grid; None on the host."""
        del count, size_YX, restoration
        return None

    def finite(self, count: int) -> bool:
        """Return whether every sum in the first slices is a number."""
        ...

    def move_on(self, count: int) -> None:
        """Drop the first slices; zeros follow at the end."""
        ...


@dataclass(frozen=True, kw_only=True)
class NumpySums(Sums):
    """Weighted logits of every class and, last, the weights; see `Sums`."""

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

    def finite(self, count: int) -> bool:
        """Return whether every sum in the first slices is a number."""
        return bool(np.isfinite(self.slab_KZYX[:, :count].sum()))

    def move_on(self, count: int) -> None:
        """Drop the first slices; zeros follow at the end."""
        keep = max(0, self.slab_KZYX.shape[1] - count)
        for slab_ZYX in self.slab_KZYX:
            slab_ZYX[:keep] = slab_ZYX[count : count + keep]  # NumPy minds the overlap
            slab_ZYX[keep:] = 0


@dataclass(kw_only=True)
class Run:
    """What changes while one volume is swept; engines add what is theirs.

    Attributes:
        sums: what tiles are added to.
        notes: what had to be done with less than was asked for, in words, in order.
        precision: of the arithmetic, where it may change on the way; the engine's where empty.
    """

    sums: Sums
    notes: list[str] = field(default_factory=list)
    precision: str = ""


@dataclass(frozen=True, kw_only=True)
class Slab:
    """Slices that no later tile covers; good until the next one is asked for.

    Attributes:
        z: first slice.
        count: how many.
        is_blank: no tile covers any of it, and all logits are zero.
    """

    z: int
    count: int
    size_YX: Place
    sums: Sums
    precision: str
    is_blank: bool = False

    def classes(self) -> NDArray[np.uint8]:
        """Return the class index of every voxel, (count, Y, X).

        Raises:
            DeviceError: the logits are not finite.
        """
        self._check_finite()
        return self.sums.classes(self.count, self.size_YX)

    def logits(self) -> NDArray[np.float32]:
        """Return the mean logits of every voxel, (K, count, Y, X); zeros where no tile was run.

        They may lie where the sums lay: who keeps them longer than the slab, copies them.

        Raises:
            DeviceError: they are not finite.
        """
        self._check_finite()
        return self.sums.logits(self.count, self.size_YX)

    def labels(self, restoration: Callable[[], Restoration]) -> NDArray[np.uint8] | None:
        """Return the slices of the scan's grid whose labels these slices complete, (Z, Y, X).

        They are decided where the logits are, if that is a device; None where it is the host.

        Args:
            restoration: makes the same for all slabs of a sweep; called at most once.

        Raises:
            DeviceError: the logits are not finite.
        """
        self._check_finite()
        return self.sums.labels(self.count, self.size_YX, restoration)

    def _check_finite(self) -> None:
        if not self.sums.finite(self.count):
            fix = (
                "look at the scan's values" if self.precision == "fp32" else "use --precision fp32"
            )
            raise DeviceError(f"the network's output is not finite in {self.precision}", fix=fix)
