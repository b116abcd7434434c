"""nnU-Net's targets in our terms."""

from __future__ import annotations

import torch

from flarekit.training.losses import MAYBE, Target


def nnunet_target(
    target: torch.Tensor, classes: int, *, ignored: int | None, unlabelled: list[int]
) -> Target:
    """Return nnU-Net's target as ours.

    Args:
        target: (B, 1, ...) label values.
        classes: of the network.
        ignored: nnU-Net's ignore label: such a voxel may be anything.
        unlabelled: classes that no case has: background may be one of them.
    """
    labels = target[:, 0].long()
    possible = torch.zeros(classes, dtype=torch.bool, device=labels.device)
    if ignored is not None:
        labels = labels.masked_fill(labels == ignored, MAYBE)
        possible[:] = True
    elif unlabelled:
        labels = labels.masked_fill(labels == 0, MAYBE)
        possible[[0, *unlabelled]] = True
    return Target(labels, possible.expand(len(labels), -1))
