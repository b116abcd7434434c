"""What a training depends on, and in what two recipes differ there."""

from collections.abc import Mapping
from typing import Any

from flarekit.training.recipe import Recipe

# of the predictor's facts, those that the training depends on
_TRAINED_BY = ("architecture", "channels", "crop", "labels", "auxiliary")
_GRID = ("spacing_mm_ZYX", "axes", "tile_ZYX")


def trained_by(recipe: Recipe) -> dict[str, Any]:
    """Return everything that the training depends on, by the names of its fields."""
    spec = recipe.spec.model_dump(mode="json")
    told = {name: spec[name] for name in _TRAINED_BY}
    told["grid"] = {name: spec["grid"][name] for name in _GRID}
    training = recipe.training.model_dump(mode="json")
    for name in ("objective", "schedule"):  # as a whole: a recipe may name what is usual
        training[name] = getattr(recipe.regime, name).model_dump(mode="json")
    return _fields(told, "predictor") | _fields(training, "training")


def changes_between(then: Recipe, now: Recipe) -> list[str]:
    """Return what differs between two recipes of what the training depends on, in words."""
    before, after = trained_by(then), trained_by(now)
    return [
        f"{name} was {before.get(name)} and is {after.get(name)}"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def _fields(table: Mapping[str, Any], inside: str) -> dict[str, Any]:
    """Return every value of nested tables by its full name."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        full = f"{inside}.{name}"
        found |= _fields(value, full) if isinstance(value, Mapping) else {full: value}
    return found
