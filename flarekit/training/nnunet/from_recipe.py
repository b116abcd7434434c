"""What nnU-Net's trainers take from a recipe: the network's arguments, and its regime.

Grid, intensities, patch, batch and augmentation are nnU-Net's own. What a recipe asks for and
nnU-Net cannot give is refused; what it decides itself is named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flarekit.core.errors import UsageError
from flarekit.core.tables import checked
from flarekit.training.cases import matches
from flarekit.training.recipe import Recipe
from flarekit.training.regimes import REGIMES, Regime, RegimeFacts
from flarekit.training.tables import TrainingFacts

KEY = "flarekit"  # of plans: the regime, and the cases that are kept apart
_CLIP = 12.0  # nnU-Net's largest norm of a gradient
_FOLDS = 5
_PLANNED_ARGUMENTS = {  # by nnU-Net, or by the dataset
    "input_channels",
    "num_classes",
    "input_size",
    "deep_supervision",
    "n_stages",
    "features_per_stage",
    "kernel_sizes",
    "strides",
    "n_conv_per_stage",
    "n_conv_per_stage_decoder",
}
_OTHER_CASES = (  # cases that nnU-Net's loader does not draw, or labels that it cannot leave open
    "labelled",
    "near",
    "phantom_share",
    "synthesis",
    "negatives",
    "datasets",
    "other_ct",
    "views",
    "hard_negatives",
)
_SPLIT = ("held_out", "validation", "unlabelled")


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a plan takes from a recipe.

    Attributes:
        facts: of the recipe: which cases are kept apart, and which labels they do not have.
        architecture: of the network.
        arguments: those that neither nnU-Net nor the dataset decides.
        regime: loss, optimiser and schedule.
        left: names of what the recipe says and nnU-Net decides itself.
    """

    facts: TrainingFacts
    architecture: str
    arguments: dict[str, Any]
    regime: RegimeFacts
    left: tuple[str, ...]

    def splits(self, case_ids: Sequence[str]) -> list[dict[str, list[str]]]:
        """Return a dataset's folds that keep the recipe's cases apart; none where it names none.

        Raises:
            UsageError: a pattern that fits no case, or nothing left to train on.
        """
        held_out, validation = self.facts.held_out, self.facts.validation
        if not (held_out or validation):
            return []
        for name, patterns in (("held_out", held_out), ("validation", validation)):
            unknown = [each for each in patterns if not any(matches(i, [each]) for i in case_ids)]
            if unknown:
                raise UsageError(
                    f"training.{name}: the dataset has no case {', '.join(unknown)}",
                    fix="name cases that are there, or remove them from the recipe",
                )
        rest = [each for each in sorted(case_ids) if not matches(each, held_out)]
        if validation:
            aside = [each for each in rest if matches(each, validation)]
            folds = [aside]
        else:
            folds = [rest[fold::_FOLDS] for fold in range(_FOLDS)]
        splits = [
            {"train": [each for each in rest if each not in fold], "val": fold} for fold in folds
        ]
        if not all(split["train"] and split["val"] for split in splits):
            raise UsageError(
                "training.held_out and training.validation leave no cases",
                fix="name fewer cases there",
            )
        return splits


def taken_from(recipe: Recipe) -> Taken:
    """Return what a plan takes from a recipe.

    Raises:
        UsageError: it asks for what nnU-Net cannot do.
    """
    facts, spec = recipe.training, recipe.spec
    for name in _OTHER_CASES:
        if getattr(facts, name) not in (None, 0.0, (), {}):
            raise UsageError(
                f"training.{name}: nnU-Net draws its samples from one labelled dataset",
                fix="train it with flarekit train compact, or leave that out of the recipe",
            )
    if spec.auxiliary:
        raise UsageError(
            "predictor.auxiliary: nnU-Net trains the labels of the dataset only",
            fix="train it with flarekit train compact, or leave that out of the recipe",
        )
    regime = checked(
        RegimeFacts,
        {name: value for name, value in facts.model_dump(exclude_unset=True).items()
         if name in RegimeFacts.model_fields},
        source="the recipe",
    )  # fmt: skip
    if REGIMES[regime.regime].clip != _CLIP:
        raise UsageError(
            f"training.regime: {regime.regime} limits gradients to another norm than nnU-Net",
            fix="train it with flarekit train compact, or name the regime of a paper",
        )
    arguments = {
        name: value
        for name, value in spec.architecture.arguments.items()
        if name not in _PLANNED_ARGUMENTS
    }
    if spec.architecture.name == "mamba_ahnet":  # the image is drawn while training only
        arguments["reconstruction"] = regime.whole_regime.objective.reconstruction > 0
    told = facts.model_fields_set - set(RegimeFacts.model_fields) - set(_OTHER_CASES) - set(_SPLIT)
    return Taken(
        facts=facts,
        architecture=spec.architecture.name,
        arguments=arguments,
        regime=regime,
        left=tuple(sorted(told)),
    )


def into_plans(taken: Taken | None, case_ids: Sequence[str]) -> dict[str, Any]:
    """Return what plans hold of a recipe, for a dataset's cases; nothing without one."""
    if taken is None:
        return {}
    told = taken.regime.model_dump(mode="json", exclude_unset=True)
    patterns = (*taken.facts.held_out, *taken.facts.validation)
    apart = [each for each in sorted(case_ids) if matches(each, patterns)]
    return {KEY: {"regime": told, "apart": apart}}


def regime_of(plans: Mapping[str, Any], architecture: str) -> Regime:
    """Return the regime that plans hold; the paper's of an architecture where they hold none.

    Raises:
        PredictorError: they hold something else there.
    """
    held = plans.get(KEY)
    if not isinstance(held, Mapping):
        return REGIMES[architecture]
    return checked(RegimeFacts, held.get("regime", {}), source="plans", inside=KEY).whole_regime
