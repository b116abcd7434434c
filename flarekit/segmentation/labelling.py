"""From what leaves the window to labels, and to probabilities, on the scan's grid."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import OutputError
from flarekit.core.spec import PredictorSpec
from flarekit.engine import Restoration, Slab
from flarekit.preprocess import Placement

Labels = NDArray[np.uint8]
Rules = Callable[[Labels, float], Labels]  # a label map and the ml of its voxels -> a label map
Fill = Callable[[Labels], None]  # paints labels of the stored grid where nothing was decided
Stage = Callable[[str], AbstractContextManager[None]]
_MOST_IN_MEMORY = 512 * 2**20  # bytes of probabilities; larger ones lie on disk


class Labelling(ABC):
    """Decides labels slab by slab, then lets rules run where they were decided."""

    @staticmethod
    def of(placement: Placement, spec: PredictorSpec) -> Labelling:
        """Return what decides as the facts say: on the network's grid, or on the scan's."""
        if spec.grid.decide == "network" and not placement.regions:
            return _OnNetworkGrid(placement, spec)
        return _OnScanGrid(placement, spec)

    @abstractmethod
    def take(self, slab: Slab) -> NDArray[np.generic]:
        """Return what is needed of a slab before the window moves on."""

    @abstractmethod
    def add(self, taken: NDArray[np.generic]) -> None:
        """Decide what can be decided now."""

    @abstractmethod
    def pass_over(self, slices: int) -> None:
        """Take slices of which no tile was run: background, or what is painted there later."""

    @abstractmethod
    def finish(self, rules: Rules, stage: Stage, fill: Fill | None = None) -> Labels:
        """Apply rules and return the label map on the scan's stored grid.

        Args:
            rules: what is applied.
            stage: counts time.
            fill: paints what was not decided, before the rules; None where everything was. Slices
                that never came are not decided then.
        """


class _OnNetworkGrid(Labelling):
    def __init__(self, placement: Placement, spec: PredictorSpec) -> None:
        self._placement = placement
        self._values = np.array(spec.class_values, np.uint8)
        self._label_map = np.zeros(placement.shape_ZYX, np.uint8)
        self._came = 0

    def take(self, slab: Slab) -> NDArray[np.generic]:
        return slab.classes()

    def add(self, taken: NDArray[np.generic]) -> None:
        end = self._came + len(taken)
        self._label_map[self._came : end] = self._values[taken]
        self._came = end

    def pass_over(self, slices: int) -> None:
        self.add(np.zeros((slices, *self._label_map.shape[1:]), np.uint8))

    def finish(self, rules: Rules, stage: Stage, fill: Fill | None = None) -> Labels:
        if fill is not None:
            with stage("restore"):
                stored = self._placement.restore(self._label_map)
            fill(stored)
            return rules(stored, self._placement.stored_voxel_ml)
        label_map = rules(self._label_map, self._placement.voxel_ml)
        with stage("restore"):
            return self._placement.restore(label_map)


class _OnScanGrid(Labelling):
    """Labels are decided where the logits are: on a device, if the engine has them there.

    What comes decided is painted by another thread, while the device runs the next tiles.
    """

    def __init__(self, placement: Placement, spec: PredictorSpec) -> None:
        self._placement = placement
        self._values = np.array(spec.class_values, np.uint8)
        self._decider, self._stored = placement.decider(self._values)
        self._decided = 0  # slices that came decided
        self._painting: list[Future[None]] = []
        self._painter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="paint")

    def take(self, slab: Slab) -> NDArray[np.generic]:
        labels = slab.labels(partial(_restoration, self._placement, self._values))
        return slab.logits() if labels is None else labels

    def add(self, taken: NDArray[np.generic]) -> None:
        if taken.dtype != np.uint8:
            self._decider.add(taken)  # type: ignore[arg-type]  # what `take` gave
            return
        self._painting.append(self._painter.submit(self._paint, self._decided, taken))
        self._decided += len(taken)

    def pass_over(self, slices: int) -> None:
        self._decider.add_blank(slices)

    def _paint(self, first: int, labels: NDArray[np.generic]) -> None:
        self._placement.target_of(self._stored)[first : first + len(labels)] = labels

    def finish(self, rules: Rules, stage: Stage, fill: Fill | None = None) -> Labels:
        with stage("restore"):
            for painted in self._painting:
                painted.result()
            self._painter.shutdown()
            came_at_all = self._decider.has_begun or bool(self._painting)
            if fill is not None and not came_at_all:
                pass  # no tile was run
            elif not self._painting:
                self._decider.finish()
            elif self._decided != self._placement.cropped_shape[0]:
                raise ValueError(f"{self._decided} slices were decided, some never came")
        if fill is not None:
            fill(self._stored)
        return rules(self._stored, self._placement.stored_voxel_ml)


def _restoration(placement: Placement, class_values: Labels) -> Restoration:
    weights_Z, weights_Y, weights_X = placement.logits_weights()
    return Restoration(
        padding=placement.padding,
        weights_Z=weights_Z,
        weights_Y=weights_Y,
        weights_X=weights_X,
        class_values=class_values,
        regions=placement.regions,
    )


class KeptLogits:
    """The logits of the whole grid.

    Attributes:
        logits_KZYX: float32.
    """

    def __init__(self, placement: Placement, spec: PredictorSpec) -> None:
        """Make room for them."""
        self.logits_KZYX = np.zeros((len(spec.class_values), *placement.shape_ZYX), np.float32)
        self._came = 0

    def add(self, logits_KZYX: NDArray[np.float32]) -> None:
        """Take the next slices."""
        end = self._came + logits_KZYX.shape[1]
        self.logits_KZYX[:, self._came : end] = logits_KZYX
        self._came = end


class Probabilities:
    """Probabilities of every class on the scan's grid, from the same logits as the labels.

    They sum to 1 over exclusive classes; those of overlapping regions are each by itself. Internal
    classes count as background. What lies outside the crop, or was not looked at, is background.
    """

    def __init__(self, placement: Placement, spec: PredictorSpec) -> None:
        """Make room for them.

        Raises:
            OutputError: they are large, and the disk has no room for them.
        """
        rows = len(spec.class_values) - len(spec.internal)
        self._stored = _zeros((rows, *placement.stored_shape))
        if not placement.regions:
            self._stored[0] = 1
        targets = [placement.target_of(row) for row in self._stored]
        paint = partial(_paint_regions if placement.regions else _paint_classes, targets)
        self._painter = placement.painter(len(spec.class_values), paint)

    def add(self, logits_KZYX: NDArray[np.float32]) -> None:
        """Take the next slices of logits on the network's grid."""
        self._painter.add(logits_KZYX)

    def finish(self) -> NDArray[np.float32]:
        """Return the probabilities, (K, Z, Y, X) as stored.

        Raises:
            ValueError: slices are missing.
        """
        self._painter.finish()
        return self._stored


