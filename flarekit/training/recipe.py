"""What a training run is told: `recipe.toml` beside the weights it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from flarekit import conventions
from flarekit.core.channels import Window
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.network import NETWORK_FILES
from flarekit.core.spec import PredictorSpec, parse_spec
from flarekit.core.tables import checked, read_toml
from flarekit.models import OwnClass
from flarekit.postprocess import check_rules
from flarekit.training.idle import idle_option
from flarekit.training.regimes import GIVE_PROBABILITIES, Regime
from flarekit.training.tables import OrganFacts, Provenance, StageFacts, TrainingFacts

_PAPERS = Path(__file__).parent / "recipes"
_TABLES = ("predictor", "training", "provenance")
_NO_WEIGHTS_YET = {"sha256": "0" * 64, "parameters": 1}
_HIGHEST = 255  # value in a label map


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A predictor to make and how to train it.

    Attributes:
        text: the file, to be kept beside the weights.
        predictor: the raw `[predictor]` table, for export.
        provenance: the raw `[provenance]` table: data, licence and command, for the card.
        folder: of the file; a module of one's own beside it goes before installed ones.
        trusted: it may execute the class of its own that it names.
    """

    text: str
    spec: PredictorSpec
    training: TrainingFacts
    predictor: dict[str, Any]
    provenance: dict[str, Any]
    folder: Path
    trusted: bool = False

    @property
    def own_class(self) -> OwnClass | None:
        """The class of its own that it names; None where it names none."""
        return OwnClass.of(self.spec.architecture.name, self.folder)

    @property
    def regime(self) -> Regime:
        """Loss, optimiser and schedule."""
        return self.training.whole_regime

    @property
    def stages(self) -> tuple[Recipe, ...]:
        """The recipe of every stage, in order; this one alone where it names no stages."""
        return tuple(map(self._of_stage, self.training.stages)) or (self,)

    def _of_stage(self, stage: StageFacts) -> Recipe:
        grid = self.spec.grid
        if stage.spacing_mm_ZYX is not None:
            grid = grid.model_copy(update={"spacing_mm_ZYX": stage.spacing_mm_ZYX})
        spec = self.spec.model_copy(update={"grid": grid})
        training = self.training.model_copy(update={**stage.changes, "stages": ()})
        return replace(self, spec=spec, training=training)

    @property
    def case_facts(self) -> str:
        """What cases depend on, as text: two recipes that agree in it have the same cases."""
        spec, facts = self.spec, self.training
        grid = None if facts.case_grid == "scan" else spec.grid.spacing_mm_ZYX
        told = (
            spec.channels,
            spec.crop,
            spec.grid.axes,
            grid,
            spec.labels,
            spec.auxiliary,
            facts.unlabelled,
            *([facts.labelled] if facts.labelled else []),
            facts.near,
            facts.near_mm,
            facts.neighbours,
            facts.hard_negatives and facts.hard_negatives.channel,
            facts.hard_negatives and facts.hard_negatives.above,
            facts.other_ct,
        )
        return repr(told)

    @property
    def flat(self) -> bool:
        """Whether the network is 2D."""
        return self.spec.grid.tile_ZYX[0] == 1

    @property
    def unlabelled_classes(self) -> tuple[int, ...]:
        """Indices of the classes that real cases do not have."""
        names = self.class_names
        unlabelled = tuple(names.index(name) for name in self.training.unlabelled)
        return unlabelled + self.auxiliary_classes

    def unlabelled_in(self, case_id: str) -> tuple[int, ...]:
        """Indices of the classes that a real case does not have."""
        for pattern, labels in self.training.labelled.items():
            if fnmatchcase(case_id, pattern):
                names = self.class_names
                missing = [names.index(name) for name in self.spec.labels if name not in labels]
                return tuple(sorted(missing)) + self.auxiliary_classes
        return self.unlabelled_classes

    @property
    def auxiliary_classes(self) -> tuple[int, ...]:
        """Indices of the classes that are background in masks."""
        return tuple(self.class_names.index(name) for name in self.spec.auxiliary)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the network's classes, background first."""
        labels = sorted(self.spec.labels, key=self.spec.labels.__getitem__)
        return ("background", *labels, *self.spec.auxiliary)

    @property
    def organ_names(self) -> tuple[str, ...]:
        """Names of the classes and, behind them, of the neighbours."""
        return (*self.class_names, *self.training.neighbours)

    @property
    def label_values(self) -> tuple[int, ...]:
        """Value of each class in the label maps of training: auxiliary ones count down from 255."""
        return (
            0,
            *sorted(self.spec.labels.values()),
            *(_HIGHEST - index for index in range(len(self.spec.auxiliary))),
        )


