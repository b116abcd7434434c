"""The small network that says where a predictor's labels lie in a scan: its recipe, its place.

Its place is in the folder of its predictor, which names it in its facts by its hash.
"""

import math
import re
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flarekit.core.channels import BodyCrop, Window
from flarekit.core.errors import FlarekitError, OutputError, UsageError
from flarekit.core.files import sha256_of, write_atomically
from flarekit.core.spec import PredictorFolder, PredictorSpec, read_spec
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


_FACTS, _WEIGHTS = "predictor.toml", "model.safetensors"
_MARGIN_MM = 25.0  # around what a locator that was learnt from masks may have found
_HASH = re.compile(r'(^\[locator\][^\[]*?^sha256\s*=\s*)"[0-9a-f]{64}"', re.MULTILINE | re.DOTALL)


def refuse_to_replace(predictor: PredictorFolder, *, replace: bool) -> None:
    """Raise where a predictor has a locator that was not asked to be replaced.

    Raises:
        UsageError: it has one.
    """
    folder = _place(predictor)
    if (predictor.locator is not None or folder.exists()) and not replace:
        raise UsageError(
            f"{folder}: is there already",
            fix="add --replace; the one that is there is then kept beside it",
        )


def add_locator(predictor: PredictorFolder, made: Path, *, replace: bool = False) -> Path:
    """Bring a locator into its predictor's folder and name it in the predictor's facts.

    Args:
        predictor: whose labels it locates.
        made: predictor folder of the locator; moved.
        replace: a locator that is there is kept as `locator.before`, `locator.before-2`, ...

    Returns:
        Where it is now.

    Raises:
        UsageError: the predictor has a locator, and `replace` is False.
        PredictorError: they do not fit together; everything is as before then.
        OutputError: the predictor's folder cannot be written; everything is as before then.
    """
    refuse_to_replace(predictor, replace=replace)
    folder, facts = _place(predictor), predictor.folder / _FACTS
    text = facts.read_text(encoding="utf-8")
    sha256, before = sha256_of(made / _WEIGHTS), _free(folder)
    if predictor.spec.locator is None:
        named = f'{text.rstrip()}\n\n[locator]\nsha256 = "{sha256}"\nmargin_mm = {_MARGIN_MM}\n'
    else:
        named = _HASH.sub(rf'\g<1>"{sha256}"', text)
    is_old = folder.exists()
    try:
        if is_old:
            folder.rename(before)
        shutil.move(made, folder)
        write_atomically(facts, named.encode())
        read_spec(predictor.folder)
    except (FlarekitError, OSError) as error:
        if folder.exists() and (before.exists() or not is_old):
            shutil.move(folder, made)
        if before.exists():
            before.rename(folder)
        if facts.read_text(encoding="utf-8") != text:
            write_atomically(facts, text.encode())
        if isinstance(error, OSError):
            raise OutputError(
                f"{predictor.folder}: cannot be written: {error.strerror or error}",
                fix="copy the predictor to a folder of your own, and name that",
            ) from error
        raise
    return folder


def _place(predictor: PredictorFolder) -> Path:
    named = predictor.spec.locator
    return predictor.folder / ("locator" if named is None else named.folder)


def _free(folder: Path) -> Path:
    """Return a name beside a folder that nothing has."""
    before, number = folder.with_name(f"{folder.name}.before"), 2
    while before.exists():
        before, number = folder.with_name(f"{folder.name}.before-{number}"), number + 1
    return before
