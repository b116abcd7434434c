"""From logits on the network's grid to labels on the scan's, slice by slice.

No full-resolution volume per class ever exists: logits arrive in slabs, each slice of the scan
takes the few it lies between, and a running argmax keeps one float and one label per pixel. Where
that cannot change a label, a class is interpolated only around the voxels where it beats the
background: weights are positive there, and what loses in every corner loses between them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from flarekit.core.cores import usable_cores
from flarekit.preprocess.axis_maps import NOWHERE, axis_map, one_blas_thread, reached
from flarekit.preprocess.resample import Orders, Shape

Paint = Callable[[int, slice, slice, NDArray[np.float32]], None]
PaintLabels = Callable[[int, slice, slice, NDArray[np.uint8]], None]
Box = tuple[slice, slice, slice]
_Plane = tuple[slice, slice]  # rows and columns
_FEWEST_SIDE_BY_SIDE = 4  # slices that are worth several threads
_MOST_SIDE_BY_SIDE = 4
_BLOCK_BYTES = 4 * 2**20  # of logits that a thread interpolates together


def _side_by_side() -> int:
    return min(_MOST_SIDE_BY_SIDE, usable_cores())


class Decider:
    """Takes logits in slabs of ascending Z, paints labels.

    Args:
        grid_ZYX: shape of the logits' grid.
        target_ZYX: label map to paint, all zeros, a view of any strides; its extent is the grid's.
        orders: of the splines between the two grids.
        class_values: mask value of each class; of each region where `regions`.
        regions: classes overlap: one is where its logit is positive, later ones over earlier ones.
        padding: what surrounds the grid in the logits that come, before and after, along each axis.
        paint: takes a slice's index, some rows and columns, and their logits (K, Y, X), in place of
            painting labels. Those come in any order, and from several threads; all of a slice only
            where no class has the value 0.
        paint_labels: takes their labels (Y, X) in place of logits, and of writing to the target.
    """

    def __init__(
        self,
        grid_ZYX: Shape,
        target_ZYX: NDArray[np.uint8],
        orders: Orders,
        class_values: NDArray[np.uint8],
        *,
        regions: bool = False,
        padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0), (0, 0)),
        paint: Paint | None = None,
        paint_labels: PaintLabels | None = None,
    ) -> None:
        self._give_logits, self._give_labels = paint, paint_labels
        self._skip_Z = padding[0][0]
        self._inside_YX = tuple(
            slice(low, low + n) for (low, _), n in zip(padding[1:], grid_ZYX[1:], strict=True)
        )
        self._expected_KZYX = (
            len(class_values),
            *(low + n + high for (low, high), n in zip(padding, grid_ZYX, strict=True)),
        )
        self._came = 0
        z, y, x = target_ZYX.shape
        self._map_Z, self._map_Y, self._map_X = (
            axis_map(n, m, order) for n, m, order in zip(grid_ZYX, (z, y, x), orders, strict=True)
        )
        self._grid_ZYX = grid_ZYX
        self._target_ZYX = target_ZYX
        self._class_values = class_values
        self._regions = regions
        self._linear = max(orders) <= 1
        # positive weights: what is background in every corner is background between them
        self._background_stays = self._linear and (regions or class_values[0] == 0)
        self._slices: dict[int, tuple[NDArray[np.float32], list[_Plane]]] = {}
        self._arrived = self._painted = 0

    @property
    def has_begun(self) -> bool:
        """Tell whether any slice has been added."""
        return self._came > 0

    def add(self, logits_KZYX: NDArray[np.float32]) -> None:
        """Take the next slices and paint what they complete.

        Raises:
            ValueError: another number of classes, another grid in plane, or too many slices.
        """
        classes, slices, *plane = logits_KZYX.shape
        wanted_classes, wanted_slices, *wanted_plane = self._expected_KZYX
        if (classes, plane) != (wanted_classes, wanted_plane) or (
            self._came + slices > wanted_slices
        ):
            raise ValueError(f"logits {self._expected_KZYX} expected, got {logits_KZYX.shape}")
        self._take(logits_KZYX, self._where_found)

    def add_blank(self, slices: int) -> None:
        """Take slices whose logits are all zero, at no cost where zeros are background.

        Raises:
            ValueError: too many slices.
        """
        classes, wanted_slices, *plane = self._expected_KZYX
        blank_KZYX = np.broadcast_to(np.float32(0), (classes, slices, *plane))
        if not self._regions and self._class_values[0] != 0:
            self.add(blank_KZYX)
            return
        if self._came + slices > wanted_slices:
            raise ValueError(f"logits {self._expected_KZYX} expected, {slices} slices more came")
        self._take(blank_KZYX, lambda _: [])

    def _take(
        self,
        logits_KZYX: NDArray[np.float32],
        where: Callable[[NDArray[np.float32]], list[_Plane]],
    ) -> None:
        """Take the next slices, without the padding, and paint what they complete."""
        first, self._came = self._came, self._came + logits_KZYX.shape[1]
        low = max(0, self._skip_Z - first)
        inside = slice(low, max(low, self._skip_Z + self._grid_ZYX[0] - first))
        for logits_KYX in logits_KZYX[:, inside, *self._inside_YX].swapaxes(0, 1):
            self._slices[self._arrived] = (logits_KYX, where(logits_KYX))
            self._arrived += 1
        with nullcontext() if self._linear else one_blas_thread():
            self._paint()

    def finish(self) -> None:
        """Check that every slice has come.

        Raises:
            ValueError: slices are missing.
        """
        if self._came != self._expected_KZYX[1]:
            raise ValueError(f"logits {self._expected_KZYX} expected, {self._came} slices came")

    def _paint(self) -> None:
        complete = []
        while self._painted < len(self._target_ZYX):
            first = int(self._map_Z.first_T[self._painted])
            last = int(self._map_Z.last_T[self._painted])
            if last >= self._arrived:
                break
            complete.append((self._painted, range(first, last + 1)))
            self._painted += 1
        self._paint_slices(complete)
        needed = self._arrived
        if self._painted < len(self._target_ZYX):
            needed = int(self._map_Z.first_T[self._painted])
        for passed in [z for z in self._slices if z < needed]:
            del self._slices[passed]
        self._keep_own_copies()

    def _paint_slices(self, complete: Sequence[tuple[int, range]]) -> None:
        """Paint slices side by side; each by itself is the same in any order."""
        if not self._linear or len(complete) < _FEWEST_SIDE_BY_SIDE:
            for z, needed in complete:
                self._paint_slice(z, needed)
            return
        with ThreadPoolExecutor(_side_by_side()) as painters:
            for painted in [painters.submit(self._paint_slice, *each) for each in complete]:
                painted.result()

    def _keep_own_copies(self) -> None:
        """Copy the last slices, so that the slab they are views of can be freed."""
        self._slices = {
            z: (logits if logits.base is None or not any(logits.strides) else logits.copy(), box)
            for z, (logits, box) in self._slices.items()
        }

    def _paint_slice(self, z: int, needed: range) -> None:
        if self._background_stays:
            self._paint_found(z, needed)
            return
        rows, columns = (slice(0, n) for n in self._target_ZYX.shape[1:])
        from_Y, from_X = (slice(0, n) for n in self._grid_ZYX[1:])
        plane_KYX = self._between(z, needed, (slice(None), from_Y, from_X))
        if self._map_X.source != self._map_X.target:
            plane_KYX = self._map_X.apply(plane_KYX, 2, columns, 0)
        if self._map_Y.source == self._map_Y.target:
            self._take_plane(z, rows, columns, plane_KYX)
            return
        for block in self._blocks(rows, plane_KYX):
            logits_KYX = self._map_Y.apply(plane_KYX, 1, block, 0)
            self._take_plane(z, block, columns, logits_KYX)

    def _paint_found(self, z: int, needed: range) -> None:
        """Paint each class around the voxels where it is found, later ones over earlier ones."""
        found = [self._slices[each][1] for each in needed]
        boxes = [_around(each) for each in zip(*filter(None, found), strict=True)]
        first = 0 if self._regions else 1
        around = {
            k: reached
            for k, box in enumerate(boxes, start=first)
            if NOWHERE not in (reached := self._reached_plane(box))[0]
        }
        if not around:
            return
        (rows, columns), whole = self._reached_plane(_around(boxes))
        labels = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
        best_YX = np.zeros(labels.shape, np.float32)
        if not self._regions:
            best_YX = self._plane_of(0, z, needed, ((rows, columns), whole))
        for k, reached in around.items():
            logits_YX = self._plane_of(k, z, needed, reached)
            part = _within(reached[0][0], rows), _within(reached[0][1], columns)
            wins_YX = logits_YX > best_YX[part]
            np.copyto(labels[part], self._class_values[k], where=wins_YX)
            if not self._regions:
                np.maximum(best_YX[part], logits_YX, out=best_YX[part])
        self._take_labels(z, rows, columns, labels)

    def _reached_plane(self, box: _Plane) -> tuple[_Plane, _Plane]:
        """Return the target pixels that look at any of some source pixels, and all they look at."""
        rows, from_Y = reached(self._map_Y, box[0])
        columns, from_X = reached(self._map_X, box[1])
        return (rows, columns), (from_Y, from_X)

    def _between(
        self, z: int, needed: range, part: tuple[slice | int, slice, slice]
    ) -> NDArray[np.float32]:
        """Return what a target slice has of the slices it lies between."""
        plane = np.zeros((), np.float32)
        for each, weight in zip(needed, self._map_Z.weights(z), strict=True):
            plane = plane + np.float32(weight) * self._slices[each][0][part]
        return plane

    def _plane_of(
        self, k: int, z: int, needed: range, reached: tuple[_Plane, _Plane]
    ) -> NDArray[np.float32]:
        """Return the logits of one class in some rows and columns of a target slice."""
        (rows, columns), (from_Y, from_X) = reached
        plane_YX = self._between(z, needed, (k, from_Y, from_X))
        if self._map_X.source != self._map_X.target:
            plane_YX = self._map_X.apply(plane_YX, 1, columns, from_X.start)
        if self._map_Y.source != self._map_Y.target:
            plane_YX = self._map_Y.apply(plane_YX, 0, rows, from_Y.start)
        return plane_YX

    def _blocks(self, rows: slice, plane_KYX: NDArray[np.float32]) -> Iterator[slice]:
        """Yield a part of the rows at a time, so that threads take little memory."""
        together = rows.stop - rows.start
        if self._linear:
            row_bytes = plane_KYX.shape[0] * plane_KYX.shape[2] * plane_KYX.itemsize
            together = max(1, _BLOCK_BYTES // row_bytes)
        for first in range(rows.start, rows.stop, together):
            yield slice(first, min(first + together, rows.stop))

    def _take_plane(
        self, z: int, rows: slice, columns: slice, logits_KYX: NDArray[np.float32]
    ) -> None:
        if self._give_logits is None:
            self._take_labels(z, rows, columns, self._labels(logits_KYX))
        else:
            self._give_logits(z, rows, columns, logits_KYX)

    def _take_labels(self, z: int, rows: slice, columns: slice, labels: NDArray[np.uint8]) -> None:
        if self._give_labels is None:
            self._target_ZYX[z, rows, columns] = labels
        else:
            self._give_labels(z, rows, columns, labels)

    def _labels(self, logits_KYX: NDArray[np.float32]) -> NDArray[np.uint8]:
        labels = np.zeros(logits_KYX.shape[1:], np.uint8)
        if self._regions:
            for logits_YX, value in zip(logits_KYX, self._class_values, strict=True):
                labels[logits_YX > 0] = value
            return labels
        labels[:] = self._class_values[0]
        best_YX = logits_KYX[0].copy()
        for logits_YX, value in zip(logits_KYX[1:], self._class_values[1:], strict=True):
            np.putmask(labels, logits_YX > best_YX, value)
            np.maximum(best_YX, logits_YX, out=best_YX)
        return labels

    def _where_found(self, logits_KYX: NDArray[np.float32]) -> list[_Plane]:
        """Return, for each class but the background, rows and columns outside which it is not."""
        if not self._background_stays:
            return []
        wins_KYX = logits_KYX > 0 if self._regions else logits_KYX[1:] > logits_KYX[:1]
        rows_KY: NDArray[np.bool_] = np.any(wins_KYX, axis=2)
        columns_KX: NDArray[np.bool_] = np.any(wins_KYX, axis=1)
        return [(_extent(y), _extent(x)) for y, x in zip(rows_KY, columns_KX, strict=True)]


def outside(decided: Sequence[Box], target_ZYX: NDArray[np.uint8]) -> PaintLabels:
    """Return what writes labels to a label map, but not into boxes of it that are decided."""

    def write(z: int, rows: slice, columns: slice, labels: NDArray[np.uint8]) -> None:
        free = np.ones(labels.shape, bool)
        for box_Z, box_Y, box_X in decided:
            if box_Z.start <= z < box_Z.stop:
                free[_within(box_Y, rows), _within(box_X, columns)] = False
        np.copyto(target_ZYX[z, rows, columns], labels, where=free)

    return write


def _within(part: slice, whole: slice) -> slice:
    """Return a range as counted from the start of another one."""
    return slice(max(0, part.start - whole.start), max(0, part.stop - whole.start))


def _extent(found: NDArray[np.bool_]) -> slice:
    """Return the range from the first to the last of what was found."""
    first = int(found.argmax())
    return slice(first, len(found) - int(found[::-1].argmax())) if found[first] else NOWHERE


def _around(boxes: Iterable[_Plane]) -> _Plane:
    """Return what surrounds boxes of rows and columns."""
    filled = [box for box in boxes if NOWHERE not in box]
    if not filled:
        return NOWHERE, NOWHERE
    rows, columns = (
        slice(min(box[axis].start for box in filled), max(box[axis].stop for box in filled))
        for axis in (0, 1)
    )
    return rows, columns
