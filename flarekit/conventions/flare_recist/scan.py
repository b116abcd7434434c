"""The CT of a file, read once for all of its lesions, and the masks that become one file."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.flare_recist import IMAGE, MASKS, SPACING
from flarekit.conventions.flare_recist.lines import Line
from flarekit.conventions.flare_recist.npz import NpzFile, write_npz
from flarekit.core.content import check_some_finite
from flarekit.core.errors import InputError
from flarekit.core.line import distances_mm
from flarekit.core.plausible import is_spacing

Box = tuple[slice, slice, slice]
_Spacing = tuple[float, float, float]
_BRIGHTEST = 255
_ONE_BYTE = 255
_LOWEST, _HIGHEST = -32768, 32767  # of 16 bits
WINDOWS_HU = ((-160.0, 240.0), (-1000.0, 400.0), (-1350.0, 150.0))  # which CTs are stored with
_LUNG_HU, _BODY_HU, _FAT_HU = (-1000.0, -650.0), (-200.0, 110.0), 10.0
_FAT_PER_BLACK = 2.75
_SAMPLED = 1 << 21  # voxels whose histogram tells enough


class LineScan:
    """The CT of a file; threads may share it. It is read when its first lesion is asked for."""

    def __init__(self, file: NpzFile) -> None:
        """Look at the header.

        Raises:
            InputError: there is no CT of three axes in the file.
        """
        self._file = file
        header = file.header(IMAGE)
        if len(header.shape) != 3 or 0 in header.shape:
            sizes = " x ".join(map(str, header.shape)) or "one number"
            raise InputError(
                f"{file.path}: its array {IMAGE!r} is {sizes}, no volume of three axes",
                fix="store (D, H, W)",
            )
        z, y, x = header.shape
        self.shape_ZYX = (z, y, x)
        self._header = header
        self._voxels: NDArray[np.generic] | None = None
        self._notes: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def voxels(self) -> NDArray[Any]:
        """Return the whole CT, uint8; or int16 where it holds anything but 0 to 255.

        Raises:
            InputError: the file ends before it, or is damaged; or it lies between 0 and 1.
        """
        with self._lock:
            if self._voxels is None:
                self._voxels = self._read()
            return self._voxels

    @property
    def notes(self) -> tuple[str, ...]:
        """What was odd about the values, once they were read."""
        return self._notes

    def release(self) -> None:
        """Give the voxels back."""
        with self._lock:
            self._voxels = None

    def _read(self) -> NDArray[np.generic]:
        flat: NDArray[Any] = np.empty(self._header.count, np.uint8)
        start, highest, odd, beyond = 0, 0.0, 0, 0
        for piece in self._file.pieces(IMAGE):
            if piece.dtype != np.uint8:
                finite = np.isfinite(piece)
                odd += int(np.count_nonzero(~finite))
                known = np.where(finite, piece, 0)
                beyond += int(np.count_nonzero((known < _LOWEST) | (known > _HIGHEST)))
                highest = max(highest, float(known.max()))
                piece = np.clip(np.rint(known), _LOWEST, _HIGHEST).astype(np.int16)
                if flat.dtype == np.uint8 and (piece.min() < 0 or piece.max() > _BRIGHTEST):
                    flat = flat.astype(np.int16)
            flat[start : start + len(piece)] = piece
            start += len(piece)
        check_some_finite(self._file.path, odd, len(flat))
        self._notes = tuple(
            f"{count} voxels of {IMAGE} {words}"
            for count, words in (
                (odd, "are not finite: set to 0"),
                (beyond, f"lie beyond {_LOWEST} or {_HIGHEST}: set to that"),
            )
            if count
        )
        if self._header.dtype.kind == "f" and 0 < highest <= 1 and flat.dtype == np.uint8:
            raise InputError(
                f"{self._file.path}: its array {IMAGE!r} lies between 0 and 1, not 0 and 255",
                fix="store a window of HU as whole numbers from 0 to 255",
            )
        return flat.reshape(self._header.shape, order=self._header.order)


def stored_window(voxels_ZYX: NDArray[Any]) -> tuple[float, float] | None:
    """Return the window of `WINDOWS_HU` that a CT was stored with, as its histogram tells.

    Body and lung, and what is black, speak for a window; what would lie between lung and fat, or be
    bone, against it. Where lungs are black, there is more black than what looks like fat. None
    where all is black or white.

    Args:
        voxels_ZYX: uint8.
    """
    step = max(1, round((voxels_ZYX.size / _SAMPLED) ** (1 / 3)))
    counts = np.bincount(voxels_ZYX[::step, ::step, ::step].ravel(), minlength=256)
    shares = counts[:_BRIGHTEST] / counts.sum()
    if not shares[1:].any():
        return None
    scores = []
    for low, high in WINDOWS_HU:
        hu = low + np.arange(1, _BRIGHTEST) * (high - low) / _BRIGHTEST
        edges = np.searchsorted(hu, (*_LUNG_HU, _BODY_HU[0], _FAT_HU, _BODY_HU[1]))
        below, lung, gap, fat, body, bone = (part.sum() for part in np.split(shares[1:], edges))
        if low > _LUNG_HU[1]:
            fat = min(fat, _FAT_PER_BLACK * shares[0] + body)
        scores.append(shares[0] + lung + fat + body - below - gap - bone)
    return WINDOWS_HU[int(np.argmax(scores))]


@dataclass(kw_only=True)
class MaskFile:
    """The masks of one file, which is written once all are there; threads may share it.

    Attributes:
        shape_ZYX: of the file's CT.
        spacing_mm_ZYX: of its voxels.
        stated: what the input says of them, which is written again.
        lines: of all its lesions.
        scan: given back with the last mask.
    """

    shape_ZYX: tuple[int, int, int]
    spacing_mm_ZYX: _Spacing
    stated: Mapping[str, NDArray[Any]]
    lines: Sequence[Line]
    scan: LineScan
    _parts: dict[int, tuple[Box, NDArray[np.bool_]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def has(self, index: int) -> bool:
        """Return whether the mask of a line is there."""
        return index in self._parts

    def put(self, index: int, box: Box, mask_ZYX: NDArray[np.bool_], path: Path) -> Path:
        """Keep a mask, replacing what was there; with the last missing one write the file.

        Args:
            index: of its line.
            box: where in the CT the mask lies.
            mask_ZYX: bool, of the box.
            path: of the file, which is returned.

        Raises:
            OutputError: the file could not be written.
        """
        with self._lock:
            self._parts[index] = box, mask_ZYX
            if len(self._parts) == max(1, len(self.lines)):
                self.scan.release()
                self.write(path)
        return path

    def write(self, path: Path) -> None:
        """Write the masks that are there.

        Raises:
            OutputError: the file could not be written.
        """
        write_npz(path, {MASKS: self.label_map(), **self.stated})

    def label_map(self) -> NDArray[np.unsignedinteger[Any]]:
        """Return all masks in one array; what several claim goes to the nearest line."""
        highest = max((line.value for line in self.lines), default=0)
        kind = np.uint8 if highest <= _ONE_BYTE else np.uint16
        segs = np.zeros(self.shape_ZYX, kind)
        owner: dict[int, Line] = {line.value: line for line in self.lines}
        for index in sorted(self._parts):
            if index >= len(self.lines):
                continue
            line = self.lines[index]
            box, mask = self._parts[index]
            part = segs[box]
            for other in np.unique(part[mask & (part > 0)]).tolist():
                at = np.argwhere(mask & (part == other))
                corner = np.array([side.start for side in box])
                own_mm, other_mm = (
                    distances_mm(at + corner, each.places_ZYX, self.spacing_mm_ZYX)
                    for each in (line, owner[other])
                )
                lost = at[other_mm <= own_mm]
                mask = mask.copy()
                mask[tuple(lost.T)] = False
            part[mask] = line.value
        return segs


def spacing_of(file: NpzFile) -> tuple[_Spacing, tuple[str, ...]]:
    """Return the spacing (Z, Y, X) of a file in mm, and what is odd about it."""
    stated = file.small(SPACING, 3)
    if stated is not None and len(stated) == 1 and is_spacing(stated[0]):
        mm = float(stated[0])
        return (mm, mm, mm), (f"has one spacing, {mm:g} mm: its voxels are taken for such cubes",)
    if stated is None or len(stated) != 3 or not all(map(is_spacing, stated.tolist())):
        said = "has no usable spacing" if stated is None else f"has the spacing {stated.tolist()}"
        return (1.0, 1.0, 1.0), (f"{said}: its voxels are taken for cubes of 1 mm",)
    x, y, z = stated.tolist()
    if y == z and x != y:
        said = f"has the spacing {stated.tolist()}, which is read as (x, y, z)"
        return (z, y, x), (f"{said}: is it (z, y, x)? Pixels of a CT mostly are squares",)
    return (z, y, x), ()