def read_recipe(path: Path, *, trust: bool = False) -> Recipe:
    """Read a `recipe.toml`; nothing is executed.

    Args:
        path: the file, or the name of one of `paper_recipes`.
        trust: it may execute the class of its own that it names, when its network is built.

    Raises:
        InputError: the file cannot be read or is not TOML.
        PredictorError: its facts do not hold together.
    """
    if not path.exists():
        path = paper_recipes().get(path.as_posix(), path)
    fix = "name a recipe.toml, or one of flarekit train recipes"
    text, content = read_toml(path, fix=fix, error=InputError)
    return recipe_of(text, content, path, trust=trust)


def paper_recipes() -> dict[str, Path]:
    """Return the recipes of the papers' networks and tasks: `mamba_clinix/brats` -> its file."""
    found = sorted(_PAPERS.glob("*/*.toml"))
    return {path.relative_to(_PAPERS).with_suffix("").as_posix(): path for path in found}


def recipe_of(text: str, content: Mapping[str, Any], path: Path, *, trust: bool = False) -> Recipe:
    """Check and type the content of a `recipe.toml`, given with its text; see `read_recipe`.

    Raises:
        PredictorError: its facts do not hold together.
    """
    missing = [name for name in _TABLES if not isinstance(content.get(name), Mapping)]
    unknown = sorted(content.keys() - set(_TABLES))
    for said, names in (("has no table", missing), ("has besides its tables", unknown)):
        if names:
            raise PredictorError(
                f"{path}: {said} {', '.join(f'[{name}]' for name in names)}",
                fix="see weights/abdomen_ct/recipe.toml",
            )
    predictor = content["predictor"]
    facts = checked(TrainingFacts, content["training"], source=str(path), inside="training")
    checked(Provenance, content["provenance"], source=str(path), inside="provenance")
    recipe = Recipe(
        text=text,
        spec=parse_spec({**predictor, "weights": _NO_WEIGHTS_YET}, source=str(path)),
        training=facts,
        predictor=predictor,
        provenance=content["provenance"],
        folder=path.parent,
        trusted=trust,
    )
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    channels = [channel.name for channel in recipe.spec.channels]
    check_rules(recipe.spec.rules, channels, source=str(path))
    fault = _class_fault(recipe) or _network_fault(recipe) or _stage_fault(recipe)
    for stage in recipe.stages:
        regime = stage.regime
        fault = fault or _sample_fault(stage)
        fault = fault or idle_option(stage.training, regime.objective, regime.schedule)
    if fault:
        raise PredictorError(f"{path}: {fault}", fix="correct that")


def _class_fault(recipe: Recipe) -> str:
    spec, facts = recipe.spec, recipe.training
    if spec.convention not in conventions.names():
        return f"predictor.convention: none is called {spec.convention!r}"
    possible = facts.negatives.possible.values() if facts.negatives is not None else ()
    near = (facts.near,) if facts.near is not None else ()
    sets = (*possible, *facts.labelled.values())
    named = (*facts.unlabelled, *near, *(name for names in sets for name in names))
    unknown = sorted(set(named) - set(spec.labels))
    if unknown:
        return f"training names unknown labels {', '.join(unknown)}"
    if spec.auxiliary and spec.architecture.name in GIVE_PROBABILITIES:
        return "predictor.auxiliary needs an architecture that gives logits"
    if max(spec.labels.values()) > _HIGHEST - len(spec.auxiliary):
        return "predictor.labels leaves no values to auxiliary classes"
    if facts.synthesis is not None and len(spec.labels) != 1:
        return "training.synthesis makes cases with one label, the predictor has several"
    if facts.synthesis is not None and facts.synthesis.kind == "wholebody_petct":
        return _organ_fault(spec.auxiliary)
    return ""


def _network_fault(recipe: Recipe) -> str:
    """Compare what the network is told of classes and channels with what there is."""
    spec = recipe.spec
    arguments, names = spec.architecture.arguments, recipe.class_names
    for field, expected, what in (
        ("num_classes", len(names), f"the classes are {', '.join(names)}"),
        ("input_channels", len(spec.channels), f"there are {len(spec.channels)} channels"),
    ):
        if arguments.get(field, expected) != expected:
            place = "predictor.architecture.arguments"
            return f"{place}.{field} is {arguments[field]}, and {what}: write {expected}"
    return ""


def _organ_fault(auxiliary: tuple[str, ...]) -> str:
    from flarekit.synthesis import ORGANS

    unknown = [name for name in auxiliary if name not in ORGANS]
    return f"predictor.auxiliary: no organ map has {', '.join(unknown)}" if unknown else ""


