"""Loss terms; none of them ever punishes an organ for not being labelled.

Where a case's labels cannot tell, a voxel is MAYBE: the background, or one of the classes that are
possible there. Cross entropy then asks only that one of those is likely, and overlap terms leave
those classes out; every other class is known to be absent and counts as usual.

Focal, boundary and binary cross entropy are what Att-UMamba's section IV.C offers; class-balanced
cross entropy is MPU-Net's (section 3.4).

Shape letters: B samples, K classes (0 is the background), N voxels of any number of axes. Logits
and probabilities are (B, K, ...), targets are of the same grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

MAYBE = 255  # a class index that stands for "one of the possible classes"


@dataclass(frozen=True)
class Target:
    """What is known about a batch.

    Attributes:
        classes: int64 (B, ...) class indices or MAYBE.
        possible_BK: bool, the classes that MAYBE stands for in each sample. All of them is the same
            as an ignored voxel.
    """

    classes: torch.Tensor
    possible_BK: torch.Tensor

    def resized(self, size: Sequence[int]) -> Target:
        """Return the target on a grid of another size, by nearest neighbour."""
        if tuple(self.classes.shape[1:]) == tuple(size):
            return self
        scaled = functional.interpolate(
            self.classes[:, None].float(), size=list(size), mode="nearest-exact"
        )
        return Target(scaled[:, 0].long(), self.possible_BK)

    @cached_property
    def has_maybe(self) -> bool:
        """Whether any voxel is MAYBE."""
        return bool((self.classes == MAYBE).any())

    @cached_property
    def is_class(self) -> torch.Tensor:
        """Float32 (B, K, ...): 1 where a class is known to be; MAYBE is none."""
        classes = self.classes[:, None]
        known = (classes != MAYBE).float()
        shape = (len(self.classes), self.possible_BK.shape[1], *self.classes.shape[1:])
        zeros = torch.zeros(shape, device=classes.device)
        return zeros.scatter_(1, classes.masked_fill(classes == MAYBE, 0), known)

    def counted(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return probabilities (B, K, ...) without those that nothing is known about."""
        if not self.has_maybe:
            return probabilities
        axes = [1] * (self.classes.ndim - 1)
        unknown = (self.classes == MAYBE)[:, None] & self.possible_BK.view(
            *self.possible_BK.shape, *axes
        )
        return probabilities.masked_fill(unknown, 0)


def cross_entropy(logits: torch.Tensor, target: Target) -> torch.Tensor:
    """Return the mean cross entropy over the voxels that something is known about.

    A MAYBE voxel costs -log of the sum of the probabilities of its possible classes.
    """
    logits_BKN = logits.float().flatten(2)
    classes_BN = target.classes.flatten(1)
    total = functional.cross_entropy(logits_BKN, classes_BN, ignore_index=MAYBE, reduction="sum")
    count = classes_BN.numel()
    if target.has_maybe:
        sample, voxel = (classes_BN == MAYBE).nonzero(as_tuple=True)
        possible_MK = target.possible_BK[sample]
        logits_MK = logits_BKN.transpose(1, 2)[sample, voxel]
        either_M = logits_MK.masked_fill(~possible_MK, -torch.inf).logsumexp(dim=1)
        total = total + (logits_MK.logsumexp(dim=1) - either_M).sum()
        count -= int(possible_MK.all(dim=1).sum())
    return total / max(count, 1)


def dice_loss(
    probabilities: torch.Tensor,
    target: Target,
    *,
    smooth: float = 1e-5,
    over_batch: bool = True,
    skip_absent: bool = False,
) -> torch.Tensor:
    """Return 1 - mean soft Dice over the foreground classes (MambaClinix Eq. 14, nnU-Net's).

    Args:
        probabilities: (B, K, ...).
        target: of the same grid.
        smooth: added to numerator and denominator.
        over_batch: sums run over the whole batch; else Dice is taken sample by sample.
        skip_absent: leave out classes that do not occur, instead of counting them.
    """
    true_positive, predicted, truth = _sums(probabilities, target, over_batch=over_batch)
    dice = (2 * true_positive + smooth) / (truth + predicted + smooth)
    foreground, present = dice[..., 1:], truth[..., 1:] > 0
    if not skip_absent:
        return 1 - foreground.mean()
    if not bool(present.any()):
        return 0 * predicted.sum()
    return 1 - foreground[present].mean()


