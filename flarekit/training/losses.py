"""Losses that never punish an organ for not being labelled."""

from __future__ import annotations

import torch
from torch.nn import functional

from flarekit.training.samples import MAYBE


def partial_label_loss(
    logits_BKZYX: torch.Tensor, classes_BZYX: torch.Tensor, unlabelled: tuple[int, ...]
) -> torch.Tensor:
    """Dice plus cross entropy with voxels that may hold an unlabelled organ.

    Where the target is MAYBE the cross entropy is -log(p(background) + sum of p(unlabelled)):
    whichever of them the network believes is right. Such voxels do not enter the Dice term, which
    is taken over the batch and over the foreground classes that occur in it.

    Args:
        logits_BKZYX: float, K classes.
        classes_BZYX: int64 class indices or MAYBE.
        unlabelled: class indices that MAYBE stands for besides the background.

    Returns:
        A scalar: mean cross entropy + (1 - mean Dice).
    """
    logits_BKN = logits_BKZYX.float().flatten(2)
    classes_BN = classes_BZYX.flatten(1)
    maybe_BN = classes_BN == MAYBE
    p_BKN = logits_BKN.softmax(dim=1)
    cross_entropy = functional.cross_entropy(
        logits_BKN, classes_BN, ignore_index=MAYBE, reduction="sum"
    )
    if unlabelled:
        sample, voxel = maybe_BN.nonzero(as_tuple=True)
        either = sum((p_BKN[sample, k, voxel] for k in unlabelled), p_BKN[sample, 0, voxel])
        cross_entropy = cross_entropy - either.clamp_min(1e-8).log().sum()
    return cross_entropy / classes_BN.numel() + 1.0 - _mean_dice(p_BKN, classes_BN, maybe_BN)


def _mean_dice(
    p_BKN: torch.Tensor, classes_BN: torch.Tensor, maybe_BN: torch.Tensor
) -> torch.Tensor:
    known = (~maybe_BN).float()
    target = classes_BN.masked_fill(maybe_BN, 0)
    is_class = torch.zeros_like(p_BKN).scatter_(1, target[:, None], known[:, None])
    overlap = (p_BKN * is_class).sum(dim=(0, 2))
    truth = is_class.sum(dim=(0, 2))
    predicted = torch.einsum("bkn,bn->k", p_BKN, known)
    dice = (2 * overlap + 1) / (truth + predicted + 1)
    present = truth[1:] > 0
    return dice[1:][present].mean() if bool(present.any()) else dice.new_ones(())