def _stage_fault(recipe: Recipe) -> str:
    facts, own = recipe.training, recipe.spec.grid.spacing_mm_ZYX
    tables: tuple[TrainingFacts | StageFacts, ...] = (facts, *facts.stages)
    for table in tables:
        if table.optimiser is not None and table.learning_rate is None:
            return f"training.optimiser: name the learning_rate of {table.optimiser} beside it"
    for stage in facts.stages:
        spacing = stage.spacing_mm_ZYX or own
        if spacing != own and facts.case_grid != "scan":
            return 'training.stages: another spacing needs case_grid = "scan"'
        if [mm == "fit" for mm in spacing] != [mm == "fit" for mm in own]:
            return 'training.stages: "fit" stands where predictor.grid.spacing_mm_ZYX has it'
    return ""


def _sample_fault(recipe: Recipe) -> str:
    facts = recipe.training
    if (facts.tile_ZYX[0] == 1) != recipe.flat:
        return "training.tile_ZYX and predictor.grid.tile_ZYX must both have Z = 1, or neither"
    others = (each.share for each in (facts.synthesis, facts.negatives) if each is not None)
    shares = facts.phantom_share + sum(others) + sum(each.share for each in facts.datasets)
    if shares > 1 + 1e-6:
        return "training: the shares of phantoms, synthesis, negatives and datasets are more than 1"
    if facts.datasets and shares < 1 - 1e-6:
        return "training: the shares of phantoms, synthesis, negatives and datasets are less than 1"
    if facts.hard_negatives is not None and facts.foreground + facts.hard_negatives.share > 1:
        return "training.foreground and training.hard_negatives.share are more than 1 together"
    if facts.hard_negatives is not None and not _has_window(recipe, facts.hard_negatives.channel):
        return "training.hard_negatives.channel is not a channel with a window"
    fault = _augmentation_fault(recipe) or _view_fault(recipe)
    if fault:
        return fault
    if recipe.spec.architecture.name in NETWORK_FILES:
        return "predictor.architecture: a network in a file cannot be trained"
    waits = (facts.schedule.plateau_patience, facts.schedule.early_stopping)
    if not facts.validation and any(each is not None for each in waits):
        return "training.schedule: plateau_patience and early_stopping need validation cases"
    if recipe.spec.nnunet is not None:
        return "predictor.nnunet: the compact trainer does not prepare scans as nnU-Net does"
    return ""


def _augmentation_fault(recipe: Recipe) -> str:
    facts = recipe.training.augmentation
    if facts.oral_contrast and not _is_ct(recipe):
        return "training.augmentation.oral_contrast needs one channel with a window in HU"
    if facts.organs != OrganFacts() and not _is_ct(recipe):
        return "training.augmentation.organs needs one channel with a window in HU"
    unknown = facts.organs.textured - set(recipe.spec.labels)
    unknown |= facts.organs.factor.keys() - set(recipe.organ_names)
    if unknown:
        return f"training.augmentation.organs: no label {', '.join(sorted(unknown))}"
    strange = set(facts.hidden) - {each.name for each in recipe.spec.channels}
    if strange:
        return f"training.augmentation.hidden: no channel {', '.join(sorted(strange))}"
    return ""


def _view_fault(recipe: Recipe) -> str:
    spec, facts = recipe.spec, recipe.training
    if facts.views is not None:
        if facts.case_grid != "scan" or spec.grid.spacing_mm_ZYX[1:] != ("fit", "fit"):
            return "training.views needs case_grid = 'scan' and a grid that fits Y and X"
        if facts.views.context[0] > facts.views.context[1]:
            return "training.views.context: give the least width first"
    if facts.reconstruction and spec.architecture.name != "mamba_ahnet":
        return "training.reconstruction: only mamba_ahnet draws its image"
    pet = [channel.name for channel in spec.channels] == ["CT", "PET"]
    bodies = any(each.layout == "wholebody_pet" for each in facts.datasets)
    if not pet and (facts.other_ct is not None or bodies):
        return "training.other_ct and whole-body PETs need the channels CT and PET"
    if bodies and len(spec.labels) != 1:
        return "training.datasets: whole-body PETs have one label, the predictor has several"
    return ""


def _is_ct(recipe: Recipe) -> bool:
    channels = recipe.spec.channels
    return len(channels) == 1 and isinstance(channels[0].intensity, Window)


def _has_window(recipe: Recipe, name: str) -> bool:
    channels = recipe.spec.channels
    return any(each.name == name and isinstance(each.intensity, Window) for each in channels)
