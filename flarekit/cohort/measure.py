"""Statistics of masks that are there already, without segmenting again."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.cohort.page import write_page
from flarekit.cohort.parquet import write_parquet
from flarekit.core.apart import keep_inputs
from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.files import make_folder, printable_name
from flarekit.core.nifti import AIR_HU
from flarekit.core.records import LabelStatistics
from flarekit.core.same_grid import grid_difference
from flarekit.core.scan_files import MASK_ENDINGS, SCAN_ENDINGS, labels_in, read_scan, stem_of
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Volume
from flarekit.report.quality import Findings, flags_of
from flarekit.report.statistics import STATISTICS, StatisticsTable, label_statistics, read_rows

_LOG = logging.getLogger(__name__)
_SAME_MM = 1.0  # between the corners of a mask and its scan


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What masks measured.

    Attributes:
        cases: that were measured.
        faults: case -> why it was not.
    """

    cases: tuple[str, ...]
    faults: Mapping[str, str]


def measure_masks(
    masks: Path, scans: Path | None, folder: Path, spec: PredictorSpec | None
) -> Measured:
    """Measure every mask of a folder, and write the table, the page and the Parquet file.

    Args:
        masks: folder with the masks.
        scans: folder with the scans, `X_0000.nii.gz` or `X.nii.gz` beside the mask `X.nii.gz`;
            None where intensities are not wanted.
        folder: for `statistics.csv`, `statistics.parquet` and `report.html`.
        spec: whose labels the masks have; values without names where None.

    Raises:
        InputError: no masks.
        UsageError: something would replace an input.
        OutputError: something cannot be written.
    """
    found = list(_masks_in(masks))
    if not found:
        raise InputError(f"{masks}: holds no masks", fix=f"they end in {', '.join(MASK_ENDINGS)}")
    keep_inputs([masks, *([scans] if scans else [])], folder, [Path(STATISTICS)])
    make_folder(folder)
    table = StatisticsTable(folder / STATISTICS)
    lines: dict[str, dict[str, object]] = {}
    volumes: dict[str, dict[str, float]] = {}
    faults: dict[str, str] = {}
    for path in found:
        case_id = printable_name(stem_of(path))
        try:
            statistics = _statistics(path, scans, spec)
        except FlarekitError as error:
            faults[case_id] = str(error)
            lines[case_id] = {"case_id": case_id, "error": error.message, "fix": error.fix}
            continue
        flags = () if spec is None else flags_of(statistics, spec.expected, Findings())
        table.add(case_id, statistics, flags)
        told = [{"kind": each.kind, "label": each.label, "text": each.text} for each in flags]
        lines[case_id] = {"case_id": case_id, "flags": told}
        for each in statistics:
            volumes.setdefault(each.label, {})[case_id] = each.volume_ml
    write_parquet(folder, read_rows(folder / STATISTICS))
    write_page(folder, lines, volumes)
    return Measured(cases=tuple(id_ for id_ in lines if id_ not in faults), faults=faults)


def _masks_in(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name.lower().endswith(MASK_ENDINGS) and not path.name.startswith("."):
                yield path


def _statistics(
    path: Path, scans: Path | None, spec: PredictorSpec | None
) -> tuple[LabelStatistics, ...]:
    mask = read_scan(path, air=math.nan)  # no label: refused
    label_map = labels_in(path, mask.voxels_ZYX)
    channels = {} if scans is None else _channels(mask, scans, spec)
    if spec is not None:
        labels = dict(spec.labels)
    else:
        labels = {f"label {value}": int(value) for value in np.unique(label_map) if value}
    return label_statistics(label_map, mask.geometry, labels, channels)


def _channels(
    mask: Volume, scans: Path, spec: PredictorSpec | None
) -> dict[str, NDArray[np.generic]]:
    """Return the scan's channels on the mask's own grid."""
    names = ["scan"] if spec is None else [channel.name for channel in spec.channels]
    stem = stem_of(mask.path)
    found: dict[str, NDArray[np.generic]] = {}
    for k, name in enumerate(names):
        endings = [f"{stem}_{k:04d}{ending}" for ending in SCAN_ENDINGS]
        endings += [f"{stem}{ending}" for ending in SCAN_ENDINGS] if k == 0 else []
        place = next((scans / each for each in endings if (scans / each).is_file()), None)
        if place is None:
            raise InputError(
                f"{scans}: has no scan {stem}_{k:04d}{f' or {stem}' if k == 0 else ''}",
                fix="add it, or leave --scans out",
            )
        scan = read_scan(place, air=AIR_HU)
        if difference := grid_difference(mask.geometry, scan.geometry, _SAME_MM):
            raise InputError(
                f"{mask.path}: lies on another grid than {place}: {difference}",
                fix="resample one onto the other",
            )
        found[name] = scan.voxels_ZYX
    return found
