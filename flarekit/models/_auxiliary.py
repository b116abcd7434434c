"""Networks with classes that only help them to tell apart what they look for."""

from collections.abc import Sequence

import torch
from torch import nn


class WithoutAuxiliary(nn.Module):
    """A network whose last classes are counted as background, or as few classes together.

    The softmax over what is left gives every label the probability that it had.

    Args:
        network: gives logits (B, K + count, ...).
        count: of auxiliary classes.
        groups: indices, 0 to count - 1, of the auxiliary classes that stay one class each.
    """

    def __init__(self, network: nn.Module, count: int, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.network = network
        self.count = count
        kept = {index for group in groups for index in group}
        self.background = [index for index in range(count) if index not in kept]
        self.groups = [list(group) for group in groups]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K + groups, ...) of an image (B, C, ...)."""
        logits: torch.Tensor = self.network(image)
        first = logits.shape[1] - self.count
        background = [0, *(first + index for index in self.background)]
        groups = [[first + index for index in group] for group in self.groups]
        return torch.cat(
            [
                _together(logits, background),
                logits[:, 1:first],
                *(_together(logits, group) for group in groups),
            ],
            dim=1,
        )


def _together(logits: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """Return the logit (B, 1, ...) of belonging to any of some classes."""
    chosen = torch.cat([logits[:, index : index + 1] for index in classes], dim=1)
    return chosen.logsumexp(dim=1, keepdim=True)
