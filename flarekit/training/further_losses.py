"""Losses that the papers name beside Dice, Tversky and cross entropy.

Focal, boundary and binary cross entropy are what Att-UMamba's section IV.C offers; class-balanced
cross entropy is MPU-Net's (section 3.4). None punishes an organ for not being labelled, see
`flarekit.training.losses`, whose shape letters hold here too: logits and probabilities are
(B, K, ...), targets are of the same grid.
"""

from __future__ import annotations

import numpy as np
import torch

from flarekit.training.losses import MAYBE, Target


def log_likelihood(logits: torch.Tensor, target: Target) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log p of what each voxel is known to be, and which voxels anything is known about.

    Where a voxel is MAYBE, p is the sum of the probabilities of its possible classes.

    Returns:
        float32 (B, N) and bool (B, N).
    """
    log_BKN = logits.float().flatten(2).log_softmax(dim=1)
    classes_BN = target.classes.flatten(1)
    maybe_BN = classes_BN == MAYBE
    log_BN = log_BKN.gather(1, classes_BN.masked_fill(maybe_BN, 0)[:, None])[:, 0]
    if not target.has_maybe:
        return log_BN, ~maybe_BN
    impossible = ~target.possible_BK[:, :, None]
    either_BN = log_BKN.masked_fill(impossible, -1e9).logsumexp(dim=1)
    anything_B = target.possible_BK.all(dim=1)
    return torch.where(maybe_BN, either_BN, log_BN), ~(maybe_BN & anything_B[:, None])


def focal_loss(logits: torch.Tensor, target: Target, *, focus: float = 2.0) -> torch.Tensor:
    """Return the mean of -(1 - p)^focus log p (Lin et al., Focal Loss for Dense Object Detection).

    With a focus (gamma) of 0 it is cross entropy.
    """
    log_BN, counted_BN = log_likelihood(logits, target)
    each_BN = -((1 - log_BN.exp()).clamp_min(0) ** focus) * log_BN
    return (each_BN * counted_BN).sum() / counted_BN.sum().clamp_min(1)


def balanced_cross_entropy(logits: torch.Tensor, target: Target) -> torch.Tensor:
    """Return cross entropy whose voxels weigh what is left without their class.

    A voxel of a class that takes a share s of the batch weighs 1 - s (Xie and Tu, Holistically-
    Nested Edge Detection, Eq. 2, for two classes: each weighs the other's share); weights are
    divided by their sum. MAYBE counts as background.
    """
    log_BN, counted_BN = log_likelihood(logits, target)
    classes_BN = target.classes.flatten(1)
    classes_BN = classes_BN.masked_fill(classes_BN == MAYBE, 0)
    counts_K = torch.bincount(classes_BN[counted_BN], minlength=logits.shape[1]).float()
    share_K = counts_K / counts_K.sum().clamp_min(1)
    weights_BN = (1 - share_K).clamp_min(1e-3)[classes_BN] * counted_BN
    return -(weights_BN * log_BN).sum() / weights_BN.sum().clamp_min(1e-6)


def binary_cross_entropy(probabilities: torch.Tensor, target: Target) -> torch.Tensor:
    """Return -(g log p + (1 - g) log(1 - p)), its mean over foreground classes and voxels.

    The second part of MPU-Net's Eq. 19, where the paper writes log(1 - log p), which has no value
    for any p: log(1 - p) is meant. Voxels that are MAYBE count for the classes that they are not.
    """
    p = target.counted(probabilities)[:, 1:].clamp(1e-6, 1 - 1e-6)
    g = target.is_class[:, 1:]
    return -(g * p.log() + (1 - g) * (1 - p).log()).mean()


def boundary_loss(probabilities: torch.Tensor, target: Target) -> torch.Tensor:
    """Return the mean of p times the signed distance to the true outline (Kervadec et al., Eq. 5).

    Distances are in voxels, negative inside, and divided by the longest axis; a class that a sample
    does not have costs nothing there. They are computed on the host.
    """
    from scipy.ndimage import distance_transform_edt

    truth = target.is_class[:, 1:].bool().cpu().numpy()
    distances = np.zeros(truth.shape, np.float32)
    for sample in range(truth.shape[0]):
        for label in range(truth.shape[1]):
            inside = truth[sample, label]
            if inside.any() and not inside.all():
                outwards = distance_transform_edt(~inside) - distance_transform_edt(inside)
                distances[sample, label] = outwards / max(inside.shape)
    weights = torch.from_numpy(distances).to(probabilities.device)
    return (target.counted(probabilities)[:, 1:] * weights).mean()
