"""Checkpoints are read without executing anything in them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flarekit.core.errors import InputError

if TYPE_CHECKING:
    import torch

_PREFIXES = ("_orig_mod.", "module.")
# What nnU-Net's checkpoints hold beside tensors: numbers of its training log. Nothing else.
_NUMBERS = (np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_)


def load_checkpoint(path: Path) -> Mapping[str, Any]:
    """Load a `torch.save` file with `weights_only=True` and numpy's scalars allowed.

    Raises:
        InputError: the file is not there, is damaged, is not a mapping, or wants to run something
            that is not on the list; it is not run.
    """
    import torch

    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = str(error).split("GLOBAL ")[-1].split(" ")[0] if "GLOBAL " in str(error) else None
        if wanted is None:
            raise InputError(
                f"{path}: is not a PyTorch checkpoint", fix="fetch it again"
            ) from error
        raise InputError(
            f"{path}: refused: loading it would call {wanted}, which can run anything",
            fix="only tensors and numbers are loaded; save the state dict alone, as safetensors",
        ) from error
    except Exception as error:  # noqa: BLE001 - damaged files raise whatever the reader meets
        if isinstance(error, OSError) and error.filename:  # of opening it; a cut file's has no name
            fault = f"{path}: cannot be read: {error.strerror}"
            raise InputError(fault, fix="see that it is a file and may be read") from error
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise InputError(
            f"{path}: is not a PyTorch checkpoint: {reason}", fix="fetch it again"
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__}, not a state dict", fix="save the state dict"
        )
    return content


def state_dict_of(
    content: Mapping[str, Any], source: Path, *, field: str | None = None
) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint under the names that the network itself has for them.

    `module.` (DataParallel) and `_orig_mod.` (torch.compile) in front of names are dropped.

    Args:
        content: of the file.
        source: the file.
        field: where in it the state dict is; the content itself where None.

    Raises:
        InputError: no such field, something in it that is no tensor of finite numbers, or two
            tensors of one name.
    """
    import torch

    state = content if field is None else content.get(field)
    where = f"{source}: {field or 'the state dict'}"
    if state is None:
        held = ", ".join(str(key) for key in list(content)[:6]) or "nothing"
        raise InputError(
            f"{source}: has no {field} (it holds {held})",
            fix="take the checkpoint that the training wrote, such as checkpoint_final.pth",
        )
    if not isinstance(state, Mapping) or not state:
        kind = "nothing" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise InputError(f"{where} holds {kind}, and should hold tensors", fix="fetch it again")
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name = _own_name(str(key))
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise InputError(f"{where}.{key} is a {kind}, not a tensor", fix="fetch it again")
        if (odd := _odd(value)) is not None:
            raise InputError(
                f"{where}.{key} {odd}", fix="save the state dict of the network as it was trained"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(
                f"{where}.{key} holds NaN or infinity", fix="take a checkpoint of a sound training"
            )
        if name in found:
            raise InputError(
                f"{where} names {name} twice, with and without a prefix", fix="fetch it again"
            )
        found[name] = value
    return found


def _odd(value: torch.Tensor) -> str | None:
    """Return what makes a tensor none that weights are: laid out otherwise, or not in the file."""
    import torch

    if value.layout is not torch.strided:
        return f"is a tensor of the layout {str(value.layout).removeprefix('torch.')}"
    if value.is_quantized or value.is_complex():
        return f"is a tensor of {str(value.dtype).removeprefix('torch.')}"
    if value.is_meta:
        return "has a shape and no values"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "is larger than what the file holds of it"
    return None


def _own_name(key: str) -> str:
    while key.startswith(_PREFIXES):
        for prefix in _PREFIXES:
            key = key.removeprefix(prefix)
    return key


def _allowed() -> list[Any]:
    from numpy._core import multiarray

    dtypes = [type(np.dtype(number)) for number in _NUMBERS]
    scalar = multiarray.scalar
    # files written by numpy 1 name the same function by its old path
    return [np.dtype, *_NUMBERS, *dtypes, scalar, (scalar, "numpy.core.multiarray.scalar")]
