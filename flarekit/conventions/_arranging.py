"""Scans laid out as an organiser's platform lays them out, and masks brought back to their names.

`arranged.json` beside what was laid out says which mask belongs to which scan.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

import numpy as np
from pydantic import Field

from flarekit.core.errors import InputError, OutputError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.json_files import read_json, typed
from flarekit.core.names import path_within
from flarekit.core.same_grid import grid_difference
from flarekit.core.scan_files import (
    MASK_ENDINGS,
    ending_of,
    labels_in,
    read_geometry,
    read_scan,
    stem_of,
    write_mask,
)
from flarekit.core.tables import Table
from flarekit.core.volume import Geometry, Volume, spans_space

MANIFEST = "arranged.json"
_MOST_NAMED = 5
_ROUNDED_MM = 1e-3  # as flarekit verify takes it
_SAME_GRID_VOXELS = 0.01  # headers round: closer than this is the same grid
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ScanToPlace:
    """A scan that is to be laid out.

    Attributes:
        name: safe as that of a file or folder, and no other scan's.
        mask: what its mask will be called when it is collected, relative to a folder.
        read: gives its channels on one grid.
        files: of the channels, where each is one file; they may be copied as they are.
    """

    name: str
    mask: Path
    read: Callable[[], Sequence[Volume]]
    files: tuple[Path, ...] = ()


Affine = Annotated[tuple[tuple[float, float, float, float], ...], Field(min_length=4, max_length=4)]


class Grid(Table):
    """Which voxels a file has.

    Attributes:
        shape_ZYX: how many along each stored axis.
        affine: (4, 4) rows, stored index (i, j, k, 1) -> mm, RAS+.
    """

    shape_ZYX: tuple[int, int, int]
    affine: Affine

    @classmethod
    def of_file(cls, path: Path) -> Grid:
        """Return the grid of a scan's file.

        Raises:
            InputError: it cannot be read.
        """
        geometry = read_geometry(path)
        rows = [tuple(row) for row in geometry.affine.tolist()]
        return cls.model_validate({"shape_ZYX": geometry.shape_ZYX, "affine": tuple(rows)})


class Placed(Table):
    """Where a scan was laid out, and how its mask is found again.

    Attributes:
        mask: what its mask will be called, relative to a folder.
        job: the folder of its job; empty where there is one job.
        stem: the name of the mask's file, without its ending.
        first_slice: of its part of a stack; None where the mask is a file of its own.
        shape_ZYX: voxels of that part.
        affine: (4, 4) rows, of that part: index (i, j, k, 1) -> mm, RAS+.
        grid: of the file that was laid out, and so of its mask; lists of version 0.2 have none.
    """

    mask: str
    job: str = ""
    stem: str
    first_slice: int | None = Field(default=None, ge=0)
    shape_ZYX: tuple[int, int, int] | None = None
    affine: Affine | None = None
    grid: Grid | None = None


class Arranging(Protocol):
    """The module `arrange` of a convention that scans can be laid out for.

    Attributes:
        CHANNELS: names of a scan's channels; empty where there may be any number.
    """

    CHANNELS: tuple[str, ...]

    def arrange(self, scans: Sequence[ScanToPlace], folder: Path) -> list[Placed]:
        """Lay scans out in a folder that is there and empty.

        Raises:
            InputError: a scan cannot be read, or is not what the organiser takes.
            OutputError: it cannot be written.
        """
        ...


class _Manifest(Table):
    convention: str
    scans: tuple[Placed, ...]


def job_folders(
    scans: Sequence[ScanToPlace], folder: Path
) -> Iterator[tuple[ScanToPlace, Path, str]]:
    """Yield each scan with the folder of its job and that folder's name: the only one has none."""
    for scan in scans:
        name = "" if len(scans) == 1 else scan.name
        yield scan, folder / name, name


