"""Several acquisitions under one series: each is a volume, and what lies apart is told."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.uid import generate_uid

from flarekit.conventions.dicom.series import find_series, read_series
from flarekit.core.archive_members import UnpackLimits
from flarekit.core.archives import Unpacked
from tests.conventions.dicom.dicom_files import slice_of


def found_in(folder):
    with Unpacked(UnpackLimits()) as unpacked:
        return find_series([folder], unpacked)


@pytest.mark.parametrize(
    ("starts", "name"),
    [
        ((0.0, 80.0), "AcquisitionNumber"),  # one after the other, with a gap
        ((0.0, 1.3), "AcquisitionNumber"),  # one between the other
        ((0.0, 80.0), "ConvolutionKernel"),
        ((0.0, 2.0), "ConvolutionKernel"),  # an even stack, of every other slice
    ],
)
def test_two_acquisitions_under_one_series_are_two_volumes(tmp_path, starts, name):
    uid, folder = generate_uid(), tmp_path / "both"
    folder.mkdir()
    for number, start in enumerate(starts, start=1):
        for k in range(6):
            value = np.full((8, 9), 100 * number + k)
            image = slice_of(value, (0, 0, start + 4 * k), uid, k, **{name: str(number)})
            image.save_as(folder / f"{number}{k}", enforce_file_format=True)
    found = found_in(folder)
    assert [series.shape_ZYX for series in found.series] == [(6, 8, 9)] * 2
    assert all("is one of 2 volumes" in series.notes[-1] for series in found.series)
    for number, series in enumerate(found.series, start=1):
        voxels = read_series(series).voxels_ZYX
        np.testing.assert_array_equal(voxels[:, 0, 0], 100 * number + np.arange(6))
    assert found.faults == []


def test_a_scan_that_lacks_a_slice_is_not_parted_into_its_rotations(tmp_path):
    uid, folder = generate_uid(), tmp_path / "rotations"
    folder.mkdir()
    for k in [each for each in range(30) if each != 15]:
        image = slice_of(np.zeros((8, 9)), (0, 0, 4 * k), uid, k, AcquisitionNumber=k // 5)
        image.save_as(folder / f"{k}", enforce_file_format=True)
    found = found_in(folder)
    assert found.series == []
    assert "lacks slices" in found.faults[0][1]


def test_what_lies_apart_from_an_acquisition_is_told(tmp_path):
    uid, folder = generate_uid(), tmp_path / "apart"
    folder.mkdir()
    for k, z in enumerate([0, 4, 8, 12, 16, 20, 91, 133]):
        image = slice_of(np.zeros((8, 9)), (0, 0, z), uid, k, AcquisitionNumber=1 + z // 90)
        image.save_as(folder / f"{k}", enforce_file_format=True)
    found = found_in(folder)
    assert [series.shape_ZYX for series in found.series] == [(6, 8, 9)]
    assert [fault for _, fault in found.faults if "apart" in fault and "2 files" in fault]
