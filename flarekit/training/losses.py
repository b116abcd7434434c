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
    log_p = functional.log_softmax(logits_BKZYX.float(), dim=1)
    maybe = classes_BZYX == MAYBE
    target = torch.where(maybe, 0, classes_BZYX)
    picked = log_p.gather(1, target[:, None])[:, 0]
    if unlabelled:
        either = torch.logsumexp(log_p[:, [0, *unlabelled]], dim=1)
        picked = torch.where(maybe, either, picked)
    cross_entropy = -picked.mean()
    return cross_entropy + 1.0 - _mean_dice(log_p.exp(), target, ~maybe)


def _mean_dice(
    p_BKZYX: torch.Tensor, target_BZYX: torch.Tensor, known_BZYX: torch.Tensor
) -> torch.Tensor:
    count = p_BKZYX.shape[1]
    known = known_BZYX.reshape(-1).float()
    target = target_BZYX.reshape(-1)
    p_NK = p_BKZYX.movedim(1, -1).reshape(-1, count)
    p_target = p_NK.gather(1, target[:, None])[:, 0] * known
    overlap = torch.zeros(count).index_add(0, target, p_target)
    truth = torch.zeros(count).index_add(0, target, known)
    predicted = known @ p_NK
    dice = (2 * overlap + 1) / (truth + predicted + 1)
    present = truth[1:] > 0
    return dice[1:][present].mean() if bool(present.any()) else dice.new_ones(())
