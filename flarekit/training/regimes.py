"""How each paper trains: its loss over the network's outputs, optimiser and schedule.

Whose they are, and where it is stated, has `regimes.toml`. A recipe changes a regime by its tables
`[training.objective]` and `[training.schedule]`; the compact trainer reads these from the recipe,
nnU-Net's trainers from the plans, where `flarekit train plan --recipe` has put them.
"""

import math
import tomllib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator

from flarekit.core.registry import near_miss
from flarekit.core.tables import Table
from flarekit.training.losses import (
    Target,
    balanced_cross_entropy,
    binary_cross_entropy,
    boundary_loss,
    cross_entropy,
    dice_loss,
    focal_loss,
    reconstruction_loss,
    region_tversky_loss,
    tversky_loss,
)
from flarekit.training.muon import Muon

Spread = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, le=10)]
OptimiserKind = Literal["adam", "adamw", "muon", "sgd"]
Outputs = Any  # logits, a list of them (finest first), or a pair of either and an image
GIVE_PROBABILITIES = frozenset({"mpu_net"})
_LEAST_PROBABILITY = 1e-6
_LEAST_RATE = 0.01  # where a warm-up begins


class ObjectiveFacts(Table):
    """The `[training.objective]` table: what of a regime's loss is another.

    Attributes:
        cross_entropy: weight of the term, as are `dice`, `tversky`, `region_tversky`,
            `region_dice`, `focal`, `boundary` and `binary_cross_entropy`; it may be 0.
        balanced: cross entropy weighs voxels by how rare their class is in the batch.
        regions: of the region-specific terms, per axis.
        region_weights: of false positives and false negatives in `region_tversky`; adaptive where
            None.
    """

    cross_entropy: Spread = 1.0
    dice: Spread = 0.0
    tversky: Spread = 0.0
    region_tversky: Spread = 0.0
    region_dice: Spread = 0.0
    focal: Spread = 0.0
    boundary: Spread = 0.0
    binary_cross_entropy: Spread = 0.0
    balanced: bool = False
    regions: tuple[Count, Count, Count] = (8, 8, 14)
    region_weights: tuple[Spread, Spread] | None = None


TERMS = tuple(
    name for name, field in ObjectiveFacts.model_fields.items() if isinstance(field.default, float)
)


