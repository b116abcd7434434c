"""Post-processing rules by name: the file `flarekit/postprocess/x.py` is the rule `x`.

There are two kinds. Rules on regions define `TAKES_VALUE`, `FILLS` (whether background may become
a label) and `apply(regions, labels, value, voxel_ml)`, which changes what regions are worth; they
are found once for all rules and labels between two rules of the other kind. Such rules may run on
any grid, and do where the argmax was taken.

Rules on the scan define `TAKES_VALUE`, `NEEDS_CHANNEL` (the channel whose voxels they look at, or
None), `LEAST_LABELS` where one is not enough, and `apply_to_scan(label_map_ZYX, labels, value,
scan)`, which returns a new label map; those with `NEEDS_GATE` are given the rule's gate besides.
They run on the scan's own grid, and so does what stands behind them: see `split_rules`.

Put rules that remove before `fill_holes`: then nothing they remove leaves a hole, and applying the
chain again changes nothing (but for the case that `fill_holes` describes).
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from flarekit.core.boxes import box_of
from flarekit.core.errors import PredictorError
from flarekit.core.registry import Registry, near_miss
from flarekit.core.spec import Rule
from flarekit.postprocess._scan import Scan

__all__ = ["Scan", "apply_rules", "check_rules", "memory_bytes", "names", "split_rules"]

_REGISTRY = Registry(__name__)
_ON_SCAN_PER_VOXEL = 16  # numbered components and what is selected of them


def names() -> tuple[str, ...]:
    """Return the names of all rules, sorted."""
    return _REGISTRY.names()


def check_rules(
    rules: Sequence[Rule], channels: Sequence[str] | None = None, *, source: str = ""
) -> None:
    """Refuse rules that cannot be applied, before anything is computed.

    Args:
        rules: from the predictor.
        channels: names of its channels; not checked where None.
        source: the file that states them, for the message.

    Raises:
        PredictorError: no such rule, a value that is missing, superfluous or not positive, too few
            labels, or a channel that the predictor does not have.
    """
    for rule in rules:
        fault = _fault(rule, channels)
        if fault is not None:
            message, fix = fault
            raise PredictorError(f"{source}: {message}" if source else message, fix=fix)


def _fault(rule: Rule, channels: Sequence[str] | None) -> tuple[str, str] | None:
    """Return why a rule cannot be applied, and what to do; None where it can."""
    if rule.name not in names():
        return f"no rule {rule.name!r}", near_miss(rule.name, names())
    module = _module(rule)
    if module.TAKES_VALUE and (rule.value is None or rule.value <= 0):
        return f"rule {rule.name!r} needs a positive value", "add value = ..."
    if not module.TAKES_VALUE and rule.value is not None:
        return f"rule {rule.name!r} takes no value", "remove it"
    least = getattr(module, "LEAST_LABELS", 1)
    if len(rule.labels) < least:
        fix = f"see flarekit/postprocess/{rule.name}.py"
        return f"rule {rule.name!r} needs at least {least} labels", fix
    needs_gate = getattr(module, "NEEDS_GATE", False)
    if needs_gate and rule.gate is None:
        return f"rule {rule.name!r} needs a gate", "let flarekit train gate write it"
    if rule.gate is not None and not needs_gate:
        return f"rule {rule.name!r} takes no gate", "remove it"
    channel = rule.gate.channel if rule.gate else getattr(module, "NEEDS_CHANNEL", None)
    if channel and channels is not None and channel.lower() not in map(str.lower, channels):
        return (
            f"rule {rule.name!r} needs a channel named {channel!r}; the predictor has "
            f"{', '.join(channels)}",
            "remove the rule, or name the channel so",
        )
    return None


def split_rules(rules: Sequence[Rule]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Return the rules that may run on any grid, and those that have to run on the scan's.

    The second are the first rule on the scan and all that stand behind it.
    """
    first = next((k for k, rule in enumerate(rules) if _on_scan(_module(rule))), len(rules))
    return tuple(rules[:first]), tuple(rules[first:])


def apply_rules(
    label_map_ZYX: NDArray[np.uint8],
    rules: Sequence[Rule],
    labels: Mapping[str, int],
    *,
    voxel_ml: float,
    scan: Scan | None = None,
    internal: Collection[int] = (),
) -> NDArray[np.uint8]:
    """Apply rules in their order, each to what the one before left.

    Foreground components touch by faces, edges or corners (26), background ones by faces (6).

    Args:
        label_map_ZYX: uint8, 0 is the background; not changed.
        rules: from the predictor; `check_rules` has passed them.
        labels: label name -> value in the map.
        voxel_ml: volume of one voxel.
        scan: what the label map belongs to, on its grid; only rules on the scan need it.
        internal: values that become background behind the last rule that names one of them.

    Returns:
        A new label map of the same shape.

    Raises:
        PredictorError: a rule needs a channel that the scan does not have.
        ValueError: a rule needs the scan and it was not given.
    """
    naming = [k for k, rule in enumerate(rules) if {labels[n] for n in rule.labels} & set(internal)]
    behind = naming[-1] + 1 if naming else 0

    def applied(result: NDArray[np.uint8], some: Sequence[Rule]) -> NDArray[np.uint8]:
        for on_scan, group in groupby(some, key=lambda rule: _on_scan(_module(rule))):
            if not on_scan:
                result = _on_regions(result, list(group), labels, voxel_ml)
                continue
            for rule in group:
                if scan is None:
                    raise ValueError(
                        f"the rule {rule.name!r} runs on the scan's grid, with the scan"
                    )
                values = [labels[name] for name in rule.labels]
                gate = () if rule.gate is None else (rule.gate,)
                result = _module(rule).apply_to_scan(result, values, rule.value, scan, *gate)
        return result

    result = applied(label_map_ZYX.copy(), rules[:behind])
    if internal:
        result[np.isin(result, list(internal))] = 0
    return applied(result, rules[behind:])


def memory_bytes(label_map_ZYX: NDArray[np.uint8], rules: Sequence[Rule]) -> int:
    """Return what applying rules allocates at most, in bytes; a map of noise takes far the most."""
    from flarekit.postprocess._regions import regions_bytes

    modules = [_module(rule) for rule in rules]
    copies = 2 * label_map_ZYX.size
    box = box_of(label_map_ZYX)
    if box is None or not modules:
        return copies
    fills = any(getattr(module, "FILLS", False) for module in modules)
    on_scan = any(map(_on_scan, modules))
    whole = _ON_SCAN_PER_VOXEL * label_map_ZYX.size if on_scan else 0
    return copies + whole + regions_bytes(label_map_ZYX[box], background=fills)


def _on_regions(
    label_map_ZYX: NDArray[np.uint8],
    rules: Sequence[Rule],
    labels: Mapping[str, int],
    voxel_ml: float,
) -> NDArray[np.uint8]:
    from flarekit.postprocess._regions import Regions

    box = box_of(label_map_ZYX)
    if box is None:
        return label_map_ZYX
    modules = [_module(rule) for rule in rules]
    regions = Regions(label_map_ZYX[box], background=any(module.FILLS for module in modules))
    for rule, module in zip(rules, modules, strict=True):
        module.apply(regions, [labels[name] for name in rule.labels], rule.value, voxel_ml)
    result = np.zeros_like(label_map_ZYX)
    result[box] = regions.label_map()
    return result


def _module(rule: Rule) -> ModuleType:
    return _REGISTRY.load(rule.name)


def _on_scan(module: ModuleType) -> bool:
    return hasattr(module, "apply_to_scan")
