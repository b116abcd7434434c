"""Stacked masks, and what can be wrong with them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.uls23 import SHAPE_ZYX
from flarekit.conventions.uls23.samples import IMAGES, SPACINGS
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.metaheader import MetaHeader, read_header
from flarekit.core.metaimage import SliceReader
from flarekit.verification.check import Finding, skip, verdict_of, warn
from flarekit.verification.trials import ImageUnderTest, TrialResult

OUTPUT = "images/ct-binary-uls"
_Mask = NDArray[Any]
_FAR_MM = 25.0  # from the centre; the generated lesions have radii of 8 to 15 mm
_NEAR_MM = 1e-3
_PIECE = 64  # slices


class UnjudgedError(Exception):
    """A run has left nothing that the question could be asked of; another check says why."""


def judged(look: Callable[[ImageUnderTest], Finding]) -> Callable[[ImageUnderTest], Finding]:
    """Return a look that is skipped where there is nothing to look at."""

    @wraps(look)
    def looked(image: ImageUnderTest) -> Finding:
        try:
            return look(image)
        except UnjudgedError as error:
            return skip(str(error))

    return looked


@dataclass(frozen=True, kw_only=True)
class Masks:
    """The masks that a run has written, as many as it got volumes.

    Attributes:
        path: of their file.
        header: of that file.
        spacings_mm_ZYX: of the volumes.
    """

    path: Path
    header: MetaHeader
    spacings_mm_ZYX: Sequence[tuple[float, float, float]]

    def __iter__(self) -> Iterator[_Mask]:
        """Read one mask after the other, (Z, Y, X), as stored."""
        depth = SHAPE_ZYX[0]
        with SliceReader(self.path, self.header) as reader:
            for index in range(len(self.spacings_mm_ZYX)):
                yield reader.read(index * depth, depth)


def read_masks(trial: TrialResult) -> Masks:
    """Return the masks of a trial.

    Raises:
        UnjudgedError: there are none that can be told apart.
    """
    if trial.failure is not None:
        raise UnjudgedError(f"the run fails ({trial.failure})")
    path = _mask_file(trial)
    if path is None:
        raise UnjudgedError("which file is the mask is not clear: see output_tree")
    try:
        header = read_header(path)
    except UnreadableVolumeError as error:
        raise UnjudgedError("the mask cannot be read: see stored_type") from error
    if header.shape_ZYX != read_header(_scan(trial)).shape_ZYX:
        raise UnjudgedError("the mask has another size: see geometry")
    spacings = json.loads((trial.inputs / SPACINGS).read_text())
    return Masks(path=path, header=header, spacings_mm_ZYX=[(z, y, x) for x, y, z in spacings])


def _scan(trial: TrialResult) -> Path:
    """Return the stack that a trial has read."""
    return next((trial.inputs / IMAGES).glob("*.mha"))


def _mask_file(trial: TrialResult) -> Path | None:
    """Return the mask; where it has not the right name, the only image that was written."""
    wanted = f"{OUTPUT}/{_scan(trial).name}"
    found = [name for name in trial.files if name.endswith(".mha")]
    if wanted in found:
        return trial.outputs / wanted
    return trial.outputs / found[0] if len(found) == 1 else None


def tree_faults(trial: TrialResult) -> list[str]:
    """Return what is missing in the output folder, and what is too much."""
    wanted = f"{OUTPUT}/{_scan(trial).name}"
    missing = [] if wanted in trial.files else [f"no {wanted}"]
    return missing + [f"wrote {name} too" for name in trial.files if name != wanted]


def type_faults(trial: TrialResult) -> Iterator[str]:
    """Yield what is wrong with how masks are stored: damage, type, values."""
    path = _mask_file(trial)
    if path is None:
        return
    try:
        header = read_header(path)
        found = _values(path, header)
    except UnreadableVolumeError as error:
        yield f"{path.name} {error.fault}"
        return
    if header.dtype != np.uint8:
        yield f"{path.name} is {header.dtype.name}"
    if odd := sorted(found - {0, 1}):
        yield f"{path.name} holds {', '.join(f'{value:g}' for value in odd[:5])}"


def _values(path: Path, header: MetaHeader) -> set[float]:
    count = header.shape_ZYX[0]
    found: set[float] = set()
    with SliceReader(path, header) as reader:
        for start in range(0, count, _PIECE):
            piece = reader.read(start, min(_PIECE, count - start))
            found.update(np.unique(piece).tolist())
    return found


def grid_faults(trial: TrialResult) -> Iterator[str]:
    """Yield in what the masks' grid is not the stack's; shapes are (x, y, z)."""
    path = _mask_file(trial)
    if path is None:
        return
    try:
        mask = read_header(path)
    except UnreadableVolumeError:
        return  # which `type_faults` tells
    scan = read_header(_scan(trial))
    if mask.shape_ZYX != scan.shape_ZYX:
        shapes = (" x ".join(map(str, each.shape_ZYX[::-1])) for each in (mask, scan))
        yield " voxels for ".join(shapes)
    elif not np.allclose(mask.affine, scan.affine, rtol=0, atol=_NEAR_MM):
        worst = np.abs(mask.affine - scan.affine).max()
        yield f"spacing, direction or origin are not the stack's (up to {worst:.3g} mm off)"


def components(masks: Masks) -> Finding:
    """Return whether each volume has one component, touching by corners at least."""
    import cc3d

    faults, loose = [], []
    for index, mask in enumerate(masks):
        lesion = np.ascontiguousarray(mask != 0)
        _, count = cc3d.connected_components(lesion, connectivity=26, return_N=True)
        _, by_faces = cc3d.connected_components(lesion, connectivity=6, return_N=True)
        if count != 1:
            faults.append(f"volume {index} has {count or 'no'} components")
        elif by_faces != 1:
            loose.append(f"volume {index} has {by_faces} parts that touch by edges or corners only")
    return warn("; ".join(loose)) if loose and not faults else verdict_of(faults)


def far_faults(masks: Masks) -> Iterator[str]:
    """Yield which masks are nowhere near the centre of their volume."""
    for index, (mask, spacing_mm) in enumerate(zip(masks, masks.spacings_mm_ZYX, strict=True)):
        places = np.nonzero(mask)
        if not places[0].size:
            continue  # which `components` tells
        offsets = [
            (axis - count // 2) * mm
            for axis, count, mm in zip(places, mask.shape, spacing_mm, strict=True)
        ]
        nearest_mm = float(np.sqrt(np.sum(np.square(offsets), axis=0).min()))
        if nearest_mm > _FAR_MM:
            yield f"volume {index}: the mask begins {nearest_mm:.0f} mm from the centre"


def dice(one: _Mask, other: _Mask) -> float:
    """Return the Dice coefficient of two masks; 1 where both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero((one != 0) & (other != 0)) / total if total else 1.0
