"""What an image has written, read strictly: nothing is repaired on the way."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.npz_files import read_arrays


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A label map as it is stored.

    Attributes:
        voxels_ZYX: without any scaling of the header.
        affine: index (x, y, z) to mm, RAS+; of .mha files too.
        scaled: whether the header changes the values (NIfTI's slope and intercept).
        components: values per voxel; 1 for a label map.
    """

    voxels_ZYX: NDArray[Any]
    affine: NDArray[np.float64]
    scaled: bool = False
    components: int = 1


def read_mask(path: Path) -> Mask:
    """Read a mask, `.nii.gz`, `.mha` or `.npz` (its array of three axes, on a grid of 1 mm).

    Raises:
        UnreadableVolumeError: it is missing or damaged.
    """
    try:
        if path.suffix == ".npz":
            return _read_npz(path)
        return _read_nifti(path) if ".nii" in path.suffixes else _read_metaimage(path)
    except Exception as error:  # noqa: BLE001 - nibabel, ITK, gzip, NumPy: each has its own
        reason = str(error).replace(str(path), path.name).strip().splitlines()
        fault = f"cannot be read ({reason[-1] if reason else type(error).__name__})"
        raise UnreadableVolumeError(path, fault, fix="write it again") from error


def _read_nifti(path: Path) -> Mask:
    import nibabel

    image = cast(Any, nibabel.load(path))
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    voxels = np.asarray(image.dataobj.get_unscaled())
    return Mask(voxels_ZYX=voxels.T, affine=np.asarray(image.affine), scaled=scaled)


def _read_metaimage(path: Path) -> Mask:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    directions = np.asarray(image.GetDirection()).reshape(image.GetDimension(), -1)
    affine = np.eye(4)
    n = min(3, image.GetDimension())
    affine[:n, :n] = directions[:n, :n] * np.asarray(image.GetSpacing())[:n]
    affine[:n, 3] = image.GetOrigin()[:n]
    return Mask(
        voxels_ZYX=SimpleITK.GetArrayFromImage(image),
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine,  # ITK's world is LPS
        components=image.GetNumberOfComponentsPerPixel(),
    )


def _read_npz(path: Path) -> Mask:
    volumes = [array for array in read_arrays(path).values() if array.ndim == 3]
    if len(volumes) != 1:
        raise ValueError(f"{len(volumes)} arrays of three axes")
    return Mask(voxels_ZYX=volumes[0], affine=np.eye(4))


def same_content(one: Path, other: Path) -> bool:
    """Tell whether two files say the same, whenever and however compressed they were written.

    Raises:
        UnreadableVolumeError: a mask that cannot be read.
        ValueError: a JSON file that is none.
    """
    if one.suffix == ".json":
        return bool(json.loads(one.read_bytes()) == json.loads(other.read_bytes()))
    if one.name.endswith((".nii.gz", ".nii", ".mha")):
        first, second = read_mask(one), read_mask(other)
        return (
            first.voxels_ZYX.dtype == second.voxels_ZYX.dtype
            and np.array_equal(first.voxels_ZYX, second.voxels_ZYX)
            and np.allclose(first.affine, second.affine)
        )
    if one.suffix == ".npz":
        mine, theirs = read_arrays(one), read_arrays(other)
        return mine.keys() == theirs.keys() and all(
            array.dtype == theirs[name].dtype and np.array_equal(array, theirs[name])
            for name, array in mine.items()
        )
    return one.read_bytes() == other.read_bytes()


def geometry_faults(mask: Mask, scan: Mask) -> list[str]:
    """Return in what a mask's grid is not its scan's; shapes are (x, y, z)."""
    if mask.voxels_ZYX.shape != scan.voxels_ZYX.shape:
        shapes = " x ".join(map(str, mask.voxels_ZYX.shape[::-1]))
        return [f"{shapes} voxels for {' x '.join(map(str, scan.voxels_ZYX.shape[::-1]))}"]
    if not np.allclose(mask.affine, scan.affine, rtol=0, atol=1e-3):
        worst = np.abs(mask.affine - scan.affine).max()
        return [f"spacing, direction or origin are not the scan's (up to {worst:.3g} mm off)"]
    return []
