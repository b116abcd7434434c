"""The slab of summed logits in PyTorch, on the device or on the host."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from flarekit.engine._slab import Place


@dataclass
class TorchSums:
    """Weighted logits of every class and, last, the weights; see `flarekit.engine._slab.Sums`."""

    slab_KZYX: torch.Tensor
    weights_ZYX: torch.Tensor

    @torch.inference_mode()
    def add(self, logits_KZYX: torch.Tensor, place: Place, z: int = 0) -> None:
        """Add one tile's logits, times the window's weights."""
        (y, x), (depth, height, width) = place, logits_KZYX.shape[1:]
        logits_KZYX = logits_KZYX.to(self.slab_KZYX.device)
        part = self.slab_KZYX[:, z : z + depth, y : y + height, x : x + width]
        if part.dtype == torch.float32:
            part[:-1].addcmul_(logits_KZYX, self.weights_ZYX)
        else:
            part[:-1] += logits_KZYX * self.weights_ZYX
        part[-1] += self.weights_ZYX

    @torch.inference_mode()
    def classes(self, count: int, size_YX: Place) -> NDArray[np.uint8]:
        """Return the class index of the first slices' voxels."""
        sums_KZYX = self.slab_KZYX[:-1, :count, : size_YX[0], : size_YX[1]]
        classes: NDArray[np.uint8] = sums_KZYX.argmax(dim=0).to(torch.uint8).cpu().numpy()
        return classes

    @torch.inference_mode()
    def logits(self, count: int, size_YX: Place) -> NDArray[np.float32]:
        """Return the mean logits of the first slices, (K, count, Y, X)."""
        part = self.slab_KZYX[:, :count, : size_YX[0], : size_YX[1]]
        mean = part[:-1] / (part[-1:] + (part[-1:] == 0))
        logits: NDArray[np.float32] = mean.float().cpu().numpy()
        return logits

    @torch.inference_mode()
    def finite(self, count: int) -> bool:
        """Return whether every sum in the first slices is a number."""
        return bool(self.slab_KZYX[:, :count].sum(dtype=torch.float32).isfinite())

    @torch.inference_mode()
    def move_on(self, count: int) -> None:
        """Drop the first slices; zeros follow at the end."""
        keep = max(0, self.slab_KZYX.shape[1] - count)
        self.slab_KZYX[:, :keep] = self.slab_KZYX[:, count : count + keep].clone()
        self.slab_KZYX[:, keep:] = 0

    def to(self, device: torch.device) -> None:
        """Move to another device."""
        self.slab_KZYX = self.slab_KZYX.to(device)
        self.weights_ZYX = self.weights_ZYX.to(device)
