"""Cases of files with lines: one for each line, one for a file that cannot be used."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions import Case
from flarekit.conventions.flare_recist import IMAGE, LINES, MASKS, SPACING
from flarekit.conventions.flare_recist.lines import Line, find_lines
from flarekit.conventions.flare_recist.npz import MOST_VOXELS, NpzFile
from flarekit.conventions.flare_recist.scan import Box, LineScan, MaskFile, spacing_of
from flarekit.core.errors import InputError
from flarekit.core.volume import Geometry


@dataclass(frozen=True, kw_only=True)
class BoxGeometry(Geometry):
    """Where the voxels that a predictor sees lie in their CT.

    Attributes:
        inside: the box of the CT that they show.
        placed: where in what a predictor sees that box is; the rest lies beyond the CT.
        visible: whether the CT shows anything along the line.
    """

    inside: Box
    placed: Box
    visible: bool


@dataclass(frozen=True, kw_only=True)
class LineCase(Case):
    """One lesion of a file.

    Attributes:
        index: of its line.
        line: None in a file without lines.
        scan: the CT, shared by all lesions of the file.
        masks: where its mask goes, shared by all lesions of the file.
        notes: what is odd about the file.
        measured: what is known of the mask once it is written.
    """

    index: int
    line: Line | None
    scan: LineScan
    masks: MaskFile
    notes: tuple[str, ...] = ()
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DamagedCase(Case):
    """A file that cannot be used.

    Attributes:
        error: why.
    """

    error: InputError


def is_input(path: Path) -> bool:
    """Tell whether a file of the input folder is one of the organiser's."""
    is_named = path.suffix == ".npz" and not path.name.startswith(".")
    return is_named and not path.is_dir()


def plain_case(path: Path, channel_count: int) -> dict[str, Any]:
    """Return what every case of a file has."""
    return {"case_id": path.stem, "channels": (path,) * channel_count, "mask": Path(path.name)}


def line_cases(path: Path, channel_count: int) -> list[Case]:
    """Return a case for each line of a file; one without a line where it has none."""
    file = NpzFile(path)
    scan = LineScan(file)
    header = file.header(LINES)
    if header.shape != scan.shape_ZYX:
        sizes = [" x ".join(map(str, shape)) for shape in (header.shape, scan.shape_ZYX)]
        raise InputError(
            f"{path}: its array {LINES!r} is {sizes[0]}, {IMAGE!r} {sizes[1]}",
            fix="draw the lines on the grid of the CT",
        )
    spacing, spacing_notes = spacing_of(file)
    lines, line_notes = find_lines(file, LINES, spacing)
    stated = file.small(SPACING, 3)
    z, y, x = spacing
    masks = MaskFile(
        shape_ZYX=scan.shape_ZYX,
        spacing_mm_ZYX=spacing,
        stated={SPACING: np.array([x, y, z]) if stated is None else stated},
        lines=lines,
        scan=scan,
    )
    plain = plain_case(path, channel_count)
    shared = {"scan": scan, "masks": masks, "notes": (*spacing_notes, *line_notes)}
    if not lines:
        return [LineCase(**plain, **shared, index=0, line=None)]  # type: ignore[arg-type]
    return [
        LineCase(
            **(plain | {"case_id": f"{path.stem}_lesion_{line.value}"}),
            **shared,  # type: ignore[arg-type]
            index=index,
            line=line,
        )
        for index, line in enumerate(lines)
    ]


def empty_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return zeros of the shape that a damaged file states, as far as it does."""
    file = NpzFile(path)
    arrays: dict[str, NDArray[Any]] = {MASKS: np.zeros((1, 1, 1), np.uint8)}
    for name in (IMAGE, LINES):
        try:
            header = file.header(name)
        except InputError:
            continue
        if len(header.shape) == 3 and header.count <= MOST_VOXELS:
            arrays[MASKS] = np.zeros(header.shape, np.uint8)
            break
    try:
        spacing, _ = spacing_of(file)
    except InputError:
        spacing = (1.0, 1.0, 1.0)
    return arrays | {SPACING: np.array(spacing[::-1])}
