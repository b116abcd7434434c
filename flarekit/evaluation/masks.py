"""Masks on disk: the files of a folder by case, and their voxels as label values."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError, UnreadableVolumeError
from flarekit.core.files import printable_name
from flarekit.core.metaheader import MetaHeader
from flarekit.core.nifti_affine import mm_per_unit
from flarekit.core.npz_files import read_arrays
from flarekit.core.plausible import is_spacing
from flarekit.core.scan_files import SCAN_ENDINGS, ending_of, labels_in, read_scan, stem_of
from flarekit.core.volume import Geometry, Volume

_ARRAYS = ".npz"
SUFFIXES = (*SCAN_ENDINGS, _ARRAYS)
_MASK_ARRAYS = ("segs", "gts")  # of FLARE's tasks with lines or prompts
_SAME_SPACING = 1e-3


@dataclass(frozen=True, kw_only=True)
class Mask:
    """A label map as stored.

    Attributes:
        values_ZYX: uint8.
        spacing_mm_XYZ: as the header has it (float32 in a NIfTI header, float64 elsewhere), since
            the official scripts compute with exactly that; in mm whatever the header's unit, and
            the affine's where the two disagree.
        geometry: where the voxels lie.
        path: the file.
        warnings: what was odd about it.
    """

    values_ZYX: NDArray[np.uint8]
    spacing_mm_XYZ: NDArray[np.floating[Any]]
    geometry: Geometry
    path: Path
    warnings: tuple[str, ...] = ()

    @property
    def voxel_ml(self) -> float:
        """Return the volume of one voxel in ml."""
        return float(np.prod(self.spacing_mm_XYZ)) / 1000


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The files of one case.

    Attributes:
        predicted: None where there is none.
    """

    case_id: str
    truth: Path
    predicted: Path | None


def find_pairs(predicted_dir: Path, truth_dir: Path) -> tuple[list[Pair], list[str]]:
    """Return a pair per file of the truth, sorted, and the names of predictions without a truth.

    Files belong together that are called the same but for their ending (`SUFFIXES`).

    Raises:
        InputError: a folder is missing, the truth has no mask, or one case has two files.
    """
    truths, predictions = masks_by_case(truth_dir), masks_by_case(predicted_dir)
    if not truths:
        raise InputError(
            f"{truth_dir}: no mask in it", fix=f"put files there that end in {', '.join(SUFFIXES)}"
        )
    pairs = [
        Pair(case_id=case_id, truth=path, predicted=predictions.get(case_id))
        for case_id, path in truths.items()
    ]
    return pairs, [path.name for case_id, path in predictions.items() if case_id not in truths]


def case_id_of(path: Path) -> str | None:
    """Return a mask's name without its ending, printable; None where the file is not a mask."""
    stem = path.stem if path.suffix == _ARRAYS else stem_of(path) if ending_of(path) else ""
    return printable_name(stem) or None


def read_mask(path: Path) -> Mask:
    """Read a label map.

    Raises:
        UnreadableVolumeError: it cannot be read, or holds anything but integers from 0 to 255.
    """
    volume, spacing_mm_XYZ = read_volume(path, air=math.nan)
    warnings = volume.warnings
    if not all(map(is_spacing, spacing_mm_XYZ)):
        stated = " x ".join(f"{mm:.4g}" for mm in spacing_mm_XYZ)
        warnings += (f"its spacing is {stated} mm, which no scanner gives: distances are doubtful",)
    return Mask(
        values_ZYX=labels_in(path, volume.voxels_ZYX),
        spacing_mm_XYZ=spacing_mm_XYZ,
        geometry=volume.geometry,
        path=path,
        warnings=warnings,
    )


