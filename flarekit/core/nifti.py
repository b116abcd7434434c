"""NIfTI in and out: what real files hold, and masks that overlay them exactly.

nibabel decides the affine; the file's own header is written back untouched but for what makes it a
uint8 mask. Bytes are looked at before names are believed.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.content import (
    AGAIN,
    GZIP,
    GZIP_MAGIC,
    beginning_of,
    check_some_finite,
    compressed,
    content_of,
)
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.files import write_atomically
from flarekit.core.nifti_affine import MUTE, Header, affine_of
from flarekit.core.volume import Geometry, Volume

AIR_HU = -1024.0
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
# first bytes of things that are often saved under a NIfTI name
_IMPOSTORS = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the scan", "run `git lfs pull`"),
    (0, b"<!doctype html", "is a web page, not a scan", AGAIN),
    (0, b"<html", "is a web page, not a scan", AGAIN),
    (0, b"<?xml", "is an XML page, not a scan", AGAIN),
    (128, b"dicm", "is a DICOM file", "convert the series to NIfTI (dcm2niix)"),
    (0, b"objecttype", "is a MetaImage file", "convert it to NIfTI"),
    (0, b"nrrd", "is an NRRD file", "convert it to NIfTI"),
    (0, b"pk\x03\x04", "is a ZIP archive", "unpack it"),
    (0, GZIP_MAGIC, "is gzip-compressed twice", "decompress it once (gunzip)"),
)


def read_nifti(path: Path, *, air: float = AIR_HU) -> Volume:
    """Read one 3D scan.

    Integers that no slope scales stay as they are stored: half the memory of float32.

    Args:
        path: a NIfTI-1 or NIfTI-2 file, compressed or not, whatever its ending says.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: the file is missing, empty, truncated, not NIfTI, not 3D, or holds
            no real numbers; the message names file, fault and remedy.
    """
    header = _header(path, beginning_of(path, _HEADER_BYTES))
    shape_XYZ = _three_dimensions(path, _stored_shape(path, header))
    _, start, needed = _layout(path, header, shape_XYZ)
    content = content_of(path, at_most=start + needed)
    affine, notes = affine_of(path, header, shape_XYZ)
    voxels_ZYX = _voxels(path, content, header, shape_XYZ)
    if float(header["scl_slope"]) < 0:
        notes.append("its scl_slope is negative: are its values what they are said to be?")
    if voxels_ZYX.dtype.kind == "f":
        notes += _made_finite(path, voxels_ZYX, air)
    geometry = Geometry(shape_ZYX=shape_XYZ[::-1], affine=affine, header=header)
    return Volume(voxels_ZYX=voxels_ZYX, geometry=geometry, path=path, warnings=tuple(notes))


def read_geometry(path: Path) -> Geometry:
    """Read only the geometry, as far as it can be saved from a damaged file.

    Of a file that is not 3D the first three dimensions are taken. An affine that cannot be used is
    replaced by the identity and both its codes in the header by 0 (unknown), so that a mask written
    with that header can be read; the rest of the header stays as it is.

    Raises:
        UnreadableVolumeError: not even the header is there, or it counts no voxels.
    """
    header = _header(path, beginning_of(path, _HEADER_BYTES))
    x, y, z = (*_stored_shape(path, header), 1, 1)[:3]
    try:
        affine, _ = affine_of(path, header, (x, y, z))
    except UnreadableVolumeError:
        affine = np.eye(4)
        header = header.copy()
        header["sform_code"] = header["qform_code"] = 0
    return Geometry(shape_ZYX=(z, y, x), affine=affine, header=header)


def write_label_map(path: Path, label_map_ZYX: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write a mask that overlays the scan it came from.

    uint8, slope 1, intercept 0, the scan's first three dimensions and its header geometry, bit by
    bit; gzip-compressed where the name ends in `.gz`; written under a temporary name, then renamed.
    The scan's header extensions (DICOM tags, mostly) are left out.

    Args:
        path: the file to make.
        label_map_ZYX: uint8 of `geometry.shape_ZYX`, stored axis directions.
        geometry: the scan's.

    Raises:
        ValueError: the mask's shape is not the scan's.
        OutputError: it could not be written.
    """
    if label_map_ZYX.shape != geometry.shape_ZYX or label_map_ZYX.dtype != np.uint8:
        raise ValueError(
            f"uint8 {geometry.shape_ZYX} expected, got {label_map_ZYX.dtype} {label_map_ZYX.shape}"
        )
    header = _mask_header(geometry)
    if path.suffix == ".gz":
        write_atomically(path, compressed(label_map_ZYX, GZIP, first=header))
    else:
        write_atomically(path, header + np.ascontiguousarray(label_map_ZYX).tobytes())


def blank_geometry() -> Geometry:
    """Return the geometry of a single voxel, for a file of which nothing is known."""
    return geometry_from((1, 1, 1), np.eye(4))


