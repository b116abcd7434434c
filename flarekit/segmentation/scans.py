"""What people hold in their hands: paths, arrays, nibabel and SimpleITK images become volumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import onto
from flarekit.core.channels import Channel
from flarekit.core.errors import InputError, UsageError
from flarekit.core.metaimage import usable
from flarekit.core.nifti_affine import mm_per_unit
from flarekit.core.scan_files import read_scan, volume_of_sitk
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Volume
from flarekit.segmentation.memory import Memory, reading_mib

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

One: TypeAlias = Any  # a path, an array, a nibabel or a SimpleITK image: none can be named lightly
Scan: TypeAlias = One | Sequence[One]
Axes = Literal["xyz", "zyx"]


@dataclass(frozen=True, kw_only=True)
class ScanInput:
    """A scan as somebody gave it.

    Attributes:
        read: gives its volumes, one per channel, on one grid.
        axes: order of the axes in which it came, and in which labels go back.
        files: those it is read from; none for arrays and images.
        image: the image whose voxels the labels have; None for paths and arrays.
    """

    read: Callable[[], list[Volume]]
    axes: Axes
    files: tuple[Path, ...] = ()
    image: Any = None

    def check_memory(self, memory: Memory) -> None:
        """Refuse files that do not fit into memory, before they are read.

        Raises:
            BudgetError: they do not fit.
        """
        if memory.budget_mib is not None and self.files:
            memory.check(reading_mib(self.files), f"reading {self.files[0]}")


def scan_input(
    scan: Scan,
    spec: PredictorSpec,
    *,
    spacing_mm: ArrayLike | None = None,
    affine: ArrayLike | None = None,
) -> ScanInput:
    """Tell what a scan is; files are not read yet.

    Args:
        scan: see `Segmenter.segment`; or a `ScanInput`, which is returned as it is.
        spec: of the predictor that will see it.
        spacing_mm: (Z, Y, X), of arrays.
        affine: (4, 4), of arrays, index (x, y, z, 1) -> mm, RAS+.

    Raises:
        UsageError: no scan, a wrong number of channels, or an array without its geometry.
        InputError: an array that no scan can be.
    """
    if isinstance(scan, ScanInput):  # somebody else knows how to read it
        return scan
    channels = _channels(scan, len(spec.channels))
    if len(channels) != len(spec.channels):
        names = ", ".join(channel.name for channel in spec.channels)
        raise UsageError(
            f"{len(channels)} channels given, {spec.name} takes {len(spec.channels)} ({names})",
            fix="give a list with one scan per channel, in that order",
        )
    kinds = {_kind(each) for each in channels}
    if len(kinds) > 1:
        raise UsageError(
            f"the channels are of several kinds ({', '.join(sorted(kinds))})",
            fix="give all of them as paths, as arrays or as images",
        )
    (kind,) = kinds
    if kind != "array" and (spacing_mm is not None or affine is not None):
        raise UsageError(
            f"a {kind} has its own geometry: spacing_mm and affine are for arrays",
            fix="leave them out, or give the voxels as an array",
        )
    grid = _array_affine(spacing_mm, affine) if kind == "array" else None
    readers = [
        _reader(kind, each, channel, grid)
        for each, channel in zip(channels, spec.channels, strict=True)
    ]
    leading = leading_channel(spec.channels)
    return ScanInput(
        read=lambda: on_one_grid(readers, spec.channels, leading),
        axes="xyz" if kind in ("path", "nibabel image") else "zyx",
        files=tuple(Path(each) for each in channels) if kind == "path" else (),
        image=channels[leading] if kind.endswith("image") else None,
    )


def _channels(scan: Scan, count: int) -> list[One]:
    if isinstance(scan, list | tuple):
        return list(scan)
    if isinstance(scan, np.ndarray) and scan.ndim == 4 and (count > 1 or len(scan) == 1):
        return list(scan)
    return [scan]


def _kind(scan: One) -> str:
    if isinstance(scan, str | os.PathLike):
        return "path"
    module = type(scan).__module__.partition(".")[0]
    if module == "nibabel" or hasattr(scan, "dataobj"):
        return "nibabel image"
    if module == "SimpleITK":
        return "SimpleITK image"
    if hasattr(scan, "__array__"):
        return "array"
    raise UsageError(
        f"{type(scan).__name__} is not a scan",
        fix="give a path, a NumPy array, a nibabel or a SimpleITK image, or a list of channels",
    )


def _reader(
    kind: str, scan: One, channel: Channel, grid: NDArray[np.float64] | None
) -> Callable[[], Volume]:
    air = channel.air
    if kind == "path":
        return lambda: _read(Path(scan), air)
    if kind == "nibabel image":
        return lambda: _of_nibabel(scan, air)
    if kind == "SimpleITK image":
        return lambda: _of_sitk(scan, air)
    assert grid is not None
    return lambda: _volume(np.asarray(scan), grid, "the array", air)


def leading_channel(channels: Sequence[Channel]) -> int:
    """Return the channel whose voxels the labels have: a PET's, or the first one's."""
    return next((k for k, channel in enumerate(channels) if channel.is_uptake), 0)


def on_one_grid(
    readers: Sequence[Callable[[], Volume]], channels: Sequence[Channel], leading: int
) -> list[Volume]:
    """Read all channels; those that lie elsewhere are brought onto the leading one's voxels."""
    volumes = [read() for read in readers]
    reference = volumes[leading].geometry
    moved = [
        onto(volume, reference, outside=channel.air)
        for volume, channel in zip(volumes, channels, strict=True)
    ]
    moved[leading] = volumes[leading]
    return moved


