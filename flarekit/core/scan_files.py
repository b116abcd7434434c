"""Scans and masks as files, whatever their format: NIfTI, MetaImage and NRRD, told by the ending.

All are read by this package: ITK, given a damaged header, ends the process or returns what was in
memory.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core import metaheader, metaimage, nifti, nrrd
from flarekit.core.errors import UnreadableVolumeError, UsageError
from flarekit.core.files import write_atomically
from flarekit.core.volume import Geometry, Volume, shear_notes

SCAN_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
MASK_ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")
_INTEGRAL = 1e-3  # what a header's slope may leave of an integer
_LARGEST = 255
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def ending_of(path: Path) -> str:
    """Return the ending of a scan's file, in lower case; empty where it is none of a scan."""
    name = path.name.lower()
    return next((ending for ending in SCAN_ENDINGS if name.endswith(ending)), "")


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do; False where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def stem_of(path: Path) -> str:
    """Return the name of a scan's file without its ending."""
    return path.name[: len(path.name) - len(ending_of(path))]


def read_scan(path: Path, *, air: float) -> Volume:
    """Read one 3D scan.

    Args:
        path: ends as one of `SCAN_ENDINGS`; any other file is taken for NIfTI.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: it is missing or damaged, or not one 3D scan of real numbers.
    """
    ending = ending_of(path)
    if ending in (".mha", ".mhd"):
        return metaimage.read_metaimage(path, air=air)
    if ending == ".nrrd":
        return nrrd.read_nrrd(path, air=air)
    return nifti.read_nifti(path, air=air)


def read_geometry(path: Path) -> Geometry:
    """Read only where a scan lies, of a damaged file as far as it can be saved.

    Args:
        path: ends as one of `SCAN_ENDINGS`; any other file is taken for NIfTI.

    Raises:
        UnreadableVolumeError: not even its header can be read.
    """
    ending = ending_of(path)
    if ending in (".mha", ".mhd"):
        return metaheader.read_header(path).geometry
    if ending == ".nrrd":
        header = nrrd.read_header(path)
        return Geometry(shape_ZYX=header.shape_ZYX, affine=header.affine, header=None)
    return nifti.read_geometry(path)


def volume_of_sitk(image: Any, path: Path, *, air: float) -> Volume:  # noqa: ANN401 - no types
    """Return a SimpleITK image as a volume.

    Args:
        image: 3D, of one real number per voxel.
        path: where it comes from, for messages.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: it is no such image.
    """
    import SimpleITK

    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        fault = (
            f"is {image.GetDimension()}D with {image.GetNumberOfComponentsPerPixel()} components, "
            "not one 3D scan"
        )
        raise UnreadableVolumeError(path, fault, fix="give one 3D image per channel")
    lps = np.eye(4)
    directions = np.array(image.GetDirection(), np.float64).reshape(3, 3)
    lps[:3, :3] = directions * np.array(image.GetSpacing())
    lps[:3, 3] = image.GetOrigin()
    stored = SimpleITK.GetArrayFromImage(image)
    if stored.dtype.kind not in "iuf":
        raise UnreadableVolumeError(path, f"holds {stored.dtype}", fix="give real numbers")
    voxels, notes = metaimage.usable(stored, path, air=air)
    z, y, x = voxels.shape
    geometry = Geometry(shape_ZYX=(z, y, x), affine=_TO_LPS @ lps, header=None)
    notes = (*shear_notes(geometry.affine), *notes)
    return Volume(voxels_ZYX=voxels, geometry=geometry, path=path, warnings=notes)


def sitk_of(voxels_ZYX: NDArray[Any], affine: NDArray[np.float64]) -> Any:  # noqa: ANN401
    """Return voxels as a SimpleITK image with the scan's spacing, origin and direction."""
    import SimpleITK

    lps = _TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels_ZYX))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def nifti_geometry(geometry: Geometry) -> Geometry:
    """Return a geometry as NIfTI's writer takes it: a header of NIfTI's own stays as it is."""
    if geometry.header is None or isinstance(geometry.header, metaheader.MetaHeader):
        return nifti.geometry_from(geometry.shape_ZYX, geometry.affine)
    return geometry


