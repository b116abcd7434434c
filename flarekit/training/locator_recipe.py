"""A recipe for the small network that says where a predictor's labels lie in a whole scan."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flarekit.core.channels import BodyCrop, Window
from flarekit.core.errors import UsageError
from flarekit.core.spec import PredictorSpec
from flarekit.training.proposal import Topology
from flarekit.training.recipe import recipe_of

_NETWORK = Topology(  # 0.43 million parameters, 0.87 MB as they are stored
    strides=((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 4,
    features=(12, 24, 40, 64),
)
_SEEN = 64.0  # voxels across a usual scan, so that one tile or a few see all of it
_COARSEST_MM = 8.0
_COARSER = 1.5  # times the predictor's own grid, at least
_LARGEST_TILE = (64, 64, 80)
_SMALLEST_SIDE, _MULTIPLE = 16, 8
_BODY_HU = -110.0


def refuse_what_needs_none(spec: PredictorSpec) -> None:
    """Raise where a locator would be of no use.

    Raises:
        UsageError: the predictor sees a whole scan at once, begins in its middle, or has a first
            pass.
    """
    if not all(isinstance(mm, float) for mm in spec.grid.spacing_mm_ZYX):
        raise UsageError(
            f"{spec.name}: sees a whole scan at once, and needs no locator",
            fix="name a predictor whose grid has a spacing",
        )
    if spec.grid.order != "upwards":
        raise UsageError(
            f"{spec.name}: begins in the middle of a scan, and needs no locator",
            fix="name a predictor whose window sees all of a scan",
        )
    if spec.coarse is not None:
        raise UsageError(
            f"{spec.name}: has a first pass, which does not go together with a locator",
            fix="take [coarse] out of its predictor.toml",
        )


def locator_recipe(
    spec: PredictorSpec,
    labels: Mapping[str, int],
    extent_mm_ZYX: Sequence[float],
    validation: Sequence[str],
) -> str:
    """Return the text of a recipe: a network under 1 MB that sees a usual scan in a tile or a few.

    Args:
        spec: of the predictor; the locator takes the same channels.
        labels: name -> value, of those that the masks have.
        extent_mm_ZYX: of a usual scan.
        validation: ids of cases that are not trained on.
    """
    import tomli_w

    finest = min(float(mm) for mm in spec.grid.spacing_mm_ZYX)
    spacing = round(max(_COARSER * finest, min(_COARSEST_MM, max(extent_mm_ZYX) / _SEEN)), 1)
    tile = [
        min(most, max(_SMALLEST_SIDE, math.ceil(mm / spacing / _MULTIPLE) * _MULTIPLE))
        for mm, most in zip(extent_mm_ZYX, _LARGEST_TILE, strict=True)
    ]
    usual = tomllib.loads(Path(__file__).with_name("locator.toml").read_text(encoding="utf-8"))
    arguments = _NETWORK.arguments(len(spec.channels), len(labels) + 1)
    predictor = {
        "name": f"{spec.name}_locator",
        "title": f"Where {_named(labels)} may lie, at {spacing:g} mm",
        "convention": spec.convention,
        "architecture": {"name": "nnunet", "arguments": arguments},
        "channels": [each.model_dump(mode="json", exclude_none=True) for each in spec.channels],
        **_crop(spec),
        "grid": {"spacing_mm_ZYX": [spacing] * 3, "tile_ZYX": tile, **usual["grid"]},
        "labels": dict(labels),
    }
    training = usual["training"] | {"validation": list(validation), "tile_ZYX": tile}
    provenance = usual["provenance"] | {
        "data": [f"masks that {spec.name} made of unlabelled scans"],
        "licence": str(spec.provenance.get("licence", "not stated")),
    }
    head = f"# The locator of {spec.name}, written by flarekit train locator.\n\n"
    content = {"predictor": predictor, "training": training, "provenance": provenance}
    text = head + tomli_w.dumps(content)
    recipe_of(text, tomllib.loads(text), Path("the locator's recipe"))
    return text


def _named(labels: Mapping[str, int]) -> str:
    return next(iter(labels)) if len(labels) == 1 else f"{len(labels)} labels"


def _crop(spec: PredictorSpec) -> dict[str, Any]:
    """Return the predictor's own crop; of a CT whose predictor cuts off zeros at most, the body."""
    (first, *others) = spec.channels
    is_ct = not others and isinstance(first.intensity, Window)
    if is_ct and not isinstance(spec.crop, BodyCrop):
        return {"crop": {"threshold": _BODY_HU}}
    if spec.crop is None:
        return {}
    return {"crop": spec.crop.model_dump(mode="json", exclude_none=True)}
