"""Post-processing rules by name: the file `flarekit/postprocess/x.py` is the rule `x`.

Each such file defines `TAKES_VALUE`, `FILLS` (whether background may become a label) and
`apply(regions, labels, value, voxel_ml)`, which changes what regions are worth. Regions are found
once, for all rules and labels together.

Put rules that remove before `fill_holes`: then nothing they remove leaves a hole, and applying the
chain again changes nothing (but for the case that `fill_holes` describes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import PredictorError
from flarekit.core.spec import Rule

__all__ = ["apply_rules", "check_rules", "names"]


def names() -> tuple[str, ...]:
    """Return the names of all rules, sorted."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(sorted(file.stem for file in files if not file.stem.startswith("_")))


def check_rules(rules: Sequence[Rule]) -> None:
    """Refuse rules that cannot be applied, before anything is computed.

    Raises:
        PredictorError: no such rule, or a value that is missing, superfluous or not positive.
    """
    for rule in rules:
        if rule.name not in names():
            near = get_close_matches(rule.name, names(), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names())}"
            raise PredictorError(f"no rule {rule.name!r}", fix=hint)
        takes_value = import_module(f"flarekit.postprocess.{rule.name}").TAKES_VALUE
        if takes_value and (rule.value is None or rule.value <= 0):
            raise PredictorError(
                f"rule {rule.name!r} needs a positive value", fix="add value = ..."
            )
        if not takes_value and rule.value is not None:
            raise PredictorError(f"rule {rule.name!r} takes no value", fix="remove it")


def apply_rules(
    label_map_ZYX: NDArray[np.uint8],
    rules: Sequence[Rule],
    labels: Mapping[str, int],
    *,
    voxel_ml: float,
) -> NDArray[np.uint8]:
    """Apply rules in their order, each to what the one before left.

    Foreground components touch by faces, edges or corners (26), background ones by faces (6).

    Args:
        label_map_ZYX: uint8, 0 is the background; not changed.
        rules: from the predictor; `check_rules` has passed them.
        labels: label name -> value in the map.
        voxel_ml: volume of one voxel.

    Returns:
        A new label map of the same shape.
    """
    from flarekit.postprocess._regions import Regions, foreground_box

    box = foreground_box(label_map_ZYX)
    if not rules or box is None:
        return label_map_ZYX.copy()
    modules = [import_module(f"flarekit.postprocess.{rule.name}") for rule in rules]
    regions = Regions(label_map_ZYX[box], background=any(module.FILLS for module in modules))
    for rule, module in zip(rules, modules, strict=True):
        module.apply(regions, [labels[name] for name in rule.labels], rule.value, voxel_ml)
    result = np.zeros_like(label_map_ZYX)
    result[box] = regions.label_map()
    return result
