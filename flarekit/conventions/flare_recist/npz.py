"""Arrays in `.npz` files that somebody else wrote, read a piece at a time and never unpickled."""

import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from flarekit.core.errors import InputError, UnreadableVolumeError
from flarekit.core.files import make_folder, write_atomically

MOST_VOXELS = 2**30  # a header that claims more is not believed
_PIECE = 1 << 22  # voxels that are read together
_NUMBERS = "biuf"
_AGAIN = "write it again, with numpy.savez_compressed"
_DAMAGE = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, ValueError)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an array's header says.

    Attributes:
        shape: of the array.
        order: of its values in the file: `C` (the last axis first) or `F` (the first axis first).
        dtype: of a value.
    """

    shape: tuple[int, ...]
    order: Any
    dtype: np.dtype[Any]

    @property
    def count(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


class NpzFile:
    """One `.npz` file, opened for each question anew."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> tuple[str, ...]:
        """Return the names of its arrays.

        Raises:
            UnreadableVolumeError: it is not a zip archive, or a damaged one.
        """
        with self._damage_named(), zipfile.ZipFile(self.path) as archive:
            members = archive.namelist()
        return tuple(name.removesuffix(".npy") for name in members if name.endswith(".npy"))

    def header(self, name: str) -> Header:
        """Return what the header of an array says; its values are not looked at.

        Raises:
            InputError: there is no such array, its values are no numbers, or the file is damaged.
        """
        with self._member(name) as (header, _):
            return header

    def pieces(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the values of an array in the order of the file, some millions at a time.

        Raises:
            InputError: as for `header`.
        """
        with self._member(name) as (header, stream):
            left = header.count
            while left:
                count = min(left, _PIECE)
                content = stream.read(count * header.dtype.itemsize)
                if len(content) != count * header.dtype.itemsize:
                    raise self._fault(f"its array {name!r} ends too early", _AGAIN)
                left -= count
                yield np.frombuffer(content, header.dtype)

    def small(self, name: str, most: int) -> NDArray[np.float64] | None:
        """Return an array of a few numbers, flat; None where there is none of so many at most.

        Raises:
            InputError: the file is damaged.
        """
        if name not in self.names():
            return None
        try:
            header = self.header(name)
        except InputError:
            return None
        if header.count > most:
            return None
        parts = [piece.astype(np.float64) for piece in self.pieces(name)]
        return np.concatenate([np.zeros(0), *parts])

    @contextmanager
    def _member(self, name: str) -> Iterator[tuple[Header, IO[bytes]]]:
        member = f"{name}.npy"
        with self._damage_named(), zipfile.ZipFile(self.path) as archive:
            if member not in archive.namelist():
                there = ", ".join(archive.namelist()[:5]) or "nothing"
                raise self._fault(f"has no array {name!r}; it holds {there}", "add that array")
            with archive.open(member) as stream:
                yield self._read_header(name, stream), stream

    def _read_header(self, name: str, stream: IO[bytes]) -> Header:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read is None:
            raise self._fault(f"its array {name!r} is stored in an unknown way", _AGAIN)
        try:
            shape, in_columns, dtype = read(stream)
        except _DAMAGE:
            raise
        except Exception as error:  # NumPy parses headers as Python, which raises whatever it likes
            raise self._fault(f"the header of its array {name!r} cannot be read", _AGAIN) from error
        if dtype.kind not in _NUMBERS:
            what = "Python objects, which are never unpickled" if dtype.hasobject else str(dtype)
            raise self._fault(f"its array {name!r} holds {what}", "store plain numbers")
        if math.prod(shape) > MOST_VOXELS or min(shape, default=1) < 0:
            sizes = " x ".join(map(str, shape))
            raise self._fault(f"its array {name!r} claims to have {sizes} values", _AGAIN)
        return Header(shape=shape, order="F" if in_columns else "C", dtype=dtype)

    @contextmanager
    def _damage_named(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError as error:
            raise self._fault("does not exist", "check the path") from error
        except (*_DAMAGE, RuntimeError) as error:  # encrypted, or compressed in an unknown way
            reason = str(error).strip().splitlines()
            words = reason[0] if reason else "it ends early"
            raise self._fault(f"is not a whole .npz file: {words}", _AGAIN) from error

    def _fault(self, fault: str, fix: str) -> UnreadableVolumeError:
        return UnreadableVolumeError(self.path, fault, fix=fix)


def write_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as `numpy.savez_compressed` does, quickly; the file is whole or not there.

    Raises:
        OutputError: it could not be written.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                npy.write_array(stream, array, allow_pickle=False)
    make_folder(path.parent)
    write_atomically(path, content.getvalue())
