"""What all of grand-challenge.org's algorithms share: one image per folder, JSON beside them."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.content import could_hold
from flarekit.core.errors import InputError, UnreadableVolumeError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.json_files import parse_json
from flarekit.core.metaheader import blank_geometry, geometry_from, read_header
from flarekit.core.metaimage import read_metaimage, usable, write_label_map
from flarekit.core.text_files import read_text
from flarekit.core.volume import Geometry, Volume

AIR_HU = -1024.0
_MOST_VOXELS = 2**29  # a header that claims more is not believed


def images_in(folder: Path, suffixes: Sequence[str] = (".mha",)) -> list[Path]:
    """Return the images of a folder, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )


def only_image(folder: Path, suffixes: Sequence[str] = (".mha",)) -> Path:
    """Return the one image of a folder.

    Raises:
        InputError: there is none, or more than one.
    """
    images = images_in(folder, suffixes)
    if len(images) == 1:
        return images[0]
    kinds = " or ".join(f"*{suffix}" for suffix in suffixes)
    if images:
        listed = ", ".join(path.name for path in images[:5])
        raise InputError(
            f"{folder}: holds {len(images)} images ({listed})",
            fix="put exactly one there: the platform runs one case at a time",
        )
    raise InputError(f"{folder}: no file named {kinds}", fix="put the case's image there")


def read_image(path: Path, *, air: float) -> Volume:
    """Read one 3D scan, .mha or TIFF.

    Args:
        path: of the image.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: it is missing or damaged, or not one 3D scan.
    """
    if path.suffix.lower() == ".mha":
        return read_metaimage(path, air=air)
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        fault = f"is not readable as TIFF ({str(error).strip().splitlines()[-1]})"
        raise UnreadableVolumeError(path, fault, fix="export it again") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise UnreadableVolumeError(path, "is not one 3D scan", fix="write it as one .mha file")
    voxels, notes = usable(SimpleITK.GetArrayFromImage(image), path, air=air)
    x_mm, y_mm, z_mm = image.GetSpacing()
    z, y, x = voxels.shape
    geometry = geometry_from((z, y, x), np.diag([-x_mm, -y_mm, z_mm, 1.0]))
    return Volume(voxels_ZYX=voxels, geometry=geometry, path=path, warnings=notes)


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is anything
    """Return what a JSON file holds.

    Raises:
        InputError: it cannot be read, or is not JSON.
    """
    text = read_text(path, fix="check path and permissions")
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON: {error}", fix="export it again") from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, the folders above it too.

    Raises:
        ValueError: it holds NaN or infinity, which JSON does not have.
        OutputError: it could not be written.
    """
    make_folder(path.parent)
    write_atomically(path, (json.dumps(content, allow_nan=False) + "\n").encode())


def write_mask(path: Path, mask_ZYX: NDArray[Any], geometry: Geometry) -> Path:
    """Write a mask as .mha, the folders above it too, and return its path.

    Raises:
        OutputError: it could not be written.
    """
    make_folder(path.parent)
    write_label_map(path, mask_ZYX.astype(np.uint8, copy=False), geometry)
    return path


def geometry_of_first_readable(paths: Sequence[Path]) -> Geometry:
    """Return the geometry of the first file whose header makes sense, else of a single voxel."""
    for path in paths:
        try:
            geometry = read_header(path).geometry
        except UnreadableVolumeError:
            continue
        voxels = math.prod(geometry.shape_ZYX)
        if voxels <= _MOST_VOXELS and could_hold(path, voxels):
            return geometry
    return blank_geometry()
