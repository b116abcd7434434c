"""Kinds of scans that organisers hand over as one file each, and the masks that belong to them."""

from pathlib import Path

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.nifti import read_geometry, read_nifti
from flarekit.core.npz_files import read_arrays

NIFTI, NPZ = ".nii.gz", ".npz"
ENDINGS = (NIFTI, NPZ)
_CHANNEL = "_0000"
_CT, _MASK = "imgs", "segs"  # FLARE25's names of arrays in a scan and in a mask


def ending_of(path: Path) -> str | None:
    """Return the ending of a scan's file; None of one that is no scan."""
    return next((ending for ending in ENDINGS if path.name.endswith(ending)), None)


def mask_name(scan: Path) -> str:
    """Return the name of a scan's mask: `X.nii.gz` of `X_0000.nii.gz`, `X.npz` of `X.npz`."""
    if ending_of(scan) != NIFTI:
        return scan.name
    return f"{scan.name.removesuffix(NIFTI).removesuffix(_CHANNEL)}{NIFTI}"


def case_id_of(name: str) -> str:
    """Return the name of a case, given a scan's without its ending."""
    return name.removesuffix(_CHANNEL)


def shape_of_scan(path: Path) -> tuple[int, int, int]:
    """Return how many voxels a scan has.

    Raises:
        UnreadableVolumeError: it cannot be read.
    """
    if ending_of(path) == NPZ:
        return _shape_of_array(path, _CT)
    z, y, x = read_geometry(path).shape_ZYX
    return x, y, z


def shape_of_mask(path: Path) -> tuple[int, int, int]:
    """Return how many voxels a mask has, once all of it was read.

    Raises:
        UnreadableVolumeError: it cannot be read.
    """
    if ending_of(path) == NPZ:
        return _shape_of_array(path, _MASK)
    z, y, x = read_nifti(path).geometry.shape_ZYX
    return x, y, z


def _shape_of_array(path: Path, name: str) -> tuple[int, int, int]:
    try:
        array = read_arrays(path).get(name)
    except ValueError as error:
        raise UnreadableVolumeError(
            path, f"is not a whole .npz file: {error}", fix="write it again"
        ) from error
    if array is None or array.ndim != 3:
        raise UnreadableVolumeError(path, f"has no array {name!r} of a volume", fix="add it")
    z, y, x = array.shape
    return x, y, z
