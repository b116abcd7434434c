"""Quality flags: why a person should look at a mask. They refuse nothing and change nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flarekit.core.expected import Expected
from flarekit.core.records import Flag, LabelStatistics

_SELDOM_CUT = 0.3  # a label that came near the edge in no more of the training cases
_LARGE_PART = 0.1  # of a label's voxels, in a component that should not be there
_LARGE_REMOVED = 0.25  # of a label, that rules took away
_AGREE = 0.4  # Dice of two networks on a label, below which one of them is wrong
_LARGE_ML = 50.0  # of a label, that a locator should find as well


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known of a mask beside its statistics.

    Attributes:
        warnings: what was odd about the scan.
        removed: label -> share of it that rules took away, such as further components.
        agreement: label -> Dice with what the locator found; of those that are large.
    """

    warnings: Sequence[str] = ()
    removed: Mapping[str, float] = field(default_factory=dict)
    agreement: Mapping[str, float] = field(default_factory=dict)


def flags_of(
    statistics: Iterable[LabelStatistics], expected: Mapping[str, Expected], findings: Findings
) -> tuple[Flag, ...]:
    """Return what is unusual about a case.

    Args:
        statistics: of every label.
        expected: label -> what it measured in training; labels that are not there are only looked
            at for themselves.
        findings: what else is known.
    """
    flags = [Flag(kind="scan", label=None, text=warning) for warning in findings.warnings]
    for each in statistics:
        flags += _of_label(each, expected.get(each.label))
        removed = findings.removed.get(each.label, 0.0) if each.label in expected else 0.0
        if removed > _LARGE_REMOVED:
            flags.append(_flag("parts", each, f"rules took {removed:.0%} of it away"))
        agreement = findings.agreement.get(each.label, 1.0)
        if agreement < _AGREE:
            text = f"the locator found another one (Dice {agreement:.2f})"
            flags.append(_flag("locator", each, text))
    return tuple(flags)


def _of_label(each: LabelStatistics, expected: Expected | None) -> list[Flag]:
    found = []
    if expected is None:
        if each.touches_edge:
            found.append(_flag("edge", each, "reaches the edge of the scan"))
        return found
    low, high = expected.volume_ml
    cases = f"{expected.cases} training cases"
    is_cut = each.touches_edge and (expected.cut is None or expected.cut <= _SELDOM_CUT)
    if is_cut:
        found.append(_flag("edge", each, f"reaches the edge of the scan{_seldom(expected)}"))
    if not each.voxels:
        if not expected.missing:
            found.append(_flag("volume", each, f"nothing found; all {cases} had it"))
        return found
    if each.volume_ml > high or (each.volume_ml < low and not is_cut):
        usual = f"{_number(low)} to {_number(high)} ml are usual, judged by {cases}"
        text = f"its volume is {_number(each.volume_ml)} ml; {usual}"
        found.append(_flag("volume", each, text))
    if each.second_part > max(_LARGE_PART, expected.second_part):
        text = f"{each.second_part:.0%} of it is a second component"
        found.append(_flag("parts", each, text))
    measured = next(iter(each.intensities.values()), None)
    if measured is None or expected.intensity is None:
        return found
    low, high = expected.intensity
    if not low <= measured[0] <= high:
        usual = f"{_number(low)} to {_number(high)} are usual, judged by {cases}"
        text = f"its mean intensity is {_number(measured[0])}; {usual}"
        found.append(_flag("intensity", each, text))
    return found


def _seldom(expected: Expected) -> str:
    if expected.cut is None:
        return ""
    return f"; it came near it in {expected.cut:.0%} of {expected.cases} training cases"


def _flag(kind: str, each: LabelStatistics, text: str) -> Flag:
    return Flag(kind=kind, label=each.label, text=text)


def _number(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def agreement(
    label_map_ZYX: NDArray[np.uint8],
    other_ZYX: NDArray[np.uint8],
    labels: Mapping[str, int],
    voxel_ml: float,
) -> dict[str, float]:
    """Return the Dice of two masks for every label that is large in either.

    Args:
        label_map_ZYX: one mask.
        other_ZYX: the other, on the same grid.
        labels: label name -> value; those that only one network knows are not to be among them.
        voxel_ml: volume of a voxel.
    """
    same = label_map_ZYX[label_map_ZYX == other_ZYX]
    both, one, other = (
        np.bincount(mask.ravel(), minlength=256) for mask in (same, label_map_ZYX, other_ZYX)
    )
    return {
        name: float(2 * both[value] / (one[value] + other[value]))
        for name, value in labels.items()
        if max(one[value], other[value]) * voxel_ml >= _LARGE_ML
    }


def removed_shares(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Return which share of each label rules took away.

    Args:
        before: label -> volume before the rules.
        after: label -> volume after them.
    """
    return {
        name: max(0.0, 1 - after[name] / volume) for name, volume in before.items() if volume > 0
    }