def _read(path: Path, air: float) -> Volume:
    if path.is_dir():
        raise InputError(
            f"{path}: is a folder, not one scan",
            fix="name a file; flarekit.predict segments folders of scans and DICOM series",
        )
    return read_scan(path, air=air)


def _of_nibabel(image: Any, air: float) -> Volume:  # noqa: ANN401 - nibabel carries no types
    stored = image.dataobj
    if hasattr(stored, "get_unscaled"):  # a file's: the same arithmetic as when it is read
        slope, inter = float(stored.slope), float(stored.inter)
        voxels = np.asanyarray(stored.get_unscaled())
        if (slope, inter) != (1.0, 0.0):
            voxels = voxels.astype(np.float32) * np.float32(slope) + np.float32(inter)
    else:
        voxels = np.asanyarray(stored)
    while voxels.ndim > 3 and voxels.shape[-1] == 1:
        voxels = voxels[..., 0]
    affine = np.array(image.affine, np.float64)
    header = image.header
    if _is_nifti(header):
        affine[:3] *= mm_per_unit(header)
    volume = _volume(voxels.T, affine, "the nibabel image", air)
    if not _is_nifti(header) or not np.allclose(header.get_best_affine(), image.affine):
        return volume
    return replace(volume, geometry=replace(volume.geometry, header=header))


def _is_nifti(header: Any) -> bool:  # noqa: ANN401
    import nibabel

    return isinstance(header, nibabel.Nifti1Header)


def _of_sitk(image: Any, air: float) -> Volume:  # noqa: ANN401 - SimpleITK carries no types
    return volume_of_sitk(image, Path("the SimpleITK image"), air=air)


def _array_affine(spacing_mm: ArrayLike | None, affine: ArrayLike | None) -> NDArray[np.float64]:
    if (spacing_mm is None) == (affine is None):
        raise UsageError(
            "an array needs its geometry: "
            + ("neither spacing_mm nor affine is given" if affine is None else "both are given"),
            fix="give spacing_mm=(Z, Y, X) in mm, or affine=(4, 4) from (x, y, z) to mm in RAS",
        )
    if affine is not None:
        matrix = np.array(affine, np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise UsageError(
                f"affine has shape {matrix.shape} or holds what is not a number",
                fix="give a (4, 4) matrix from (x, y, z, 1) to mm, RAS",
            )
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        if (lengths == 0).any() or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-3:
            raise UsageError(
                "affine is singular: its axes do not span the space",
                fix="give a (4, 4) matrix from (x, y, z, 1) to mm, RAS",
            )
        return matrix
    spacing = np.array(spacing_mm, np.float64)
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise UsageError(
            f"spacing_mm {spacing_mm!r} is not three positive numbers",
            fix="give the distances between voxels along (Z, Y, X), in mm",
        )
    z, y, x = spacing
    return np.diag([-x, -y, z, 1.0])  # X towards left, Y towards posterior


def _volume(voxels_ZYX: NDArray[Any], affine: NDArray[np.float64], name: str, air: float) -> Volume:
    if voxels_ZYX.ndim != 3 or 0 in voxels_ZYX.shape:
        raise InputError(
            f"{name} has shape {voxels_ZYX.shape}, not three axes with voxels along each",
            fix="give one 3D volume per channel",
        )
    if voxels_ZYX.dtype == np.bool_:
        voxels_ZYX = voxels_ZYX.view(np.uint8)
    if voxels_ZYX.dtype.kind not in "iuf":
        raise InputError(
            f"{name} holds {voxels_ZYX.dtype}, not real numbers", fix="give integers or floats"
        )
    voxels, notes = usable(voxels_ZYX, Path(name), air=air)
    z, y, x = voxels.shape
    geometry = Geometry(shape_ZYX=(z, y, x), affine=affine, header=None)
    return Volume(voxels_ZYX=voxels, geometry=geometry, path=Path(name), warnings=notes)
