"""The report of a run: `efficiency.json` and a picture of every case that has a mask."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit import conventions
from flarekit.core.files import make_folder
from flarekit.core.metaimage import read_metaimage
from flarekit.core.nifti import read_nifti
from flarekit.core.records import RunRecord
from flarekit.core.spec import PredictorSpec
from flarekit.report.efficiency import write_efficiency
from flarekit.report.picture import write_picture

_LOG = logging.getLogger(__name__)


def write_report(
    record: RunRecord,
    spec: PredictorSpec,
    input_dir: Path,
    report_dir: Path,
    *,
    pictures: bool = True,
) -> None:
    """Write the report of a run; where matplotlib is missing it has no pictures and says so.

    Raises:
        OutputError: it could not be written.
    """
    make_folder(report_dir)
    write_efficiency(record, report_dir)
    if not pictures:
        return
    if find_spec("matplotlib") is None:
        _LOG.warning("no pictures: matplotlib is not installed (pip install flarekit[picture])")
        return
    own = record.convention == spec.convention
    settings = spec.convention_settings if own else None
    convention = conventions.get(record.convention, settings, labels=spec.labels)
    done = {case.case_id: case.mask for case in record.cases if case.error is None}
    for case in convention.find_cases(input_dir, len(spec.channels)):
        mask = done.get(case.case_id)
        if mask is None:
            continue
        label_map = _voxels(mask)
        if label_map is None:
            _LOG.info("no picture of %s: its mask is no volume file", case.case_id)
            continue
        path = report_dir / f"{case.case_id}.png"
        write_picture(path, convention.read_case(case)[0], label_map, spec.labels)


def _voxels(mask: Path) -> NDArray[np.uint8] | None:
    """Return a mask's voxels; None where it is not a file of one volume (DICOM SEG, JSON)."""
    if mask.suffix == ".mha":
        return read_metaimage(mask, air=0).voxels_ZYX.astype(np.uint8)
    if mask.name.endswith((".nii", ".nii.gz")):
        return read_nifti(mask).voxels_ZYX.astype(np.uint8)
    return None
