"""Checkpoints are read without executing anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flarekit.core.errors import InputError

# What nnU-Net's checkpoints hold beside tensors: numbers of its training log. Nothing else.
_NUMBERS = (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """Load a `torch.save` file with `weights_only=True` and numpy's scalars allowed.

    Raises:
        InputError: the file is not there, is damaged, is no mapping, or wants to run something
            that is not on the list; it is not run.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = str(error).split("GLOBAL ")[-1].split(" ")[0] if "GLOBAL " in str(error) else None
        if wanted is None:
            raise InputError(f"{path}: is no PyTorch checkpoint", fix="fetch it again") from error
        raise InputError(
            f"{path}: refused: loading it would call {wanted}, which can run anything",
            fix="only tensors and numbers are loaded; save the state dict alone, as safetensors",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: is no PyTorch checkpoint: {error}", fix="fetch it again"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, not a state dict", fix="save the state dict"
        )
    return content


def _allowed() -> list[Any]:
    from numpy._core import multiarray

    dtypes = [type(np.dtype(number)) for number in _NUMBERS]
    scalar = multiarray.scalar
    # files written by numpy 1 name the same function by its old path
    return [np.dtype, *_NUMBERS, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]
