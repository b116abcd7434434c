"""What a training run is told: `recipe.toml` beside the weights it makes."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from flarekit.core.errors import PredictorError
from flarekit.core.spec import PredictorSpec, parse_spec

_NO_WEIGHTS_YET = {"sha256": "0" * 64, "parameters": 1}


class TrainingFacts(BaseModel):
    """The `[training]` table.

    Attributes:
        held_out: case ids that are never trained on.
        unlabelled: labels that the real cases do not have; never punished where they may lie.
        near: a labelled organ; unlabelled organs lie within `near_mm` of it, or nowhere.
        phantom_seeds: first and one past the last seed of the phantoms trained on.
        phantom_share: fraction of samples taken from phantoms, in [0, 1].
        tile_ZYX: voxels per training sample.
        batch: samples per step.
        learning_rate: AdamW's peak.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    held_out: tuple[str, ...]
    unlabelled: tuple[str, ...] = ()
    near: str | None = None
    near_mm: float = 50.0
    phantom_seeds: tuple[int, int] = (0, 0)
    phantom_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    tile_ZYX: tuple[int, int, int]
    batch: int = 2
    learning_rate: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A predictor to make and how to train it.

    Attributes:
        spacing_mm_ZYX: of the network's grid.
        predictor: the raw `[predictor]` table, for export.
        provenance: the raw `[provenance]` table: data, licence and command, for the card.
    """

    spec: PredictorSpec
    spacing_mm_ZYX: tuple[float, float, float]
    training: TrainingFacts
    predictor: dict[str, Any]
    provenance: dict[str, Any]


def read_recipe(path: Path) -> Recipe:
    """Read a `recipe.toml`.

    Raises:
        PredictorError: the predictor's facts do not hold together.
        pydantic.ValidationError: the training facts do not.
    """
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    predictor = content["predictor"]
    spec = parse_spec({**predictor, "weights": _NO_WEIGHTS_YET}, source=str(path))
    spacing = [value for value in spec.grid.spacing_mm_ZYX if not isinstance(value, str)]
    if len(spacing) != 3:
        raise PredictorError(
            f"{path}: grid.spacing_mm_ZYX: training needs three numbers", fix="give them in mm"
        )
    return Recipe(
        spec=spec,
        spacing_mm_ZYX=(spacing[0], spacing[1], spacing[2]),
        training=TrainingFacts.model_validate(content["training"]),
        predictor=predictor,
        provenance=content["provenance"],
    )
