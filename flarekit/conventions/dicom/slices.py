"""One file of a series: a slice with what a volume needs of it, or why it is none.

Classic single-frame CT, MR and PET images (PS3.3 A.3, A.4, A.21), by what they state, not by their
names.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.dicom import TABLES
from flarekit.conventions.dicom.elements import Element, ElementError, Elements, read_elements
from flarekit.conventions.dicom.file import DicomFile
from flarekit.conventions.dicom.private import PRIVATE
from flarekit.core.archives import is_archive
from flarekit.core.errors import UnreadableVolumeError

MODALITY_OF_CLASS = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
CLASS_OF_MODALITY = {modality: uid for uid, modality in MODALITY_OF_CLASS.items()}
_NO_IMAGES = frozenset(
    ("DOC", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "SEG", "SR")
)
_DIRECTORY = "1.2.840.10008.1.3.10"
_MULTI_FRAME: dict[str, str] = TABLES["multi_frame"]
_MOST_PIXELS = 1 << 24  # of one slice
_SUFFIXES = (".dcm", ".dicom", ".ima")
_PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")
_OTHER_PACKED = (".7z", ".rar", ".gz", ".bz2", ".xz")
NOT_DICOM = "files that are not DICOM"
_UNIT = 0.01  # what direction cosines may be off
_AGAIN = "copy or export the file again"
WANTED: tuple[Element, ...] = (
    *chain.from_iterable(TABLES["elements"].values()),
    *(tag for element in PRIVATE for tag in element.tags),
)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One image that belongs to a volume.

    Attributes:
        path: of the file.
        elements: what the file says.
        uid: SOPInstanceUID; empty where the file does not state it.
        series: SeriesInstanceUID; empty where the file does not state it.
        study: StudyInstanceUID; empty where the file does not state it.
        modality: CT, MR or PT.
        position_mm: (3,) of the first pixel, LPS.
        directions: (2, 3) unit vectors along a row and along a column.
        spacing_mm: between rows, between columns.
        shape_YX: rows and columns.
        slope: what a stored value is multiplied by, to be in the scan's unit.
        intercept: what is added then.
        syntax: transfer syntax.
        little: whether its pixels have their low byte first.
        encapsulated: whether its pixels are compressed.
    """

    path: Path
    elements: Elements
    uid: str
    series: str
    study: str
    modality: str
    position_mm: NDArray[np.float64]
    directions: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    shape_YX: tuple[int, int]
    slope: float
    intercept: float
    syntax: str
    little: bool
    encapsulated: bool


@dataclass(frozen=True, kw_only=False)
class Archive:
    """A zip or a tar, which may hold slices."""

    path: Path


@dataclass(frozen=True)
class LeftAlone:
    """A file that is none of what is looked for.

    Attributes:
        what: it is, in the plural.
    """

    what: str = NOT_DICOM


@dataclass(frozen=True)
class Unusable:
    """An image that cannot be used, or a file that is named like one.

    Attributes:
        fault: which, why, and what to do.
        modality: what it is; empty where that is not known.
    """

    fault: str
    modality: str = ""


def slice_in(path: Path) -> Slice | LeftAlone | Unusable | Archive | None:
    """Read what a file says, its pixels left out; None where the path is no file's."""
    try:
        if not path.is_file():
            return None
        found = _read(path)
    except UnreadableVolumeError as error:
        return Unusable(str(error))
    except OSError as error:
        return Unusable(f"{path}: cannot be read: {error.strerror}")
    if isinstance(found, LeftAlone | Archive):
        return found
    elements, file = found
    try:
        return _other(elements) or _slice(elements, file)
    except UnreadableVolumeError as error:
        return Unusable(str(error), _modality_of(elements))


def _read(path: Path) -> tuple[Elements, DicomFile] | LeftAlone | Archive:
    if path.stat().st_size == 0:
        if path.suffix.lower() not in _SUFFIXES:
            return LeftAlone()
        raise UnreadableVolumeError(path, "is empty (0 bytes)", fix=_AGAIN)
    read = read_elements(path, WANTED)
    if read is None:
        if path.suffix.lower() in _SUFFIXES:
            raise UnreadableVolumeError(path, "is not a DICOM file", fix=_AGAIN)
        name = path.name.lower()
        if name.endswith(_PACKED) or is_archive(path):
            return Archive(path)
        if name.endswith(_OTHER_PACKED) and not name.endswith(".nii.gz"):
            raise UnreadableVolumeError(
                path, "is an archive of a kind that is not unpacked here", fix="unpack it first"
            )
        return LeftAlone()
    return read