def tversky_loss(
    probabilities: torch.Tensor,
    target: Target,
    *,
    false_positives: float = 0.3,
    false_negatives: float = 0.7,
    smooth: float = 1.0,
) -> torch.Tensor:
    """Return 1 - mean Tversky index over samples and all classes (MPU-Net Eq. 19).

    Args:
        probabilities: (B, K, ...).
        target: of the same grid.
        false_positives: what a false positive weighs; the paper's alpha.
        false_negatives: what a false negative weighs; the paper's beta.
        smooth: added to numerator and denominator.
    """
    true_positive, predicted, truth = _sums(probabilities, target, over_batch=False)
    wrong = false_positives * (predicted - true_positive) + false_negatives * (
        truth - true_positive
    )
    return 1 - ((true_positive + smooth) / (true_positive + wrong + smooth)).mean()


def region_tversky_loss(
    probabilities: torch.Tensor,
    target: Target,
    *,
    regions: Sequence[int],
    weights: tuple[float, float] | None = None,
    base: float = 0.3,
    spread: float = 0.4,
    smooth: float = 1e-5,
) -> torch.Tensor:
    """Return 1 - mean Tversky index over regions and foreground classes (MambaClinix Eq. 16).

    The volume is cut into regions; each weighs its own false positives by base + spread FP / (FP +
    FN) and its false negatives in the same way, so that the commoner fault costs more; or all
    weigh them the same. With weights of a half it is the Dice loss of every region. As in the
    authors' code sums are means over a region, added up over the batch, and regions are averaged
    where the equation adds them.

    Args:
        probabilities: (B, K, ...).
        target: of the same grid.
        regions: number of regions along each axis.
        weights: of false positives and false negatives; adaptive where None.
        base: smallest weight of a fault; the paper's 0.3.
        spread: what the commoner fault weighs more; 0.4.
        smooth: added to every fraction, above and below.
    """
    truth = _pooled(target.is_class, regions)
    true_positive = _pooled(probabilities * target.is_class, regions)
    false_positive = _pooled(target.counted(probabilities), regions) - true_positive
    false_negative = truth - true_positive
    faults = false_positive + false_negative + smooth
    alpha: torch.Tensor | float = base + spread * (false_positive + smooth) / faults
    beta: torch.Tensor | float = base + spread * (false_negative + smooth) / faults
    if weights is not None:
        alpha, beta = weights
    wrong = alpha * false_positive + beta * false_negative
    index = (true_positive + smooth) / (true_positive + wrong + smooth)
    return 1 - index[1:].mean()


def reconstruction_loss(drawn: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error against the image, each channel of it stretched to [0, 1].

    Args:
        drawn: (B, C, ...) in [0, 1] (Mamba-AHNet section IV.E).
        image: (B, C, ...), the network's input.
    """
    axes = list(range(2, image.ndim))
    low, high = image.amin(dim=axes, keepdim=True), image.amax(dim=axes, keepdim=True)
    return functional.mse_loss(drawn.float(), (image - low) / (high - low).clamp_min(1e-6))


def _sums(
    probabilities: torch.Tensor, target: Target, *, over_batch: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return true positives, predicted and true voxels per class: (K,), or (B, K)."""
    axes = [0] * over_batch + list(range(2, probabilities.ndim))
    true_positive = (probabilities * target.is_class).sum(dim=axes)
    return true_positive, target.counted(probabilities).sum(dim=axes), target.is_class.sum(dim=axes)


def _pooled(values: torch.Tensor, regions: Sequence[int]) -> torch.Tensor:
    """Return means over regions, added up over the batch: (K, regions)."""
    if values.ndim == 4:
        return functional.adaptive_avg_pool2d(values, (regions[0], regions[1])).sum(dim=0)
    size = (regions[0], regions[1], regions[2])
    return functional.adaptive_avg_pool3d(values, size).sum(dim=0)


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
