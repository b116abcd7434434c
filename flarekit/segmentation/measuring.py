"""Statistics of a case's labels, measured while scan and mask are in hand; never worth the mask."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from flarekit.core.records import Flag, LabelStatistics
from flarekit.report.quality import Findings, agreement, flags_of
from flarekit.report.statistics import label_statistics, label_volumes
from flarekit.segmentation.context import CaseExtras, RunContext
from flarekit.segmentation.memory import measuring_mib
from flarekit.segmentation.segmented import Segmented

_LOG = logging.getLogger(__name__)
_WITHOUT = "no statistics of the labels, and no flags"
_TOLERANCE_S = 0.2  # after a time budget, in which a run still counts as in time


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the labels of a case measure.

    Attributes:
        volumes_ml: label name -> volume, in ml.
        statistics: of every label; none where they were not wanted, or there was no memory or time.
        notes: why they were left out for memory.
        traded: what was left out for time, in words.
        flags: why a person should look at the mask.
    """

    volumes_ml: dict[str, float]
    statistics: tuple[LabelStatistics, ...] = ()
    notes: tuple[str, ...] = ()
    traded: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()


def measure(
    done: Segmented, context: RunContext, wanted: CaseExtras, deadline: float | None
) -> Measured:
    """Measure the labels of a case: volumes, and more where that is wanted and there is room.

    Args:
        done: the case.
        context: what it went through.
        wanted: beside its labels.
        deadline: of `time.monotonic`, for all of that; None where there is no limit.
    """
    began = time.monotonic()
    with done.clock.stage("statistics"):
        measured = _measured(done, context, wanted, deadline)
    what = "statistics" if measured.statistics else "volumes"
    context.compute().speeds.learn(what, time.monotonic() - began, done.label_map_ZYX.size)
    return measured


def _measured(
    done: Segmented, context: RunContext, wanted: CaseExtras, deadline: float | None
) -> Measured:
    labels, label_map = context.spec.mask_labels, done.label_map_ZYX
    volumes_ml = label_volumes(label_map, labels, done.voxel_ml)
    if not wanted.statistics:
        return Measured(volumes_ml=volumes_ml)
    needed_mib = measuring_mib(label_map)
    if context.memory.usable_mib() < needed_mib:
        note = f"{_WITHOUT}: they take {needed_mib:.0f} MiB"
        _LOG.warning(note)
        return Measured(volumes_ml=volumes_ml, notes=(note,))
    expected_s = context.compute().speeds.seconds("statistics", label_map.size) or 0.0
    if deadline is not None and time.monotonic() + expected_s > deadline + _TOLERANCE_S:
        _LOG.warning("to keep the time budget: %s", _WITHOUT)
        return Measured(volumes_ml=volumes_ml, traded=(_WITHOUT,))
    channels = {name: volume.voxels_ZYX for name, volume in done.kept.items()}
    found = label_statistics(label_map, done.geometry, labels, channels)
    findings = Findings(
        warnings=done.warnings, removed=done.removed, agreement=_agreement(done, labels)
    )
    flags = flags_of(found, context.spec.expected, findings)
    return Measured(volumes_ml=volumes_ml, statistics=found, flags=flags)


def _agreement(done: Segmented, labels: Mapping[str, int]) -> dict[str, float]:
    """Return how far locator and network agree on large labels, on the locator's grid."""
    seen = done.first_look
    if seen is None:
        return {}
    known = {name: value for name, value in labels.items() if value in seen.values}
    found = seen.placement.grid_labels(done.label_map_ZYX)
    return agreement(found, seen.label_map_ZYX, known, seen.placement.voxel_ml)
