"""Statistics of a case's labels, measured while scan and mask are in hand; never worth the mask."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from flarekit.core.records import LabelStatistics
from flarekit.report.statistics import label_statistics, label_volumes
from flarekit.segmentation.case import Segmented
from flarekit.segmentation.context import CaseExtras, RunContext
from flarekit.segmentation.memory import measuring_mib

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the labels of a case measure.

    Attributes:
        volumes_ml: label name -> volume, in ml.
        statistics: of every label; none where they were not wanted or there was no memory for them.
        notes: why they were left out.
    """

    volumes_ml: dict[str, float]
    statistics: tuple[LabelStatistics, ...] = ()
    notes: tuple[str, ...] = ()


def measure(done: Segmented, context: RunContext, wanted: CaseExtras) -> Measured:
    """Measure the labels of a case: volumes, and more where that is wanted and memory allows it."""
    began = time.monotonic()
    with done.clock.stage("statistics"):
        measured = _measured(done, context, wanted)
    what = "statistics" if wanted.statistics else "volumes"
    context.compute().speeds.learn(what, time.monotonic() - began, done.label_map_ZYX.size)
    return measured


def _measured(done: Segmented, context: RunContext, wanted: CaseExtras) -> Measured:
    labels, label_map = context.spec.labels, done.label_map_ZYX
    volumes_ml = label_volumes(label_map, labels, done.voxel_ml)
    if not wanted.statistics:
        return Measured(volumes_ml=volumes_ml)
    needed_mib = measuring_mib(label_map)
    if context.memory.usable_mib() < needed_mib:
        note = f"no statistics of the labels: they take {needed_mib:.0f} MiB"
        _LOG.warning(note)
        return Measured(volumes_ml=volumes_ml, notes=(note,))
    channels = {name: volume.voxels_ZYX for name, volume in done.kept.items()}
    found = label_statistics(label_map, done.geometry, labels, channels)
    return Measured(volumes_ml=volumes_ml, statistics=found)
