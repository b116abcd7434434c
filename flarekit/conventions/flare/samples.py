"""Abdominal CTs as FLARE's evaluator hands them over, and as it may come to."""

from functools import cache
from itertools import permutations, product
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from flarekit.core.files import write_atomically

ODD_NAMES = ("with space", "a.b.c", "twice_0000", "UPPER-case_1", "plain")
OTHER_FILES = ("notes.txt", ".hidden", "case.json")
USUAL, DAMAGED = "phantom", "damaged"
_SPACING_MM_ZYX, _SHAPE_ZYX = (5.0, 3.0, 3.0), (46, 92, 124)
_INTERCEPT_HU = -1024.0
Triple = tuple[int, int, int]
ORDERS = [cast(Triple, order) for order in permutations((0, 1, 2))]


def usual(folder: Path) -> None:
    """Write one CT, stored as many are: unsigned, with an intercept, and X and Y backwards."""
    _write(folder / f"{USUAL}_0000.nii.gz", (0, 1, 2), (-1, -1, 1), intercept_hu=_INTERCEPT_HU)


def odd_names(folder: Path) -> None:
    """Write several CTs with names that are legal but rare, and files that are not inputs."""
    for name in ODD_NAMES:
        _write(folder / f"{name}_0000.nii.gz", (0, 1, 2), (-1, -1, 1))
    for name in OTHER_FILES:
        (folder / name).write_text("{}")


def turned(folder: Path, axes: Triple) -> None:
    """Write one CT with its axes stored in an order, in all 8 directions."""
    for name, _, flips in orientations(axes):
        _write(folder / f"{name}_0000.nii.gz", axes, flips)


def damaged(folder: Path) -> None:
    """Write a CT whose file ends too early."""
    usual(folder)
    whole = folder / f"{USUAL}_0000.nii.gz"
    content = whole.read_bytes()
    (folder / f"{DAMAGED}_0000.nii.gz").write_bytes(content[: len(content) // 2])
    whole.unlink()


def nothing(folder: Path) -> None:
    """Leave a folder without any CT."""
    (folder / "notes.txt").write_text("no scan here")


def orientations(axes: Triple | None = None) -> list[tuple[str, Triple, Triple]]:
    """Return name, order of the world's axes in the file, and flips (+1, -1).

    Args:
        axes: the only order that is wanted; all 6, which makes 48, where None.
    """
    letters = ("LR", "PA", "IS")  # towards minus, towards plus; the world is RAS+
    found: list[tuple[str, Triple, Triple]] = []
    for order, flips in product(ORDERS, product((1, -1), repeat=3)):
        name = "".join(letters[axis][flip > 0] for axis, flip in zip(order, flips, strict=True))
        found.append((name, order, cast(Triple, flips)))
    return [each for each in found if axes in (None, each[1])]


def as_canonical(
    stored_XYZ: NDArray[np.generic], order: Triple, flips: Triple
) -> NDArray[np.generic]:
    """Return voxels as if they had been stored with the world's axes, all upwards."""
    upright = stored_XYZ[tuple(slice(None, None, flip) for flip in flips)]
    return upright.transpose(np.argsort(order))


@cache
def _phantom() -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Return a CT in HU, axes towards right, anterior, superior, and its affine."""
    import nibabel

    from flarekit.phantom.scan import abdomen_phantom

    phantom = abdomen_phantom(4, spacing_mm_ZYX=_SPACING_MM_ZYX, shape_ZYX=_SHAPE_ZYX)
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(phantom.hu_ZYX.T, phantom.affine))
    return np.asarray(image.dataobj), np.asarray(image.affine)


def _write(
    path: Path,
    order: Triple,
    flips: Triple,
    *,
    intercept_hu: float = 0.0,
) -> None:
    """Write the phantom with its axes stored in an order and direction."""
    import nibabel
    from isal import igzip

    hu_XYZ, affine = _phantom()
    stored = hu_XYZ.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
    index = np.zeros((4, 4))  # of the stored voxel -> of the canonical one
    index[3, 3] = 1.0
    for axis, (world, flip) in enumerate(zip(order, flips, strict=True)):
        index[world, axis] = flip
        index[world, 3] = 0 if flip > 0 else hu_XYZ.shape[world] - 1
    kind = np.int16 if intercept_hu == 0 else np.uint16
    voxels = np.ascontiguousarray(stored - np.int16(intercept_hu)).astype(kind)
    image = nibabel.Nifti1Image(voxels, affine @ index)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = b"generated"
    image.header.set_slope_inter(1.0, intercept_hu)
    write_atomically(path, igzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
