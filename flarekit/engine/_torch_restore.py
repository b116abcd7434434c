"""Labels on the scan's grid, decided on the device: only they leave it, a byte per voxel.

Logits arrive in slabs of ascending Z. Each slice of the scan is interpolated from the few that it
lies between, along X and Y by matrix products, and decided at once, a few slices at a time: no
full-resolution volume per class ever exists.
"""

import logging

import numpy as np
import torch
from numpy.typing import NDArray

from flarekit.engine._slab import Restoration
from flarekit.engine._torch_memory import NoRoom, attempt, free_cache

_LOG = logging.getLogger(__name__)
_MOST_BYTES = 64 * 2**20  # of the logits of the slices that are decided together


class TorchRestorer:
    """Takes logits in slabs, gives the label map's slices that they complete.

    Args:
        restoration: between which grids, and which values.
        device: where it is done; on the host from where that has no room on.
        notes: where that is said.
    """

    def __init__(
        self, restoration: Restoration, device: torch.device, notes: list[str] | None = None
    ) -> None:
        self._device = device
        self._notes = [] if notes is None else notes
        self._regions = restoration.regions
        self._skip_Z = restoration.padding[0][0]
        self._inside_YX = tuple(
            slice(low, low + weights.shape[1])
            for (low, _), weights in zip(
                restoration.padding[1:], (restoration.weights_Y, restoration.weights_X), strict=True
            )
        )
        needed = restoration.weights_Z != 0
        last_T = needed.shape[1] - 1 - needed[:, ::-1].argmax(axis=1)
        self._first_T = np.minimum.accumulate(needed.argmax(axis=1)[::-1])[::-1]
        self._last_T = np.maximum.accumulate(last_T)
        self._sources_Z = restoration.weights_Z.shape[1]
        arrays = (restoration.weights_Z, restoration.weights_Y, restoration.weights_X)
        # what each voxel wanted takes of those that come, (target, source), and class values
        self._along_Z, self._along_Y, self._along_X, self._values = (
            torch.from_numpy(array).to(device) for array in (*arrays, restoration.class_values)
        )
        self._held: torch.Tensor | None = None  # slices that later ones still need
        self._came = self._first_held = self._painted = 0
        self._together = _slices_together(restoration)

    @torch.inference_mode()
    def add(self, logits_KZYX: torch.Tensor) -> NDArray[np.uint8]:
        """Take the next slices and return the labels of those that they complete, (Z, Y, X)."""
        outcome = attempt(lambda: self._added(logits_KZYX))
        if isinstance(outcome, NoRoom):
            self._to_host()
            outcome = self._added(logits_KZYX.cpu())
        return outcome

    def _added(self, logits_KZYX: torch.Tensor) -> NDArray[np.uint8]:
        """Return labels; what is remembered changes at the end, so that it may be tried again."""
        low = max(0, self._skip_Z - self._came)
        end = max(low, self._skip_Z + self._sources_Z - self._came)
        new = logits_KZYX[:, low:end, *self._inside_YX].to(self._device)
        held = new if self._held is None else torch.cat([self._held, new], dim=1)
        arrived = self._first_held + held.shape[1]
        complete = int(np.searchsorted(self._last_T, arrived))
        parts = [
            self._labels(held, range(first, min(first + self._together, complete)))
            for first in range(self._painted, complete, self._together)
        ]
        plane = (len(self._along_Y), len(self._along_X))
        labels = torch.cat(parts).cpu().numpy() if parts else np.zeros((0, *plane), np.uint8)
        targets = len(self._first_T)
        needed = int(self._first_T[complete]) if complete < targets else arrived
        keep = min(max(needed, self._first_held), arrived)
        self._held = held[:, keep - self._first_held :].clone()
        self._first_held, self._painted = keep, complete
        self._came += logits_KZYX.shape[1]
        return labels

    def _labels(self, held_KZYX: torch.Tensor, targets: range) -> torch.Tensor:
        """Return the labels of some slices on the scan's grid."""
        low = int(self._first_T[targets.start])
        high = int(self._last_T[targets.stop - 1]) + 1
        weights_TS = self._along_Z[targets.start : targets.stop, low:high]
        near_KSYX = held_KZYX[:, low - self._first_held : high - self._first_held]
        mixed_KTYX = torch.einsum("ts,ksyx->ktyx", weights_TS, near_KSYX)
        logits_KTYX = self._along_Y @ (mixed_KTYX @ self._along_X.T)
        if not self._regions:
            return self._values[logits_KTYX.argmax(dim=0)]
        labels = torch.zeros(logits_KTYX.shape[1:], dtype=torch.uint8, device=self._device)
        for logits_TYX, value in zip(logits_KTYX, self._values, strict=True):
            labels = torch.where(logits_TYX > 0, value, labels)
        return labels

    def _to_host(self) -> None:
        device, self._device = self._device, torch.device("cpu")
        self._held = None if self._held is None else self._held.cpu()
        self._along_Z, self._along_Y, self._along_X, self._values = (
            each.cpu() for each in (self._along_Z, self._along_Y, self._along_X, self._values)
        )
        free_cache(device)
        note = "out of memory: labels are decided on the host from here on"
        _LOG.warning(note)
        self._notes.append(note)


def _slices_together(restoration: Restoration) -> int:
    plane = restoration.weights_Y.shape[0] * restoration.weights_X.shape[0]
    together: int = _MOST_BYTES // (4 * plane * len(restoration.class_values))
    return max(1, together)
