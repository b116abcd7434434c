"""nnU-Net's targets in our terms."""

from typing import Any

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


def region_target(target: torch.Tensor, index: int, *, ignored: bool) -> Target:
    """Return one region of nnU-Net's target as a target of two classes, outside and inside.

    Args:
        target: (B, R, ...) of 0 and 1; one channel more, the last, is what is ignored.
        index: of the region.
        ignored: there is such a channel.
    """
    inside = target[:, index].long()
    if ignored:
        inside = inside.masked_fill(target[:, -1] > 0, MAYBE)
    possible = torch.full((len(inside), 2), fill_value=ignored, device=inside.device)
    return Target(inside, possible)


def region_levels(outputs: Any, index: int) -> list[torch.Tensor]:  # noqa: ANN401 - of any level
    """Return logits of two classes, outside (0) and inside: their softmax is a region's sigmoid.

    Args:
        outputs: (B, R, ...) logits, or a list of them, the finest first.
        index: of the region.
    """
    levels = outputs if isinstance(outputs, list | tuple) else [outputs]
    return [
        torch.stack([torch.zeros_like(level[:, index]), level[:, index]], dim=1) for level in levels
    ]