def _other(elements: Elements) -> LeftAlone | None:
    """Return what a file is where it is not an image of a volume."""
    kind, modality = _class_of(elements), _modality_of(elements)
    if kind == _DIRECTORY:
        return LeftAlone("directories of DICOM files")
    if kind in _MULTI_FRAME:
        raise UnreadableVolumeError(
            elements.path,
            f"is an {_MULTI_FRAME[kind]} image, which holds several frames",
            fix="export single-frame images",
        )
    if modality not in CLASS_OF_MODALITY:
        if not modality and elements.has("ImagePositionPatient"):
            raise UnreadableVolumeError(
                elements.path, "states neither Modality nor SOPClassUID", fix="export it again"
            )
        return LeftAlone(f"{modality or 'other'} objects")
    kinds = elements.texts("ImageType")
    if "LOCALIZER" in kinds:
        return LeftAlone("scouts")
    if "MOSAIC" in kinds:
        raise UnreadableVolumeError(
            elements.path,
            "is a mosaic (ImageType), one picture with all slices of a volume",
            fix="convert the series to NIfTI with dcm2niix",
        )
    if _whole_or(elements, "SamplesPerPixel", 1) == 3:
        return LeftAlone("colour images")
    placed = elements.has("ImagePositionPatient") or elements.has("ImageOrientationPatient")
    if not placed and kind and kind not in MODALITY_OF_CLASS:
        return LeftAlone("pictures without a position")
    return None


def _class_of(elements: Elements) -> str:
    return elements.text("SOPClassUID") or elements.text("MediaStorageSOPClassUID")


def _modality_of(elements: Elements) -> str:
    """Return what an image is: by its class where that tells, else as it states."""
    stated = elements.text("Modality").upper()
    if stated in _NO_IMAGES:
        return stated
    return MODALITY_OF_CLASS.get(_class_of(elements), "PT" if stated == "PET" else stated)


def _whole_or(elements: Elements, element: Element, otherwise: int) -> int:
    try:
        return elements.whole(element)
    except ElementError:
        return otherwise


def _slice(elements: Elements, file: DicomFile) -> Slice:
    path = elements.path
    if _whole_or(elements, "NumberOfFrames", 1) > 1:
        raise UnreadableVolumeError(path, "holds several frames", fix="export single-frame images")
    if file.cut_off:
        raise UnreadableVolumeError(path, "is cut off", fix=_AGAIN)
    shape = elements.whole("Rows"), elements.whole("Columns")
    if min(shape) < 1 or shape[0] * shape[1] > _MOST_PIXELS:
        raise _fault(path, f"its Rows and Columns are {shape[0]} and {shape[1]}")
    spacing = elements.numbers("PixelSpacing", 2)
    if min(spacing) <= 0:
        raise _fault(path, f"its PixelSpacing is {spacing[0]:g} and {spacing[1]:g} mm")
    directions = np.array(elements.numbers("ImageOrientationPatient", 6)).reshape(2, 3)
    lengths = np.linalg.norm(directions, axis=1)
    if np.abs(lengths - 1).max() > _UNIT or abs(float(directions[0] @ directions[1])) > _UNIT:
        raise _fault(
            path, "its ImageOrientationPatient is not a pair of unit vectors at right angles"
        )
    position = np.array(elements.numbers("ImagePositionPatient", 3))
    _check_pixels(elements, file, shape)
    if elements.items("ModalityLUTSequence") and not elements.has("RescaleSlope"):
        raise UnreadableVolumeError(
            path,
            "maps its pixels to their unit by a table (ModalityLUTSequence), which is not read",
            fix="export it with RescaleSlope and RescaleIntercept",
        )
    slope = elements.number_or("RescaleSlope", 1.0)
    if slope == 0:
        raise _fault(path, "its RescaleSlope is 0")
    return Slice(
        path=path,
        elements=elements,
        uid=elements.text("SOPInstanceUID") or elements.text("MediaStorageSOPInstanceUID"),
        series=elements.text("SeriesInstanceUID"),
        study=elements.text("StudyInstanceUID"),
        modality=_modality_of(elements),
        position_mm=position,
        directions=directions / lengths[:, None],
        spacing_mm=(spacing[0], spacing[1]),
        shape_YX=shape,
        slope=slope,
        intercept=elements.number_or("RescaleIntercept", 0.0),
        syntax=file.syntax,
        little=file.little,
        encapsulated=file.encapsulated,
    )


def _check_pixels(elements: Elements, file: DicomFile, shape_YX: tuple[int, int]) -> None:
    """Refuse pixels that cannot be what the header says, before anything is computed."""
    if not file.pixel_bytes:
        raise _fault(elements.path, "has no PixelData")
    bits = elements.whole("BitsAllocated")
    if bits not in (8, 16, 32):
        raise _fault(elements.path, f"its BitsAllocated is {bits}, not 8, 16 or 32")
    if elements.whole("PixelRepresentation") not in (0, 1):
        raise _fault(elements.path, "its PixelRepresentation is neither 0 nor 1")
    if file.encapsulated:
        return
    row_bytes = shape_YX[1] * bits // 8
    needed = shape_YX[0] * row_bytes
    if not needed <= file.pixel_bytes < needed + max(2, row_bytes):
        raise _fault(
            elements.path,
            f"its PixelData has {file.pixel_bytes} bytes; Rows x Columns x BitsAllocated are "
            f"{needed}",
        )


def _fault(path: Path, fault: str) -> UnreadableVolumeError:
    return UnreadableVolumeError(path, fault, fix="export it again")
