"""MetaImage (.mha; .mhd in) in and out, whole or a few slices at a time, compressed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.core.content import AGAIN, ZLIB, check_some_finite, compressed, could_hold
from flarekit.core.errors import UnreadableVolumeError
from flarekit.core.files import write_atomically
from flarekit.core.metaheader import MetaHeader, mask_header, opened, read_header
from flarekit.core.volume import Geometry, Volume, shear_notes

_Stored = NDArray[np.float32] | NDArray[np.integer[Any]]
_PIECE_BYTES = 1 << 20  # what is decompressed at a time


def read_metaimage(path: Path, *, air: float) -> Volume:
    """Read one 3D scan.

    Integers stay as they are stored; float64 becomes float32.

    Args:
        path: a .mha file, or a .mhd one with its voxels in a file beside it.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: see `read_header`; also where voxels are missing or damaged.
    """
    header = read_header(path)
    with SliceReader(path, header) as reader:
        stored = reader.read(0, header.shape_ZYX[0])
    voxels_ZYX, notes = usable(stored, path, air=air)
    notes = (*header.notes, *shear_notes(header.affine), *notes)
    return Volume(voxels_ZYX=voxels_ZYX, geometry=header.geometry, path=path, warnings=notes)


def usable(stored: NDArray[Any], path: Path, *, air: float) -> tuple[_Stored, tuple[str, ...]]:
    """Return voxels as a `Volume` holds them, and what was odd about them.

    Args:
        stored: numbers of any kind.
        path: where they come from, for messages.
        air: the value that NaN and infinite voxels get.

    Raises:
        UnreadableVolumeError: none of them is finite.
    """
    if stored.dtype.kind in "iu":
        return stored.astype(stored.dtype.newbyteorder("="), copy=False), ()
    with np.errstate(over="ignore"):
        voxels = stored.astype(np.float32, copy=False)
    odd = ~np.isfinite(voxels)
    count = int(odd.sum())
    if not count:
        return voxels, ()
    check_some_finite(path, count, voxels.size)
    return np.where(odd, np.float32(air), voxels), (f"{count} voxels are not finite: set to {air}",)


class SliceReader:
    """Reads slices of a file; of a compressed one only what has to be decompressed once.

    Going back in a compressed file starts again at its beginning. A context manager.
    """

    def __init__(self, path: Path, header: MetaHeader) -> None:
        """Open the file.

        Raises:
            UnreadableVolumeError: it cannot be opened.
        """
        self._path, self._header = path, header
        self._stream = opened(header.data_path)
        self._at = -1  # bytes of voxels behind us; -1 before the first

    def __enter__(self) -> SliceReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def read(self, start: int, count: int) -> NDArray[Any]:
        """Return `count` slices from slice `start` on, (count, Y, X) of the file's own dtype.

        Raises:
            UnreadableVolumeError: the file ends before them, or its zlib stream is damaged.
        """
        _, y, x = self._header.shape_ZYX
        slice_bytes = y * x * self._header.dtype.itemsize
        fault = f"ends before slice {start + count} of its voxels (DimSize)"
        if not could_hold(self._header.data_path, (start + count) * slice_bytes):
            raise UnreadableVolumeError(self._path, fault, fix=AGAIN)
        content = np.empty(count * slice_bytes, np.uint8)
        fill = self._inflate if self._header.compressed else self._copy
        if fill(start * slice_bytes, content.data) < content.size:
            raise UnreadableVolumeError(self._path, fault, fix=AGAIN)
        return content.view(self._header.dtype).reshape(count, y, x)

    def _copy(self, offset: int, target: memoryview) -> int:
        self._stream.seek(self._header.data_start + offset)
        return self._stream.readinto(target)  # type: ignore[attr-defined,no-any-return]

    def _inflate(self, offset: int, target: memoryview) -> int:
        from isal import isal_zlib

        if self._at < 0 or offset < self._at:
            self._stream.seek(self._header.data_start)
            self._zlib = isal_zlib.decompressobj()
            self._at = 0
        try:
            skipped = memoryview(bytearray(min(_PIECE_BYTES, max(offset - self._at, 0))))
            while self._at < offset:
                if not self._next_piece(skipped[: offset - self._at]):
                    return 0
            filled = 0
            while filled < len(target):
                piece = self._next_piece(target[filled:])
                filled += piece
                if not piece:
                    break
        except isal_zlib.error as error:  # type: ignore[misc]
            raise UnreadableVolumeError(
                self._path, f"its zlib stream is damaged ({error})", fix=AGAIN
            ) from error
        return filled

    def _next_piece(self, target: memoryview) -> int:
        """Decompress into the target, a piece at most; return how many bytes, 0 at the end."""
        most = min(len(target), _PIECE_BYTES)
        while not self._zlib.eof:
            raw = self._zlib.unconsumed_tail or self._stream.read(_PIECE_BYTES)
            piece = self._zlib.decompress(raw, most)
            if piece:
                target[: len(piece)] = piece
                self._at += len(piece)
                return len(piece)
            if not raw:
                break
        return 0


def write_label_map(path: Path, label_map_ZYX: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write a mask that overlays the scan it came from: uint8, zlib-compressed.

    Args:
        path: the file to make.
        label_map_ZYX: uint8 of `geometry.shape_ZYX`, stored axis directions.
        geometry: the scan's, from this module.

    Raises:
        ValueError: the mask's shape is not the scan's.
        OutputError: it could not be written.
    """
    if label_map_ZYX.shape != geometry.shape_ZYX or label_map_ZYX.dtype != np.uint8:
        raise ValueError(
            f"uint8 {geometry.shape_ZYX} expected, got {label_map_ZYX.dtype} {label_map_ZYX.shape}"
        )
    data = compressed(label_map_ZYX, ZLIB)
    write_atomically(path, mask_header(geometry, len(data)) + data)