def write_manifest(folder: Path, convention: str, placed: Sequence[Placed]) -> None:
    """Write what was laid out where.

    Raises:
        OutputError: it cannot be written.
    """
    content = _Manifest(convention=convention, scans=tuple(placed)).model_dump_json(indent=1)
    write_atomically(folder / MANIFEST, f"{content}\n".encode())


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Masks that were brought back, and a sentence for each that was not."""

    masks: tuple[Path, ...]
    missing: tuple[str, ...]


def collect(masks: Path, arranged: Path, output_dir: Path) -> Collected:
    """Bring masks back to the names, places and formats of the scans that were laid out.

    Args:
        masks: output folder of the image or run that segmented them.
        arranged: folder that they were laid out in, with its `arranged.json`.
        output_dir: made where it is missing.

    Returns:
        The masks that were written, and what is missing or damaged.

    Raises:
        InputError: there is no such list, or it names paths outside the folder.
        OutputError: a mask cannot be written.
    """
    path = arranged / MANIFEST
    if not path.is_file():
        raise InputError(
            f"{arranged}: holds no {MANIFEST}", fix="name the folder that flarekit arrange made"
        )
    if not masks.is_dir():
        raise InputError(f"{masks}: is not a folder", fix="name the output folder of the run")
    manifest = typed(_Manifest, read_json(path), source=path)
    targets = [path_within(output_dir, each.mask, source=path) for each in manifest.scans]
    if len(set(targets)) != len(targets):
        raise InputError(f"{path}: two scans name the same mask", fix="arrange once more")
    written, missing = [], []
    for placed, target in zip(manifest.scans, targets, strict=True):
        if ending_of(target) not in MASK_ENDINGS:
            raise InputError(f"{path}: {target.name} is not a mask's name", fix="arrange once more")
        job = masks if not placed.job else path_within(masks, placed.job, source=path)
        try:
            volume = _mask_of(placed, job)
            labels_ZYX = labels_in(volume.path, volume.voxels_ZYX)
        except InputError as error:
            missing.append(f"{placed.mask}: {error}")
            continue
        make_folder(target.parent)
        write_mask(target, labels_ZYX, volume.geometry)
        written.append(target)
    return Collected(masks=tuple(written), missing=tuple(missing))


def _mask_of(placed: Placed, job: Path) -> Volume:
    """Read the mask of a scan, or its part of a stack of masks."""
    found = [
        path
        for path in (sorted(job.rglob("*")) if job.is_dir() else ())
        if ending_of(path) in MASK_ENDINGS and stem_of(path) == placed.stem and path.is_file()
    ]
    if len(found) != 1:
        listed = f" ({', '.join(str(path.relative_to(job)) for path in found[:_MOST_NAMED])})"
        raise InputError(
            f"{job}: holds {len(found) or 'no'} masks named {placed.stem}{listed if found else ''}",
            fix="name the output folder of the run",
        )
    volume = read_scan(found[0], air=math.nan)  # no label: refused
    _check_grid(placed, volume)
    if placed.first_slice is None or placed.shape_ZYX is None or placed.affine is None:
        return volume
    z, y, x = placed.shape_ZYX
    part = volume.voxels_ZYX[placed.first_slice : placed.first_slice + z]
    if part.shape != (z, y, x):
        raise InputError(
            f"{found[0]}: ends before the part of {placed.mask}", fix="run the stack again"
        )
    geometry = _geometry(placed, (z, y, x), placed.affine)
    return Volume(voxels_ZYX=part, geometry=geometry, path=found[0])


def _check_grid(placed: Placed, mask: Volume) -> None:
    """Refuse a mask whose voxels are not those of the scan that was laid out."""
    if placed.grid is None:
        _LOG.warning(
            "%s: %s does not say which voxels its scan has, so they are not compared",
            mask.path,
            MANIFEST,
        )
        return
    scan = _geometry(placed, placed.grid.shape_ZYX, placed.grid.affine)
    near = np.allclose(mask.geometry.affine, scan.affine, rtol=0, atol=_ROUNDED_MM)
    if near and mask.geometry.shape_ZYX == scan.shape_ZYX:
        return
    most_mm = _SAME_GRID_VOXELS * min(scan.spacing_mm_ZYX)
    difference = grid_difference(mask.geometry, scan, most_mm)
    if difference:
        raise InputError(
            f"{mask.path}: lies on another grid than the scan that was laid out: {difference}",
            fix="write masks with the voxels, spacing, directions and origin of the scan",
        )


def _geometry(placed: Placed, shape_ZYX: tuple[int, int, int], rows: Affine) -> Geometry:
    affine = np.array(rows, np.float64)
    if not spans_space(affine) or affine[3].tolist() != [0, 0, 0, 1]:
        raise InputError(
            f"{MANIFEST}: the affine of {placed.mask} is not one of a scan", fix="arrange once more"
        )
    return Geometry(shape_ZYX=shape_ZYX, affine=affine, header=None)


def refuse_filled(folder: Path) -> None:
    """Refuse a folder that holds something: what lies there would be taken for scans.

    Raises:
        OutputError: it holds something, or cannot be made.
    """
    make_folder(folder)
    if any(folder.iterdir()):
        raise OutputError(f"{folder}: is not empty", fix="name another folder, or empty it")


def names_of(folder: Path) -> str:
    """Return what a folder holds, in words, for messages: the first files below it."""
    files = [
        path.relative_to(folder)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]
    if not files:
        return "it holds no files"
    more = f" and {len(files) - _MOST_NAMED} more" if len(files) > _MOST_NAMED else ""
    return f"found {', '.join(map(str, files[:_MOST_NAMED]))}{more}"
