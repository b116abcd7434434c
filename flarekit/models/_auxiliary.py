"""Networks with classes that only help them to tell apart what they look for."""

from __future__ import annotations

import torch
from torch import nn


class WithoutAuxiliary(nn.Module):
    """A network whose last classes are counted as background.

    The softmax over what is left gives every label the probability that it had.

    Args:
        network: gives logits (B, K + count, ...).
        count: of auxiliary classes.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        super().__init__()
        self.network = network
        self.count = count

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K, ...) of an image (B, C, ...)."""
        logits: torch.Tensor = self.network(image)
        kept = logits.shape[1] - self.count
        background = torch.cat([logits[:, :1], logits[:, kept:]], dim=1)
        return torch.cat([background.logsumexp(dim=1, keepdim=True), logits[:, 1:kept]], dim=1)