def write_mask(path: Path, label_map_ZYX: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write a mask that overlays its scan: uint8, with the scan's own header where formats agree.

    Args:
        path: ends as one of `MASK_ENDINGS`; its folder exists.
        label_map_ZYX: uint8, as the scan is stored.
        geometry: the scan's.

    Raises:
        UsageError: another ending.
        OutputError: it cannot be written.
    """
    ending = ending_of(path)
    if ending in (".nii", ".nii.gz"):
        nifti.write_label_map(path, label_map_ZYX, nifti_geometry(geometry))
    elif ending == ".mha":
        if not isinstance(geometry.header, metaheader.MetaHeader):
            geometry = metaheader.geometry_from(geometry.shape_ZYX, geometry.affine)
        metaimage.write_label_map(path, label_map_ZYX, geometry)
    elif ending == ".nrrd":
        import SimpleITK

        with tempfile.TemporaryDirectory(prefix="flarekit-mask-") as folder:
            whole = Path(folder, "mask.nrrd")
            image = sitk_of(label_map_ZYX, geometry.affine)
            SimpleITK.WriteImage(image, str(whole), useCompression=True)
            write_atomically(path, whole.read_bytes())
    else:
        raise UsageError(
            f"{path}: masks are written as {', '.join(MASK_ENDINGS)}", fix="name such a file"
        )


def write_scan(path: Path, volume: Volume) -> None:
    """Write a scan where it lies; integers stay integers, compressed without loss.

    Args:
        path: ends in .nii.gz or .mha; its folder exists.
        volume: as read.

    Raises:
        OutputError: it cannot be written.
    """
    voxels = volume.voxels_ZYX
    if voxels.dtype.itemsize == 8:  # no scan holds such numbers, and few programs read them
        voxels = voxels.astype(np.int32)
    with tempfile.TemporaryDirectory(prefix="flarekit-scan-") as folder:
        whole = Path(folder, f"scan{ending_of(path)}")
        if ending_of(path) == ".mha":
            import SimpleITK

            image = sitk_of(voxels, volume.geometry.affine)
            SimpleITK.WriteImage(image, str(whole), useCompression=True)
        else:
            import nibabel

            nibabel.save(nibabel.Nifti1Image(voxels.T, volume.geometry.affine), whole)
        write_atomically(path, whole.read_bytes())


def labels_in(path: Path, voxels_ZYX: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the labels that a mask's voxels hold, as they are: nothing is rounded or cut off.

    Args:
        path: of the mask.
        voxels_ZYX: as they were read.

    Raises:
        UnreadableVolumeError: they are anything but whole numbers from 0 to 255.
    """
    if voxels_ZYX.dtype == np.uint8:
        return voxels_ZYX
    low, high = voxels_ZYX.min(), voxels_ZYX.max()
    if np.isnan(low):
        raise UnreadableVolumeError(
            path, "is not a label map: some voxels are not finite", fix="labels are 0 to 255"
        )
    if not (low >= 0 and high <= _LARGEST):
        raise UnreadableVolumeError(
            path, f"is not a label map: it holds {low:g} to {high:g}", fix="labels are 0 to 255"
        )
    if voxels_ZYX.dtype.kind == "f":
        rounded = np.rint(voxels_ZYX)
        if float(np.abs(voxels_ZYX - rounded).max()) > _INTEGRAL:
            raise UnreadableVolumeError(
                path,
                "is not a label map: it holds fractions",
                fix="decide the labels first; resample masks to the nearest value",
            )
        voxels_ZYX = rounded
    return voxels_ZYX.astype(np.uint8)
