"""The report of a run: `efficiency.json` and a picture of every case that has a mask."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

from flarekit import conventions
from flarekit.core.files import make_folder
from flarekit.core.nifti import read_nifti
from flarekit.core.records import RunRecord
from flarekit.core.spec import PredictorSpec
from flarekit.report.efficiency import write_efficiency
from flarekit.report.picture import write_picture

_LOG = logging.getLogger(__name__)


def write_report(record: RunRecord, spec: PredictorSpec, input_dir: Path, report_dir: Path) -> None:
    """Write the report of a run; where matplotlib is missing it has no pictures and says so.

    Raises:
        OutputError: it could not be written.
    """
    make_folder(report_dir)
    write_efficiency(record, report_dir)
    if find_spec("matplotlib") is None:
        _LOG.warning("no pictures: matplotlib is not installed (pip install flarekit[picture])")
        return
    convention = conventions.get(record.convention)
    done = {case.case_id: case.mask for case in record.cases if case.error is None}
    for case in convention.find_cases(input_dir, len(spec.channels)):
        mask = done.get(case.case_id)
        if mask is None:
            continue
        label_map = read_nifti(mask).voxels_ZYX.astype("uint8")
        path = report_dir / f"{case.case_id}.png"
        write_picture(path, convention.read_case(case)[0], label_map, spec.labels)