def read_volume(path: Path, *, air: float = 0.0) -> tuple[Volume, NDArray[np.floating[Any]]]:
    """Read a mask's or a scan's voxels and its header's spacing (X, Y, Z) in mm.

    Args:
        path: of the mask or scan.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: it cannot be read.
    """
    if path.name.endswith(_ARRAYS):
        return _read_npz(path)
    if not path.is_file():
        raise UnreadableVolumeError(path, "does not exist", fix="check the path")
    volume = read_scan(path, air=air)
    header = volume.geometry.header
    if isinstance(header, MetaHeader):
        words = header.placement["ElementSpacing"].split()
        return volume, np.abs(np.array(words, np.float64))
    if header is None:
        return volume, np.array(volume.geometry.spacing_mm_ZYX[::-1])
    spacing_mm_XYZ, notes = _header_spacing_mm(volume.geometry)
    return replace(volume, warnings=(*volume.warnings, *notes)), spacing_mm_XYZ


def masks_by_case(folder: Path) -> dict[str, Path]:
    """Return the masks of a folder by their names without endings, sorted; hidden files are none.

    An `.npz` beside another file of the same name is none either: it holds probabilities.

    Raises:
        InputError: there is no such folder, or one case has two files.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder", fix="name the folder with the masks")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == _ARRAYS, path)):
        case_id = case_id_of(path)
        if case_id is None or path.name.startswith(".") or path.is_dir():
            continue
        if case_id in found and path.suffix == _ARRAYS:
            continue
        if case_id in found:
            raise InputError(
                f"{folder}: {found[case_id].name} and {path.name} are masks of one case",
                fix="leave one of them",
            )
        found[case_id] = path
    return dict(sorted(found.items()))


def _header_spacing_mm(geometry: Geometry) -> tuple[NDArray[np.floating[Any]], list[str]]:
    """Return a NIfTI header's pixdim as nibabel repairs it, in mm, and what is odd about it.

    Where the affine has another spacing, that counts: it says where voxels lie.
    """
    header = geometry.header
    spacing = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float32))
    spacing[spacing == 0] = 1
    spacing *= np.float32(mm_per_unit(header))
    own = np.linalg.norm(geometry.affine[:3, :3], axis=0)
    if np.allclose(spacing, own, rtol=_SAME_SPACING, atol=0):
        return spacing, []
    stated, used = (" x ".join(f"{mm:.4g}" for mm in each) for each in (spacing, own))
    return own.astype(np.float32), [
        f"its pixdim says {stated} mm, its sform or qform {used} mm: distances and volumes are "
        "those of the latter"
    ]


def _read_npz(path: Path) -> tuple[Volume, NDArray[np.floating[Any]]]:
    """Read the mask in an `.npz` file, which has no place in the world."""
    if not path.is_file():
        raise UnreadableVolumeError(path, "does not exist", fix="check the path")
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise UnreadableVolumeError(
            path, f"is not a whole .npz file of numbers ({error})", fix="write it again"
        ) from error
    voxels_ZYX = next((arrays[name] for name in _MASK_ARRAYS if name in arrays), None)
    if (
        voxels_ZYX is None
        or voxels_ZYX.ndim != len("ZYX")
        or voxels_ZYX.size == 0
        or voxels_ZYX.dtype.kind not in "biuf"
    ):
        raise UnreadableVolumeError(
            path,
            f"has no mask of three axes; its arrays: {', '.join(arrays) or 'none'}",
            fix=f"store the mask as the array {_MASK_ARRAYS[0]!r}, (D, H, W)",
        )
    stated, notes = np.ravel(arrays.get("spacing", ())), []
    spacing_mm_XYZ = np.ones(3)
    are_numbers = stated.dtype.kind in "iuf" and all(map(is_spacing, stated.tolist()))
    if are_numbers and stated.size in (1, 3):  # one number is that of every axis
        spacing_mm_XYZ = np.broadcast_to(stated, 3).astype(np.float64)
    else:
        notes.append("it states no usable spacing: its voxels are taken for cubes of 1 mm")
    affine = np.diag([*spacing_mm_XYZ * (-1, -1, 1), 1.0])
    geometry = Geometry(shape_ZYX=voxels_ZYX.shape, affine=affine, header=None)
    volume = Volume(voxels_ZYX=voxels_ZYX, geometry=geometry, path=path, warnings=tuple(notes))
    return volume, spacing_mm_XYZ
