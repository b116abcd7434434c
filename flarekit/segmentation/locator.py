"""A first look at a whole scan: where labels lie, how sure that is, and a mask at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from flarekit.core.channels import ZScore
from flarekit.core.first_pass import Locator as LocatorFacts
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Volume
from flarekit.engine import Engine
from flarekit.preprocess import Box, Located, Placement, locate, place
from flarekit.preprocess.crop import grown
from flarekit.segmentation.memory import Memory, resampling_mib

_SLICES_AT_ONCE = 16  # of the map, that are brought to the scan's grid together
_SURE = 0.02  # what a voxel counts that is sure, beside one that is not


@dataclass(frozen=True, kw_only=True)
class Locator:
    """The small network of a predictor that says where its labels lie.

    Attributes:
        spec: its own facts.
        engine: runs it.
        values: mask value of each of its classes, in the predictor's labels; 0 for what that does
            not name.
        facts: what the predictor says of it: around what, and from when, a label is possible.
    """

    spec: PredictorSpec
    engine: Engine
    values: NDArray[np.uint8]
    facts: LocatorFacts

    def look(
        self, volumes: Sequence[Volume], memory: Memory, like: tuple[PredictorSpec, Located]
    ) -> LocatorMap:
        """Run over a whole scan.

        Args:
            volumes: of the scan.
            memory: what this process may take.
            like: the predictor's facts, and what was located with them; the same where the
                locator's facts say the same.

        Raises:
            BudgetError: its grid does not fit into memory.
            DeviceError: the device has no room, or the output is not finite.
        """
        spec, found = like
        same = _crops(spec) == _crops(self.spec)
        located = found if same else locate(volumes, self.spec)
        placement = located.placement(self.spec)
        memory.check(resampling_mib(placement), "the locator's grid")
        return self._map(volumes, located, placement)

    def _map(self, volumes: Sequence[Volume], located: Located, placement: Placement) -> LocatorMap:
        tensor = place(volumes, located, placement, self.spec).tensor_CZYX
        sweep = self.engine.sweep(tensor, needed_ZYX=placement.needed_ZYX)
        logits = np.concatenate([slab.logits().copy() for slab in sweep], axis=1)
        unseen = ~(logits != 0).any(axis=0)
        logits[0, unseen] = 1  # background
        found = LocatorMap.of(logits, self.values, placement, self.facts)
        return replace(found, tiles=sweep.done, tiles_s=sweep.pace.tiles_s)


def _crops(spec: PredictorSpec) -> tuple[object, ...]:
    """Return the facts that decide what `locate` finds."""
    channels = [
        (channel.name, isinstance(channel.intensity, ZScore) and channel.intensity.masked)
        for channel in spec.channels
    ]
    return spec.crop, spec.grid.axes, spec.nnunet, channels


def values_of(locator: PredictorSpec, spec: PredictorSpec) -> NDArray[np.uint8]:
    """Return the mask value, in a predictor's labels, of each class of its locator."""
    assert spec.locator is not None
    names = {value: name for name, value in locator.labels.items()}
    mapped = spec.locator.labels
    found = [mapped.get(name := names.get(value, ""), name) for value in locator.class_values]
    return np.array([spec.labels.get(name, 0) for name in found], np.uint8)


def looks_everywhere(spec: PredictorSpec, mode: str) -> bool:
    """Return whether tiles stand everywhere as long as there is time: `exact`, or by the facts."""
    return mode == "exact" or (spec.locator is not None and spec.locator.everywhere)


@dataclass(frozen=True, kw_only=True)
class LocatorMap:
    """What a locator says of a scan, on its own coarse grid.

    Attributes:
        placement: of the scan on that grid.
        logits_KZYX: float16.
        values: mask value of each class.
        possible_ZYX: bool, where a label may lie, with the margin; everywhere if nothing was found.
        expected_ZYX: float32, how much label is expected.
        worth_ZYX: float32, what the whole network may add to the mean Dice of the labels, at most.
        tiles: of the locator, that were run.
        tiles_s: how long these took.
    """

    placement: Placement
    logits_KZYX: NDArray[np.float16]
    values: NDArray[np.uint8]
    possible_ZYX: NDArray[np.bool_]
    expected_ZYX: NDArray[np.float32]
    worth_ZYX: NDArray[np.float32]
    tiles: int = 0
    tiles_s: float = 0.0

    @classmethod
    def of(
        cls,
        logits_KZYX: NDArray[np.float32],
        values: NDArray[np.uint8],
        placement: Placement,
        facts: LocatorFacts,
    ) -> LocatorMap:
        """Return what logits say.

        Args:
            logits_KZYX: of the locator's classes.
            values: mask value of each.
            placement: their grid.
            facts: from which probability on there may be a label, and how far around it.
        """
        label_map = values[logits_KZYX.argmax(axis=0)]
        probable = np.exp(logits_KZYX - logits_KZYX.max(axis=0))
        probable /= probable.sum(axis=0)
        expected = np.zeros(label_map.shape, np.float32)
        worth = np.zeros_like(expected)
        for value in sorted({int(value) for value in values if value}):
            label = probable[values == value].sum(axis=0)
            expected += label
            worth += _worth(label, label_map == value)
        possible = expected >= facts.least_probability
        for axis, mm in enumerate(placement.spacing_mm_ZYX):
            possible = grown(possible, axis, ceil(facts.margin_mm / mm))
        if not possible.any():
            possible[:] = True
        return cls(
            placement=placement,
            logits_KZYX=logits_KZYX.astype(np.float16),
            values=values,
            possible_ZYX=possible,
            expected_ZYX=expected,
            worth_ZYX=worth,
        )

    @property
    def label_map_ZYX(self) -> NDArray[np.uint8]:  # noqa: N802 - axis letters
        """The labels on its grid, as mask values."""
        return np.asarray(self.values[self.logits_KZYX.argmax(axis=0)])

    def fill(self, stored_ZYX: NDArray[np.uint8], reached: Iterable[Box]) -> None:
        """Paint the labels of the map where no tile of the network was run.

        Args:
            stored_ZYX: label map on the scan's stored grid; changed.
            reached: boxes of it that were decided, and stay as they are.
        """
        filler = self.placement.filler(self.values, stored_ZYX, tuple(reached))
        for first in range(0, self.logits_KZYX.shape[1], _SLICES_AT_ONCE):
            part = self.logits_KZYX[:, first : first + _SLICES_AT_ONCE]
            filler.add(part.astype(np.float32))
        filler.finish()


def _worth(label_ZYX: NDArray[np.float32], found_ZYX: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return what of a label's Dice is expected to be missing, spread over where it is missing.

    The Dice of what was found is expected from the probabilities; what is missing of it lies where
    the label is neither sure nor out of the question.
    """
    expected, found = float(label_ZYX.sum()), int(found_ZYX.sum())
    dice = 2 * float(label_ZYX[found_ZYX].sum()) / max(expected + found, 1e-6)
    unsure = label_ZYX * (1 - label_ZYX + np.float32(_SURE))
    share = (1 - dice) / max(float(unsure.sum()), 1e-6)
    return (unsure * np.float32(share)).astype(np.float32)