def geometry_from(shape_ZYX: tuple[int, int, int], affine: NDArray[np.float64]) -> Geometry:
    """Return a geometry to write masks with, for a scan that is not NIfTI.

    Args:
        shape_ZYX: number of voxels along each stored axis.
        affine: (4, 4) float64, stored index (i, j, k, 1) -> mm, RAS+.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_shape(shape_ZYX[::-1])
    header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    header.set_sform(affine, code="scanner")
    header.set_qform(affine, code="scanner")
    header.set_xyzt_units("mm")
    return Geometry(shape_ZYX=shape_ZYX, affine=affine, header=header)


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


def _header(path: Path, content: bytes | bytearray) -> Header:
    """Return the header as it stands in the file, nothing repaired."""
    import nibabel

    text = content[:_HEADER_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for offset, magic, fault, fix in _IMPOSTORS:
        start = content[offset : offset + len(magic)].lower() if offset else text[: len(magic)]
        if start == magic:
            raise UnreadableVolumeError(path, fault, fix=fix)
    sizes = {int.from_bytes(content[:4], "little"): "<", int.from_bytes(content[:4], "big"): ">"}
    for size, header_class in ((348, nibabel.Nifti1Header), (540, nibabel.Nifti2Header)):
        if size in sizes:
            if len(content) < size:
                raise UnreadableVolumeError(path, "ends within its header", fix=AGAIN)
            header: Header = header_class(  # type: ignore[no-untyped-call]
                bytes(content[:size]), sizes[size], check=False
            )
            return header
    raise UnreadableVolumeError(path, "is not a NIfTI file", fix="convert it to NIfTI")


def _stored_shape(path: Path, header: Header) -> tuple[int, ...]:
    count = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1 : count + 1])
    if not shape or len(shape) != count or any(n <= 0 for n in shape):
        raise UnreadableVolumeError(
            path, f"has no voxels (dim: {count}D, shape {shape})", fix="export it again"
        )
    return shape


def _three_dimensions(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) < 3:
        raise UnreadableVolumeError(
            path,
            f"is {len(shape)}D (dim: shape {shape}), not one 3D scan",
            fix="export all slices as one 3D file",
        )
    if any(n != 1 for n in shape[3:]):
        raise UnreadableVolumeError(
            path,
            f"is {len(shape)}D (dim: shape {shape}), not one 3D scan",
            fix="split it into 3D files",
        )
    return shape[0], shape[1], shape[2]


def _voxels(
    path: Path, content: bytearray, header: Header, shape_XYZ: tuple[int, int, int]
) -> NDArray[Any]:
    """Return the scaled voxels, (Z, Y, X) in memory order, in place where nothing scales them."""
    if header["magic"].item() == header.pair_magic:
        raise UnreadableVolumeError(
            path, "is one half of an .hdr/.img pair", fix="convert the pair to one .nii.gz file"
        )
    dtype, start, _ = _layout(path, header, shape_XYZ)
    slope, inter = _scale(path, header)
    count = math.prod(shape_XYZ)
    held = max(0, len(content) - start) // dtype.itemsize
    if held < count:
        raise UnreadableVolumeError(
            path, f"holds {held} voxels, its header says {count} (dim)", fix=AGAIN
        )
    stored = np.frombuffer(content, dtype, count, start).reshape(shape_XYZ[::-1])
    if slope in (None, 1.0) and inter in (None, 0.0) and dtype.kind in "iu":
        return stored.astype(dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore", invalid="ignore"):
        voxels = stored.astype(np.float32)
        if slope is not None:
            voxels *= np.float32(slope)
            voxels += np.float32(inter)
    return voxels


def _layout(
    path: Path, header: Header, shape_XYZ: tuple[int, int, int]
) -> tuple[np.dtype[Any], int, int]:
    """Return the voxels' type, the byte where they start, and how many bytes they are."""
    from nibabel.spatialimages import HeaderDataError

    try:
        checked = header.copy()
        checked.check_fix(logger=MUTE)
        dtype = header.get_data_dtype()
        start = int(header.get_data_offset()) or int(header.single_vox_offset)
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise _damaged_header(path, str(error)) from error
    if start < 0:
        raise _damaged_header(path, f"vox_offset: its voxels start at byte {start}")
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "RGB"
        raise UnreadableVolumeError(
            path,
            f"holds {kind} voxels (datatype {int(header['datatype'])})",
            fix="export one real number per voxel",
        )
    return dtype, start, math.prod(shape_XYZ) * dtype.itemsize


def _scale(path: Path, header: Header) -> tuple[float | None, float | None]:
    from nibabel.spatialimages import HeaderDataError

    try:
        slope, inter = header.get_slope_inter()
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise _damaged_header(path, str(error)) from error
    return slope, inter


def _damaged_header(path: Path, fault: str) -> UnreadableVolumeError:
    return UnreadableVolumeError(path, f"its header is damaged ({fault})", fix="export it again")


@np.errstate(over="ignore", invalid="ignore")
def _made_finite(path: Path, voxels_ZYX: NDArray[np.float32], air: float) -> list[str]:
    """Put air where a voxel is not finite, and say so."""
    odd = 0
    for slice_YX in voxels_ZYX:
        if not np.isfinite(slice_YX.sum()):  # cheap; a sum may overflow where no voxel is odd
            wrong = ~np.isfinite(slice_YX)
            slice_YX[wrong] = air
            odd += int(wrong.sum())
    check_some_finite(path, odd, voxels_ZYX.size)
    return [f"{odd} voxels are not finite and count as air"] if odd else []
