"""A scan of which nothing can be read is refused, whatever its format; air would hide it."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.scan_files import SCAN_ENDINGS, read_scan


@pytest.mark.parametrize("ending", SCAN_ENDINGS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_scan_without_a_finite_voxel_is_refused(tmp_path, ending, value):
    voxels = np.full((4, 5, 6), value, np.float64)
    path = tmp_path / f"a{ending}"
    write(path, voxels)
    with pytest.raises(UnreadableVolumeError, match="none of its 120 voxels is a finite number"):
        read_scan(path, air=-1024.0)
    voxels[1, 2, 3] = 40.0
    write(path, voxels)
    volume = read_scan(path, air=-1024.0)
    assert sorted(np.unique(volume.voxels_ZYX).tolist()) == [-1024.0, 40.0]
    assert "119 voxels are not finite" in " ".join(volume.warnings)


def write(path, voxels):
    if ".nii" in path.name:
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(path))
