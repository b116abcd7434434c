"""The pixels of a slice, decoded and in its unit; nothing else of its file matters."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.dicom.elements import ElementError
from flarekit.conventions.dicom.file import read_dicom_file
from flarekit.conventions.dicom.slices import CLASS_OF_MODALITY, Slice
from flarekit.conventions.dicom.stored_bits import stored_bits, within_stored_bits
from flarekit.conventions.dicom.unchecked import unchecked
from flarekit.core.errors import UnreadableVolumeError

_Dataset: TypeAlias = Any  # pydicom's, whose elements carry no types
_THREADS = 4
AIR_HU = -1024
HIGHEST_CT_HU = 3071.0  # of 12 bits; padding above it would be metal
_INT16 = np.iinfo(np.int16)
_INT32 = np.iinfo(np.int32)


def voxels_of(slices: Sequence[Slice]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return slices as one (Z, Y, X) array, in their unit (HU of a CT), and what was odd.

    Integers stay integers where slopes and intercepts are whole numbers; else float32.

    Raises:
        UnreadableVolumeError: a slice is damaged, or compressed in a way nothing here reads.
    """
    with unchecked(), ThreadPoolExecutor(_THREADS) as pool:  # what matters is an error here
        read = list(pool.map(_pixels, slices))
    counted = Counter(note for _, notes in read for note in notes)
    notes = tuple(f"{note} ({count} files)" for note, count in counted.items())
    return np.stack([pixels for pixels, _ in read]), notes


def _pixels(each: Slice) -> tuple[NDArray[Any], list[str]]:
    """Return the pixels of a slice in its unit, and what was odd about them."""
    raw = _stored(each)
    stored, notes = (raw, []) if each.encapsulated else within_stored_bits(each, raw)
    padded = _padding(each, raw)
    scaled = _scaled(each, stored)
    if padded is not None and padded.any():
        hu = float(raw[padded][0]) * each.slope + each.intercept
        if hu > HIGHEST_CT_HU:
            scaled[padded] = AIR_HU
            notes.append(f"its PixelPaddingValue lies at {hu:g} HU: {AIR_HU} is taken")
    return scaled, notes


def _scaled(each: Slice, stored: NDArray[Any]) -> NDArray[Any]:
    if stored.shape != each.shape_YX:
        raise UnreadableVolumeError(
            each.path, f"its pixels are {stored.shape}, not {each.shape_YX}", fix="export it again"
        )
    slope, intercept = each.slope, each.intercept
    whole = slope.is_integer() and intercept.is_integer()
    if stored.dtype.kind in "iu" and whole and max(abs(slope), abs(intercept)) < _INT32.max:
        low, high = (int(stored.min()), int(stored.max())) if stored.size else (0, 0)
        ends = sorted((low * int(slope) + int(intercept), high * int(slope) + int(intercept)))
        if _INT16.min <= ends[0] and ends[1] <= _INT16.max:
            return (stored.astype(np.int32) * np.int32(slope) + np.int32(intercept)).astype(
                np.int16
            )
        if _INT32.min <= ends[0] and ends[1] <= _INT32.max:
            return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(np.int32)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: NDArray[np.float32] = (stored * slope + intercept).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise UnreadableVolumeError(
            each.path,
            f"its pixels are not finite after RescaleSlope {slope:g} and RescaleIntercept "
            f"{intercept:g}",
            fix="export it again",
        )
    return scaled


def _stored(each: Slice) -> NDArray[Any]:
    file = read_dicom_file(each.path, (), pixels=True)
    if file is None or not file.pixels:
        raise UnreadableVolumeError(
            each.path,
            "has lost its pixels since it was first read",
            fix="leave the files as they are during a run",
        )
    if not each.encapsulated:
        return _plain(each, file.pixels)
    dataset = _dataset(each, file.pixels)
    try:
        return np.asarray(dataset.pixel_array)
    except (RuntimeError, NotImplementedError) as error:  # perhaps no decoder of pydicom's is there
        return _by_itk(each, dataset, error)
    except Exception as error:  # other people's decoders of damaged streams
        raise _undecodable(each, error) from error


def _plain(each: Slice, content: bytes) -> NDArray[Any]:
    rows, columns = each.shape_YX
    kind = "i" if each.elements.whole("PixelRepresentation") else "u"
    order = "<" if each.little else ">"
    dtype = np.dtype(f"{order}{kind}{each.elements.whole('BitsAllocated') // 8}")
    return np.frombuffer(content, dtype, rows * columns).reshape(rows, columns)


def _padding(each: Slice, raw: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Return where a CT shows nothing, by its PixelPaddingValue; None where it states none."""
    if each.modality != "CT" or raw.dtype.kind not in "iu":
        return None
    try:
        value = each.elements.whole("PixelPaddingValue")
    except ElementError:
        return None
    words = np.array([value % (1 << 8 * raw.dtype.itemsize)], f"u{raw.dtype.itemsize}")
    padding = words.view(raw.dtype.newbyteorder("="))[0]  # whatever its sign is said to be
    is_padding: NDArray[np.bool_] = raw == padding
    return is_padding


def _dataset(each: Slice, content: bytes) -> _Dataset:
    """Return a dataset of nothing but pixels and what their decoder asks for."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(each.syntax)
    dataset.SOPClassUID = CLASS_OF_MODALITY["CT"]
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Modality = "CT"
    dataset.Rows, dataset.Columns = each.shape_YX
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = each.elements.whole("BitsAllocated")
    dataset.BitsAllocated, dataset.BitsStored = bits, stored_bits(each, bits)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = each.elements.whole("PixelRepresentation")
    dataset.PixelData = content
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _by_itk(each: Slice, dataset: _Dataset, before: Exception) -> NDArray[Any]:
    """Decode pixels with ITK; what pydicom said before is told where that fails, too."""
    import SimpleITK

    with tempfile.TemporaryDirectory(prefix="flarekit-") as folder:
        path = Path(folder, "slice.dcm")
        try:
            dataset.save_as(path, enforce_file_format=True)
            image = SimpleITK.ReadImage(str(path))
        except Exception as error:  # ITK's, or pydicom's about what it is to write
            raise _undecodable(each, before) from error
    pixels: NDArray[Any] = SimpleITK.GetArrayFromImage(image)
    return pixels.reshape(pixels.shape[-2:])


def _undecodable(each: Slice, error: Exception) -> UnreadableVolumeError:
    said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".:")
    return UnreadableVolumeError(
        each.path,
        f"its pixels cannot be decompressed ({said}; transfer syntax {each.syntax or 'missing'})",
        fix="export it without compression",
    )