class Objective(ObjectiveFacts):
    """The weighted sum of terms, over every output that the network is supervised at.

    Attributes:
        reconstruction: weight of the loss of the image that a network draws beside its logits.
        smooth: of the Dice.
        skip_absent: classes that do not occur in the batch do not enter the Dice.
        supervision: weights of the outputs, see `supervision_weights`.
    """

    reconstruction: float = 0.0
    smooth: float = 1e-5
    skip_absent: bool = False
    supervision: Literal["halving", "mean", "fading"] = "halving"

    def __call__(
        self,
        outputs: Outputs,
        target: Target,
        image: torch.Tensor,
        *,
        architecture: str,
        epoch: int = 0,
    ) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            outputs: of the network in training.
            target: at the resolution of the image.
            image: (B, C, ...) input of the network.
            architecture: its name; some give probabilities instead of logits.
            epoch: of the paper, see `Schedule`.
        """
        drawn: torch.Tensor | None = None
        if isinstance(outputs, tuple):
            outputs, drawn = outputs
        levels: Sequence[torch.Tensor] = outputs if isinstance(outputs, list) else [outputs]
        weights = supervision_weights(self.supervision, len(levels), epoch)
        loss = torch.zeros((), device=image.device)
        for weight, output in zip(weights, levels, strict=True):
            if weight:
                logits = as_logits(output, architecture)
                loss = loss + weight * self.at_one_level(logits, target.resized(logits.shape[2:]))
        if self.reconstruction and drawn is not None:
            loss = loss + self.reconstruction * reconstruction_loss(drawn, image)
        return loss

    def at_one_level(self, logits: torch.Tensor, target: Target) -> torch.Tensor:
        """Return the loss of one output; both are on the same grid."""
        entropy = balanced_cross_entropy if self.balanced else cross_entropy
        loss = self.cross_entropy * entropy(logits, target)
        if self.focal:
            loss = loss + self.focal * focal_loss(logits, target)
        regions = self.regions[-(logits.ndim - 2) :]
        of_probabilities: dict[str, Callable[[torch.Tensor, Target], torch.Tensor]] = {
            "dice": partial(dice_loss, smooth=self.smooth, skip_absent=self.skip_absent),
            "tversky": tversky_loss,
            "region_tversky": partial(
                region_tversky_loss, regions=regions, weights=self.region_weights
            ),
            "region_dice": partial(region_tversky_loss, regions=regions, weights=(0.5, 0.5)),
            "binary_cross_entropy": binary_cross_entropy,
            "boundary": boundary_loss,
        }
        weights = {term: getattr(self, term) for term in of_probabilities}
        probabilities = logits.softmax(dim=1) if any(weights.values()) else logits
        for term, weight in weights.items():
            if weight:
                loss = loss + weight * of_probabilities[term](probabilities, target)
        return loss


def as_logits(output: torch.Tensor, architecture: str) -> torch.Tensor:
    """Return float32 logits; of probabilities the logarithm, whose softmax they are."""
    if architecture in GIVE_PROBABILITIES:
        return output.float().clamp_min(_LEAST_PROBABILITY).log()
    return output.float()


def supervision_weights(kind: str, count: int, epoch: int) -> list[float]:
    """Return the weight of each of a network's outputs, finest first.

    Args:
        kind: `halving` is nnU-Net's (halved from level to level, the coarsest of several left out,
            in all 1); `mean` the attention U-Net's; `fading` MPU-Net's: the result counts 1, each
            other map 0.4 times 0.8 for every 30 epochs.
        count: of outputs.
        epoch: of the paper.
    """
    if kind == "mean":
        return [1 / count] * count
    if kind == "fading":
        return [1.0] + [0.4 * 0.8 ** (epoch // 30)] * (count - 1)
    halved = [0.5**level for level in range(count)]
    if count > 1:
        halved[-1] = 0.0
    return [weight / sum(halved) for weight in halved]


class Optimiser(Table):
    """An optimiser and its constants."""

    kind: OptimiserKind
    learning_rate: float
    weight_decay: float = 0.0
    eps: float = 1e-8

    def build(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return it over some parameters."""
        rate = self.learning_rate
        if self.kind == "sgd":
            return torch.optim.SGD(
                parameters, rate, momentum=0.99, nesterov=True, weight_decay=self.weight_decay
            )
        if self.kind == "muon":
            return Muon(parameters, rate, weight_decay=self.weight_decay)
        adam = torch.optim.Adam if self.kind == "adam" else torch.optim.AdamW
        return adam(parameters, rate, weight_decay=self.weight_decay, eps=self.eps)