LogitsSink = KeptLogits | Probabilities  # who takes logits on the network's grid, upwards in Z


def _paint_classes(
    targets: Sequence[NDArray[np.float32]],
    z: int,
    rows: slice,
    columns: slice,
    logits_KYX: NDArray[np.float32],
) -> None:
    """Paint a slice of exclusive classes; what has no target is internal: background."""
    unseen = ~(logits_KYX != 0).any(axis=0)
    exponents = np.exp(logits_KYX - logits_KYX.max(axis=0))
    probable = exponents / exponents.sum(axis=0)
    probable[0] += probable[len(targets) :].sum(axis=0)
    probable[:, unseen] = 0
    probable[0, unseen] = 1
    for target_ZYX, probable_YX in zip(targets, probable, strict=False):
        target_ZYX[z, rows, columns] = probable_YX


def _paint_regions(
    targets: Sequence[NDArray[np.float32]],
    z: int,
    rows: slice,
    columns: slice,
    logits_KYX: NDArray[np.float32],
) -> None:
    """Paint a slice of regions, each by itself."""
    seen = (logits_KYX != 0).any(axis=0)
    for target_ZYX, logits_YX in zip(targets, logits_KYX, strict=True):
        target_ZYX[z, rows, columns] = seen / (1 + np.exp(-logits_YX))


def _zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return zeros; where they are large, in a file without a name that goes with the array."""
    size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
    if size <= _MOST_IN_MEMORY:
        return np.zeros(shape, np.float32)
    try:
        with tempfile.TemporaryFile(prefix="flarekit-probabilities-") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: has no room for {size / 2**20:.0f} MiB of probabilities "
            f"({error.strerror})",
            fix="free some space, or set TMPDIR to a folder on a larger disk",
        ) from error
