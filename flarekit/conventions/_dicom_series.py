"""Series of DICOM slices: which there are below a folder, and one as a volume.

Classic single-frame CT, MR and PET images (PS3.3 A.3, A.4, A.21). Slices are ordered along their
normal; their rescale slopes are applied slice by slice, since PET changes them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError, UnreadableVolumeError
from flarekit.core.volume import Geometry, Volume

_LOG = logging.getLogger(__name__)
_Header: TypeAlias = Any  # pydicom's Dataset, whose elements carry no types
_FEWEST_SLICES = 3  # fewer are scouts and key images
_UNEVEN = 0.1  # of the distance between slices
_THREADS = 4
_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "SeriesDescription",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "CorrectedImage",
]


@dataclass(frozen=True, kw_only=True)
class Series:
    """Slices that make one volume.

    Attributes:
        uid: SeriesInstanceUID.
        study: StudyInstanceUID.
        frame: FrameOfReferenceUID; empty where there is none.
        modality: CT, MR or PT.
        name: its description, for messages.
        files: one per slice, in the order of the volume's Z.
        affine: (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+.
        shape_ZYX: slices, rows, columns.
        corrected: what a PET is corrected for, `ATTN` say.
    """

    uid: str
    study: str
    frame: str
    modality: str
    name: str
    files: tuple[Path, ...]
    affine: NDArray[np.float64]
    shape_ZYX: tuple[int, int, int]
    corrected: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """Where its first slice lies, for messages."""
        return self.files[0].parent

    @property
    def z_range_mm(self) -> tuple[float, float]:
        """Lowest and highest position of a slice along the body."""
        ends = [float((self.affine @ [0, 0, k, 1])[2]) for k in (0, self.shape_ZYX[0] - 1)]
        return min(ends), max(ends)


def find_series(input_dir: Path) -> tuple[list[Series], list[str]]:
    """Return the series below a folder, sorted by UID, and what is wrong with others.

    Everything that is no CT, MR or PET image is left alone: reports, scouts, other files.
    """
    groups: dict[tuple[Any, ...], dict[str, tuple[Path, _Header]]] = {}
    faults = []
    for path in sorted(input_dir.rglob("*")):
        header = _header(path)
        if header is None or not _is_slice(header):
            continue
        if int(header.get("NumberOfFrames") or 1) > 1:
            faults.append(f"{path}: holds several frames; export single-frame images")
            continue
        direction = tuple(np.round([float(c) for c in header.ImageOrientationPatient], 3))
        key = (header.SeriesInstanceUID, direction, header.Rows, header.Columns)
        groups.setdefault(key, {})[header.SOPInstanceUID] = path, header  # copies count once
    found = []
    for slices in groups.values():
        try:
            if len(slices) >= _FEWEST_SLICES:
                found.append(_series(list(slices.values())))
        except InputError as error:
            faults.append(str(error))
    return sorted(found, key=lambda series: series.uid), faults


def _header(path: Path) -> _Header | None:
    """Return the elements of interest of a file; None of one that is not DICOM."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        if not path.is_file():
            return None
        return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except (InvalidDicomError, OSError, EOFError) as error:
        _LOG.debug("%s: %s", path, error)
        return None


def _is_slice(header: _Header) -> bool:
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
    return (
        header.get("Modality") in ("CT", "MR", "PT")
        and "LOCALIZER" not in (header.get("ImageType") or ())
        and (all(header.get(tag) for tag in needed) or int(header.get("NumberOfFrames") or 1) > 1)
    )


def _series(slices: Sequence[tuple[Path, _Header]]) -> Series:
    first = slices[0][1]
    row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    positions = np.array([header.ImagePositionPatient for _, header in slices], float)
    order = np.argsort(positions @ normal, kind="stable")
    heights = (positions @ normal)[order]
    _check_even(np.diff(heights), slices[order[0]][0].parent, first)
    down_mm, across_mm = (float(mm) for mm in first.PixelSpacing)  # between rows, columns
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = row * across_mm, column * down_mm
    lps[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(slices) - 1)
    lps[:3, 3] = positions[order[0]]
    corrected = first.get("CorrectedImage") or ()
    return Series(
        uid=str(first.SeriesInstanceUID),
        study=str(first.StudyInstanceUID),
        frame=str(first.get("FrameOfReferenceUID") or ""),
        modality=str(first.Modality),
        name=str(first.get("SeriesDescription") or first.Modality),
        files=tuple(slices[k][0] for k in order),
        affine=np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps,
        shape_ZYX=(len(slices), int(first.Rows), int(first.Columns)),
        corrected=(corrected,) if isinstance(corrected, str) else tuple(corrected),
    )


def _check_even(gaps_mm: NDArray[np.float64], folder: Path, header: _Header) -> None:
    name = f"{folder}: series {header.get('SeriesDescription') or header.SeriesInstanceUID}"
    usual_mm = float(np.median(gaps_mm))
    if usual_mm <= 0 or gaps_mm.min() < _UNEVEN * usual_mm:
        raise InputError(
            f"{name} has several slices at one position",
            fix="export one phase or reconstruction by itself",
        )
    odd = np.abs(gaps_mm - usual_mm) > max(_UNEVEN * usual_mm, 0.01)
    if odd.any():
        raise InputError(
            f"{name} lacks slices: {int(odd.sum())} gaps are not {usual_mm:.3g} mm "
            f"(up to {gaps_mm.max():.3g} mm)",
            fix="export the whole series again",
        )


def read_series(series: Series, factors: Sequence[float] | None = None) -> Volume:
    """Read all slices of a series, in its unit (HU of a CT).

    Integers stay integers where slopes and intercepts are whole numbers.

    Args:
        series: from `find_series`.
        factors: one per slice, by which its values are multiplied; SUV per unit, say.

    Raises:
        UnreadableVolumeError: a slice is damaged, or compressed in a way nothing here reads.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        slices = list(pool.map(_pixels, series.files))
    if factors is not None:
        slices = [
            (each * np.float32(factor)).astype(np.float32)
            for each, factor in zip(slices, factors, strict=True)
        ]
    voxels = np.stack(slices)
    if voxels.shape != series.shape_ZYX:
        raise UnreadableVolumeError(
            series.folder, f"its slices are {voxels.shape[1:]} pixels", fix="export it again"
        )
    voxels = voxels.astype(np.float32) if voxels.dtype.kind == "f" else voxels
    geometry = Geometry(shape_ZYX=series.shape_ZYX, affine=series.affine, header=None)
    return Volume(voxels_ZYX=voxels, geometry=geometry, path=series.folder)


def read_headers(files: Iterable[Path]) -> list[_Header]:
    """Return all elements of files but their pixels."""
    import pydicom

    return [pydicom.dcmread(path, stop_before_pixels=True) for path in files]


def _pixels(path: Path) -> NDArray[Any]:
    """Return a slice with its rescale slope and intercept applied."""
    import pydicom

    try:
        image = pydicom.dcmread(path)
        try:
            stored = image.pixel_array
        except (RuntimeError, NotImplementedError):  # no decoder installed for that compression
            return _pixels_by_itk(path)
    except (OSError, EOFError, AttributeError, ValueError) as error:
        raise UnreadableVolumeError(
            path, f"its pixels cannot be read ({error})", fix="export it again"
        ) from error
    slope, intercept = float(image.get("RescaleSlope", 1)), float(image.get("RescaleIntercept", 0))
    if slope.is_integer() and intercept.is_integer():
        pixels = stored.astype(np.int32) * int(slope) + int(intercept)
        whole = np.iinfo(np.int16)
        fits = whole.min <= pixels.min() and pixels.max() <= whole.max
        return pixels.astype(np.int16) if fits else pixels
    scaled: NDArray[np.float32] = (stored * slope + intercept).astype(np.float32)
    return scaled


def _pixels_by_itk(path: Path) -> NDArray[Any]:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path), SimpleITK.sitkFloat32)
    except RuntimeError as error:
        raise UnreadableVolumeError(
            path,
            f"its pixels cannot be decompressed ({str(error).strip().splitlines()[-1]})",
            fix="export it without compression",
        ) from error
    pixels: NDArray[np.float32] = SimpleITK.GetArrayFromImage(image)[0]
    return pixels