class Schedule(Table):
    """The learning rate's course over a training that stands for some epochs of the paper.

    As `[training.schedule]` of a recipe it says what of a regime's schedule is another. A training
    that has cases for it is validated ten times.

    Attributes:
        kind: `poly` is (1 - progress)^0.9; `halved` by two every 100 epochs; `cosine` half a
            cosine after a short warm-up; `exponential` loses a part of itself every epoch.
        epochs: of the paper.
        warm_up: epochs in which the rate rises from a hundredth of what it would be.
        decay: what `exponential` keeps from epoch to epoch.
        plateau_patience: validations without a better Dice after which the rate is lowered; never
            where None.
        plateau_factor: to what part.
        early_stopping: validations without a better Dice after which the training ends; never
            where None.
    """

    kind: Literal["cosine", "poly", "halved", "constant", "exponential"] = "constant"
    epochs: Count = 1
    warm_up: Annotated[int, Field(ge=0)] = 0
    decay: Annotated[float, Field(gt=0, le=1)] = 0.98
    plateau_patience: Count | None = None
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    early_stopping: Count | None = None

    def epoch(self, progress: float) -> int:
        """Return the paper's epoch at a fraction of the training."""
        return min(self.epochs - 1, int(progress * self.epochs))

    def factor(self, progress: float) -> float:
        """Return what the learning rate is multiplied by at a fraction of the training."""
        warm = 1.0
        if self.warm_up:
            risen = min(1.0, progress * self.epochs / self.warm_up)
            warm = _LEAST_RATE + (1 - _LEAST_RATE) * risen
        return warm * self._planned(progress)

    def after(self, dice: Sequence[float]) -> tuple[float, bool]:
        """Return what validation adds: a further factor of the rate, and whether training ends.

        Args:
            dice: mean validation Dice, in the order of time.
        """
        best, since, since_drop, factor = -math.inf, 0, 0, 1.0
        for each in dice:
            if each > best:
                best, since, since_drop = each, 0, 0
                continue
            since, since_drop = since + 1, since_drop + 1
            if self.plateau_patience is not None and since_drop >= self.plateau_patience:
                factor, since_drop = factor * self.plateau_factor, 0
        return factor, self.early_stopping is not None and since >= self.early_stopping

    def _planned(self, progress: float) -> float:
        if self.kind == "exponential":
            return float(self.decay ** self.epoch(progress))
        if self.kind == "poly":
            return float((1 - min(progress, 1.0)) ** 0.9)
        if self.kind == "halved":
            return float(0.5 ** (self.epoch(progress) // 100))
        if self.kind == "cosine":
            return min(1.0, progress / 0.02 + 0.01) * 0.5 * (1 + math.cos(math.pi * progress))
        return 1.0


class Regime(Table):
    """A paper's way of training.

    Attributes:
        iterations: steps that the paper (or nnU-Net) calls an epoch.
        validations: batches that nnU-Net's loop validates with after an epoch.
        clip: largest norm of the gradient.
    """

    objective: Objective
    optimiser: Optimiser
    schedule: Schedule
    iterations: int = 250
    validations: int = 50
    clip: float = 12.0


REGIMES = {
    name: Regime.model_validate(table)
    for name, table in tomllib.loads(
        Path(__file__).with_name("regimes.toml").read_text(encoding="utf-8")
    ).items()
}


class RegimeFacts(Table):
    """What of `[training]` makes a regime.

    Attributes:
        regime: whose loss, optimiser and schedule; a name in `flarekit.training.regimes`.
        optimiser: its kind, in place of the regime's; name a learning rate with it.
        learning_rate: in place of the regime's.
        reconstruction: weight of the loss of the image that Mamba-AHNet draws, in place of the
            regime's.
        objective: what of the regime's loss is another.
        schedule: what of the regime's schedule is another.
    """

    regime: str = "compact"
    optimiser: OptimiserKind | None = None
    learning_rate: Rate | None = None
    reconstruction: Spread | None = None
    objective: ObjectiveFacts = ObjectiveFacts()
    schedule: Schedule = Schedule()

    @property
    def whole_regime(self) -> Regime:
        """The regime that is named, with everything that is another."""
        regime = REGIMES[self.regime]
        terms = self.objective.model_dump(exclude_unset=True)
        if self.reconstruction is not None:
            terms["reconstruction"] = self.reconstruction
        told = {"kind": self.optimiser, "learning_rate": self.learning_rate}
        optimiser = {name: value for name, value in told.items() if value is not None}
        changed = {
            "objective": regime.objective.model_copy(update=terms),
            "optimiser": regime.optimiser.model_copy(update=optimiser),
            "schedule": regime.schedule.model_copy(
                update=self.schedule.model_dump(exclude_unset=True)
            ),
        }
        return regime.model_copy(update=changed)

    @field_validator("regime")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in REGIMES:
            hint = near_miss(name, REGIMES)
            raise ValueError(f"no regime {name!r}; {hint}")
        return name
