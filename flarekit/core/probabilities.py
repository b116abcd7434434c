"""Probabilities of every class beside a mask: `CASE.npz`, written by predict, read by evaluate.

`probabilities` is float16 (K, Z, Y, X), the axes those of the mask's file in reverse; `values` has
the mask value of each of the K classes, 0 for the background.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.core.files import make_folder, named_when_whole
from flarekit.core.names import path_within
from flarekit.core.npz_files import read_arrays


def probabilities_path(folder: Path, case_id: str) -> Path:
    """Return where a case's probabilities lie in a folder.

    Raises:
        UnsafePathError: its id names no file below the folder.
    """
    return path_within(folder, f"{case_id}.npz", source=case_id)


def write_probabilities(
    path: Path, probabilities_KZYX: NDArray[np.float32], values_K: Sequence[int]
) -> None:
    """Write probabilities; the file has its name only when it is whole.

    Args:
        path: to be made, as are the folders above it.
        probabilities_KZYX: of each class, as stored.
        values_K: mask value of each.

    Raises:
        OutputError: it cannot be written.
    """
    make_folder(path.parent)
    with named_when_whole(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            probabilities=probabilities_KZYX.astype(np.float16),
            values=np.array(values_K, np.uint8),
        )


def read_probabilities(
    path: Path, shape_ZYX: Sequence[int]
) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Read probabilities (K, Z, Y, X) and the mask value of each class.

    Args:
        path: the file.
        shape_ZYX: of the case's mask.

    Raises:
        InputError: it is not there, is damaged, or belongs to another scan.
    """
    fix = "write it with flarekit predict --probabilities FOLDER"
    try:
        content = read_arrays(path)
        probabilities, values = content["probabilities"], content["values"]
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: holds no probabilities: {error}", fix=fix) from error
    fits = probabilities.ndim == 4 and probabilities.shape == (len(values), *shape_ZYX)
    if not fits or probabilities.dtype.kind != "f":
        raise InputError(
            f"{path}: has probabilities of shape {probabilities.shape} for {len(values)} classes, "
            f"the mask has {tuple(shape_ZYX)}",
            fix=fix,
        )
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        raise InputError(f"{path}: holds numbers that are not probabilities", fix=fix)
    return probabilities.astype(np.float16, copy=False), values.astype(np.uint8)
