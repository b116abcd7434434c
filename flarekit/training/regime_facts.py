"""The part of `recipe.toml` that says with which loss, optimiser and schedule a network is trained.

The compact trainer reads it from the recipe; nnU-Net's trainers from the plans, where `flarekit
train plan --recipe` has put it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, field_validator

from flarekit.core.registry import near_miss
from flarekit.core.tables import Table
from flarekit.training.regimes import REGIMES, Regime

Spread = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class ObjectiveFacts(Table):
    """The `[training.objective]` table: what of the regime's loss is another; see `Objective`.

    Weights of terms (`cross_entropy`, `dice`, `tversky`, `region_tversky`, `region_dice`, `focal`,
    `boundary`, `binary_cross_entropy`) may be 0; what is not named is the regime's.
    """

    cross_entropy: Spread | None = None
    dice: Spread | None = None
    tversky: Spread | None = None
    region_tversky: Spread | None = None
    region_dice: Spread | None = None
    focal: Spread | None = None
    boundary: Spread | None = None
    binary_cross_entropy: Spread | None = None
    balanced: bool | None = None
    regions: tuple[Count, Count, Count] | None = None
    region_weights: tuple[Spread, Spread] | None = None


class ScheduleFacts(Table):
    """The `[training.schedule]` table: what of the regime's schedule is another; see `Schedule`.

    `plateau_patience` and `early_stopping` count validations, ten of which there are in a training
    that has cases for them.
    """

    kind: Literal["cosine", "poly", "halved", "constant", "exponential"] | None = None
    epochs: Count | None = None
    warm_up: Annotated[int, Field(ge=0)] | None = None
    decay: Annotated[float, Field(gt=0, le=1)] | None = None
    plateau_patience: Count | None = None
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] | None = None
    early_stopping: Count | None = None


class RegimeFacts(Table):
    """What of `[training]` makes a regime.

    Attributes:
        regime: whose loss, optimiser and schedule; a name in `flarekit.training.regimes`.
        learning_rate: in place of the regime's.
        reconstruction: weight of the loss of the image that Mamba-AHNet draws, in place of the
            regime's.
        objective: what of the regime's loss is another.
        schedule: what of the regime's schedule is another.
    """

    regime: str = "compact"
    learning_rate: Annotated[float, Field(gt=0, le=10)] | None = None
    reconstruction: Spread | None = None
    objective: ObjectiveFacts = ObjectiveFacts()
    schedule: ScheduleFacts = ScheduleFacts()

    @property
    def whole_regime(self) -> Regime:
        """The regime that is named, with everything that is another."""
        regime = REGIMES[self.regime]
        terms = self.objective.model_dump(exclude_none=True)
        if self.reconstruction is not None:
            terms["reconstruction"] = self.reconstruction
        optimiser = regime.optimiser
        if self.learning_rate is not None:
            optimiser = replace(optimiser, learning_rate=self.learning_rate)
        return replace(
            regime,
            objective=replace(regime.objective, **terms),
            optimiser=optimiser,
            schedule=replace(regime.schedule, **self.schedule.model_dump(exclude_none=True)),
        )

    @field_validator("regime")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in REGIMES:
            hint = near_miss(name, REGIMES)
            raise ValueError(f"no regime {name!r}; {hint}")
        return name
