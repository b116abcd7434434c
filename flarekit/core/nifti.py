"""NIfTI in and out: what real files hold, and masks that overlay them exactly.

nibabel decides the affine; the file's own header is written back untouched but for what makes it a
uint8 mask. Bytes are looked at before names are believed.
"""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.files import write_atomically
from flarekit.core.volume import Geometry, Volume

AIR_HU = -1024.0
_GZIP_MAGIC = b"\x1f\x8b"
_DISAGREEMENT_MM = 0.1
_AGAIN = "download or export the file again"
# first bytes of things that are often saved under a NIfTI name
_IMPOSTORS = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the scan", "run `git lfs pull`"),
    (0, b"<!doctype html", "is a web page, not a scan", _AGAIN),
    (0, b"<html", "is a web page, not a scan", _AGAIN),
    (128, b"dicm", "is a DICOM file", "convert the series to NIfTI (dcm2niix)"),
    (0, b"objecttype", "is a MetaImage file", "convert it to NIfTI"),
    (0, b"nrrd", "is an NRRD file", "convert it to NIfTI"),
    (0, b"pk\x03\x04", "is a ZIP archive", "unpack it"),
)


def read_nifti(path: Path, *, air: float = AIR_HU) -> Volume:
    """Read one 3D scan.

    Args:
        path: a NIfTI-1 or NIfTI-2 file, compressed or not, whatever its ending says.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: the file is missing, empty, truncated, not NIfTI, not 3D, or holds
            no real numbers; the message names file, fault and remedy.
    """
    image, shape_XYZ = _parse(path, _decompressed(path))
    affine, notes = _affine(path, image)
    try:
        voxels = np.asarray(image.dataobj, dtype=np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableVolumeError(
            path, "holds fewer voxels than its header says", fix=_AGAIN
        ) from error
    voxels_ZYX = np.ascontiguousarray(voxels.reshape(shape_XYZ, order="F").T)
    finite = np.isfinite(voxels_ZYX)
    if not finite.all():
        notes.append(f"{int((~finite).sum())} voxels are not finite and count as air")
        voxels_ZYX = np.where(finite, voxels_ZYX, np.float32(air))
    geometry = Geometry(shape_ZYX=shape_XYZ[::-1], affine=affine, header=image.header)
    return Volume(voxels_ZYX=voxels_ZYX, geometry=geometry, path=path, warnings=tuple(notes))


def read_geometry(path: Path) -> Geometry:
    """Read only the geometry, as far as it can be saved from a damaged file.

    Raises:
        UnreadableVolumeError: not even the header is there.
    """
    image, shape_XYZ = _parse(path, _decompressed(path, header_only=True))
    affine, _ = _affine(path, image)
    return Geometry(shape_ZYX=shape_XYZ[::-1], affine=affine, header=image.header)


def write_label_map(path: Path, label_map_ZYX: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write a mask that overlays the scan it came from.

    uint8, slope 1, intercept 0, the scan's first three dimensions and its header geometry, bit by
    bit; gzip-compressed where the name ends in `.gz`; written under a temporary name, then renamed.

    Args:
        path: the file to make.
        label_map_ZYX: uint8 of `geometry.shape_ZYX`, stored axis directions.
        geometry: the scan's.

    Raises:
        ValueError: the mask's shape is not the scan's.
        OutputError: it could not be written.
    """
    if label_map_ZYX.shape != geometry.shape_ZYX or label_map_ZYX.dtype != np.uint8:
        raise ValueError(f"uint8 {geometry.shape_ZYX} expected, got {label_map_ZYX.dtype} "
                         f"{label_map_ZYX.shape}")
    content = _mask_header(geometry) + np.ascontiguousarray(label_map_ZYX).tobytes()
    if path.suffix == ".gz":
        from isal import igzip

        content = igzip.compress(content, compresslevel=2, mtime=0)
    write_atomically(path, content)


def blank_geometry() -> Geometry:
    """Return the geometry of a single voxel, for a file of which nothing is known."""
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4))
    return Geometry(shape_ZYX=(1, 1, 1), affine=np.eye(4), header=image.header)


def _mask_header(geometry: Geometry) -> bytes:
    header = geometry.header.copy()
    header.set_data_dtype(np.uint8)
    pixdim = header["pixdim"].copy()
    header.set_data_shape(geometry.shape_ZYX[::-1])
    header["pixdim"] = pixdim
    for field, value in (("scl_slope", 1), ("scl_inter", 0), ("cal_min", 0), ("cal_max", 0)):
        header[field] = value
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    content: bytes = header.binaryblock
    return content.ljust(int(header.single_vox_offset), b"\0")


def _decompressed(path: Path, *, header_only: bool = False) -> bytes:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UnreadableVolumeError(
            path, f"cannot be opened: {error.strerror}", fix="check path and permissions"
        ) from error
    if not raw:
        raise UnreadableVolumeError(path, "is empty (0 bytes)", fix=_AGAIN)
    if raw[:2] != _GZIP_MAGIC:
        return raw
    if header_only:
        return zlib.decompressobj(wbits=31).decompress(raw, 4096)
    from isal import igzip, isal_zlib

    try:
        return igzip.decompress(raw)
    except EOFError as error:
        raise UnreadableVolumeError(path, "its gzip stream ends early", fix=_AGAIN) from error
    except (igzip.BadGzipFile, isal_zlib.error) as error:
        raise UnreadableVolumeError(path, f"its gzip stream is damaged ({error})", fix=_AGAIN) from error


def _parse(path: Path, content: bytes) -> tuple[Any, tuple[int, int, int]]:
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    for offset, magic, fault, fix in _IMPOSTORS:
        if content[offset : offset + len(magic)].lower() == magic:
            raise UnreadableVolumeError(path, fault, fix=fix)
    size = {int.from_bytes(content[:4], order) for order in ("little", "big")}
    image_class = (
        nibabel.Nifti1Image if 348 in size else nibabel.Nifti2Image if 540 in size else None
    )
    if image_class is None or len(content) < 348:
        raise UnreadableVolumeError(path, "is not a NIfTI file", fix="convert it to NIfTI")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            holders = image_class.make_file_map({"image": io.BytesIO(content)})
            image = image_class.from_file_map(holders)
    except (HeaderDataError, nibabel.filebasedimages.ImageFileError, ValueError, OSError) as error:
        raise UnreadableVolumeError(
            path, f"its header is damaged ({error})", fix="export it again"
        ) from error
    if image.get_data_dtype().kind not in "iufb":
        raise UnreadableVolumeError(
            path, f"holds {image.get_data_dtype()} voxels", fix="export one real number per voxel"
        )
    return image, _three_dimensions(path, tuple(int(n) for n in image.shape))


def _three_dimensions(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if any(n <= 0 for n in shape):
        raise UnreadableVolumeError(path, f"has no voxels (shape {shape})", fix="export it again")
    if len(shape) < 3 or any(n != 1 for n in shape[3:]):
        raise UnreadableVolumeError(
            path, f"is {len(shape)}D (shape {shape}), not one 3D scan", fix="split it into 3D files"
        )
    return shape[0], shape[1], shape[2]


def _affine(path: Path, image: Any) -> tuple[NDArray[np.float64], list[str]]:
    """Return the affine nibabel decides on, and what was odd about it."""
    header = image.header
    affine = np.asarray(image.affine, dtype=np.float64)
    notes: list[str] = []
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    if sform is None and int(header["qform_code"]) == 0:
        notes.append("has neither sform nor qform: its array order is taken as it is")
    elif sform is not None and qform is not None:
        gap_mm = float(np.abs(sform - qform).max())
        if gap_mm > _DISAGREEMENT_MM:
            notes.append(f"sform and qform disagree (by up to {gap_mm:.3g}); the sform is used")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UnreadableVolumeError(
            path, "its affine is singular or not finite", fix="repair the header's sform or qform"
        )
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if float(np.abs(directions.T @ directions - np.eye(3)).max()) > 1e-3:
        notes.append("its axes are not orthogonal; the nearest rotation is used to orient it")
    return affine, notes


def _qform(header: Any) -> NDArray[np.float64] | None:
    from nibabel.spatialimages import HeaderDataError

    if int(header["qform_code"]) == 0:
        return None
    try:
        qform: NDArray[np.float64] = header.get_qform()
    except (HeaderDataError, ValueError):
        return None
    return qform
