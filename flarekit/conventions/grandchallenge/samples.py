"""A job of any grand-challenge.org algorithm: one phantom as an image of each socket."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flarekit.verification.platform_inputs import write_inputs_json

if TYPE_CHECKING:
    from flarekit.phantom import Phantom

NAME = "9b2f6d0c-53a8-4e0e-8f2b-6a1c7d94e035.mha"
UNKNOWN = ("images/ct",)  # what an algorithm gets that does not say what it reads
_SPACING_MM_ZYX, _SHAPE_ZYX = (5.0, 3.0, 3.0), (46, 92, 124)
_LIVER, _SPLEEN, _KIDNEYS = 1, 3, (2, 13)
_UPTAKE_SUV = {_LIVER: 2.2, _SPLEEN: 1.8, _KIDNEYS[0]: 5.0, _KIDNEYS[1]: 5.0}
_BLOOD_SUV, _SOFT_HU = 0.8, -300


def write_job(folder: Path, inputs: Sequence[str] = UNKNOWN) -> None:
    """Write the images of a job and their list, `inputs.json`.

    All are one phantom on one grid: a PET (SUV, float32) where the name says so, else a CT (int16).

    Args:
        folder: of the inputs.
        inputs: slugs of sockets, or paths such as `images/ct`, from the first channel on.
    """
    for name in inputs:
        path = name.strip("/") if "/" in name else f"images/{name}"
        is_pet = "pet" in path.rpartition("/")[2].lower().split("-")
        voxels = _suv(_phantom()) if is_pet else _phantom().hu_ZYX
        (folder / path).mkdir(parents=True)
        _write(folder / path / NAME, voxels, _phantom().affine)
    write_inputs_json(folder)


@cache
def _phantom() -> Phantom:
    from flarekit.phantom import abdomen_phantom

    return abdomen_phantom(6, spacing_mm_ZYX=_SPACING_MM_ZYX, shape_ZYX=_SHAPE_ZYX)


def _suv(phantom: Phantom) -> NDArray[np.float32]:
    """Return what a PET of the phantom would show, without noise."""
    suv = np.where(phantom.hu_ZYX > _SOFT_HU, np.float32(_BLOOD_SUV), np.float32(0.0))
    for label, value in _UPTAKE_SUV.items():
        suv[phantom.labels_ZYX == label] = value
    return suv


def _write(path: Path, voxels_ZYX: NDArray[Any], affine: NDArray[np.float64]) -> None:
    import SimpleITK

    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    image = SimpleITK.GetImageFromArray(voxels_ZYX)
    image.SetSpacing(spacing_mm.tolist())
    image.SetDirection((to_lps @ (affine[:3, :3] / spacing_mm)).ravel().tolist())
    image.SetOrigin((to_lps @ affine[:3, 3]).tolist())
    SimpleITK.WriteImage(image, str(path), useCompression=True)
