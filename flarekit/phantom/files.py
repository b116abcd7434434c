"""A phantom as NIfTI files, as a scanner's export would look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.files import write_atomically
from flarekit.phantom.scan import abdomen_phantom


def save_phantom(seed: int, *, scan: Path, labels: Path) -> None:
    """Generate a phantom and write its CT (int16 HU) and its label map (uint8).

    Args:
        seed: which phantom.
        scan: the CT to make, `.nii.gz`.
        labels: the label map to make, `.nii.gz`.

    Raises:
        OutputError: a file could not be written.
    """
    phantom = abdomen_phantom(seed)
    _save(scan, phantom.hu_ZYX, phantom.affine)
    _save(labels, phantom.labels_ZYX, phantom.affine)


def _save(path: Path, voxels_ZYX: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    import nibabel
    from isal import igzip

    image = nibabel.Nifti1Image(voxels_ZYX.T, affine)
    image.header.set_xyzt_units("mm")
    write_atomically(path, igzip.compress(image.to_bytes(), compresslevel=2, mtime=0))
