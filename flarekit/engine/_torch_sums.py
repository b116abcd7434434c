"""The slab of summed logits in PyTorch, on the device or on the host."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from flarekit.engine._slab import Place, Restoration
from flarekit.engine._torch_memory import NoRoom, attempt, free_cache
from flarekit.engine._torch_restore import TorchRestorer

_LOG = logging.getLogger(__name__)
_HOST = torch.device("cpu")
T = TypeVar("T")


@dataclass
class TorchSums:
    """Weighted logits of every class and, last, the weights; see `flarekit.engine._slab.Sums`.

    Where the device has no room for what is to be done with them, they move to the host.

    Attributes:
        notes: where that is said.
        on_host: they are where memory is no matter.
    """

    slab_KZYX: torch.Tensor
    weights_ZYX: torch.Tensor
    notes: list[str] = field(default_factory=list)
    on_host: bool = False
    _restorer: TorchRestorer | None = None

    @classmethod
    def zeros(
        cls,
        shape_KZYX: tuple[int, ...],
        weights_ZYX: torch.Tensor,
        device: torch.device,
        notes: list[str],
    ) -> TorchSums:
        """Return sums of zeros, in the precision of the weights."""

        def made() -> TorchSums:
            slab_KZYX = torch.zeros(shape_KZYX, dtype=weights_ZYX.dtype, device=device)
            return cls(slab_KZYX, weights_ZYX.to(device), notes, device == _HOST)

        sums = attempt(made)
        if not isinstance(sums, NoRoom):
            return sums
        _LOG.debug(sums.reason)
        free_cache(device)
        slab_KZYX = torch.zeros(shape_KZYX, dtype=weights_ZYX.dtype)
        sums = cls(slab_KZYX, weights_ZYX, notes)
        sums._say_on_host("the slab of logits does not fit")
        return sums

    @torch.inference_mode()
    def add(self, logits_KZYX: torch.Tensor, place: Place, z: int = 0) -> None:
        """Add one tile's logits, times the window's weights."""
        (y, x), (depth, height, width) = place, logits_KZYX.shape[1:]

        def added() -> None:
            logits = logits_KZYX.to(self.slab_KZYX.device)
            part = self.slab_KZYX[:, z : z + depth, y : y + height, x : x + width]
            if part.dtype == torch.float32:
                logits = logits.float()  # the last that takes memory: what is added, is added once
                part[:-1].addcmul_(logits, self.weights_ZYX)
            else:
                weighted = logits.float() * self.weights_ZYX
                part[:-1] += weighted
            part[-1] += self.weights_ZYX

        self._with_room(added)

    @torch.inference_mode()
    def classes(self, count: int, size_YX: Place) -> NDArray[np.uint8]:
        """Return the class index of the first slices' voxels."""

        def decided() -> NDArray[np.uint8]:
            sums_KZYX = self.slab_KZYX[:-1, :count, : size_YX[0], : size_YX[1]]
            classes: NDArray[np.uint8] = sums_KZYX.argmax(dim=0).to(torch.uint8).cpu().numpy()
            return classes

        return self._with_room(decided)

    @torch.inference_mode()
    def logits(self, count: int, size_YX: Place) -> NDArray[np.float32]:
        """Return the mean logits of the first slices, (K, count, Y, X)."""

        def mean() -> NDArray[np.float32]:
            logits: NDArray[np.float32] = self._mean(count, size_YX).cpu().numpy()
            return logits

        return self._with_room(mean)

    @torch.inference_mode()
    def labels(
        self, count: int, size_YX: Place, restoration: Callable[[], Restoration]
    ) -> NDArray[np.uint8] | None:
        """Return what labels the first slices complete on the scan's grid; None on the host."""
        if self._restorer is None:
            if self.on_host:
                return None
            self._restorer = TorchRestorer(restoration(), self.slab_KZYX.device, self.notes)
        mean_KZYX = self._with_room(lambda: self._mean(count, size_YX))
        return self._restorer.add(mean_KZYX)

    def _mean(self, count: int, size_YX: Place) -> torch.Tensor:
        part = self.slab_KZYX[:, :count, : size_YX[0], : size_YX[1]]
        return (part[:-1] / (part[-1:] + (part[-1:] == 0))).float()

    @torch.inference_mode()
    def finite(self, count: int) -> bool:
        """Return whether every sum in the first slices is a number."""
        return self._with_room(
            lambda: bool(self.slab_KZYX[:, :count].sum(dtype=torch.float32).isfinite())
        )

    @torch.inference_mode()
    def move_on(self, count: int) -> None:
        """Drop the first slices; zeros follow at the end."""
        keep = max(0, self.slab_KZYX.shape[1] - count)
        for low in range(0, keep, max(1, count)):  # by as many as do not overlap: without a copy
            high = min(low + count, keep)
            self.slab_KZYX[:, low:high] = self.slab_KZYX[:, low + count : high + count]
        self.slab_KZYX[:, keep:] = 0

    def to(self, device: torch.device) -> None:
        """Move the sums to another device."""
        self.slab_KZYX = self.slab_KZYX.to(device)
        self.weights_ZYX = self.weights_ZYX.to(device)

    def move_to_host(self, why: str) -> None:
        """Add up on the host from here on, and say so."""
        device = self.slab_KZYX.device
        self.to(_HOST)
        free_cache(device)
        self._say_on_host(why)

    def _say_on_host(self, why: str) -> None:
        self.on_host = True
        note = f"out of memory ({why}): logits are added up on the host from here on"
        _LOG.warning(note)
        self.notes.append(note)

    def _with_room(self, work: Callable[[], T]) -> T:
        """Do some work; where there is no room for it, without caches, then on the host."""
        if not self.on_host:
            for _ in range(2):
                outcome = attempt(work)
                if not isinstance(outcome, NoRoom):
                    return outcome
                free_cache(self.slab_KZYX.device)
            self.move_to_host("what is done with the sums does not fit beside them")
        return work()
