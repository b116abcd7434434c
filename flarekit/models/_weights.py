"""Weights on disk: one safetensors file, tensors under the module's own names, each once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flarekit.core.errors import WeightsHashError, WeightsMismatchError, WeightsMissingError
from flarekit.core.files import sha256_of, write_atomically
from flarekit.core.network import Weights

if TYPE_CHECKING:
    import torch
    from torch import nn


WeightsState = Literal["ok", "missing", "wrong"]
_SCALE = ".scale"  # of a tensor of eight bits, behind its name
_LARGEST_OF_EIGHT_BITS = 127


def weights_state(path: Path, facts: Weights) -> WeightsState:
    """Return whether a weights file is the one that facts describe, by its SHA-256."""
    if not path.is_file():
        return "missing"
    return "ok" if sha256_of(path) == facts.sha256 else "wrong"


def check_weights(path: Path, facts: Weights) -> None:
    """Refuse a weights file that is not the one that facts describe.

    Raises:
        WeightsMissingError: it is not there.
        WeightsHashError: it has another SHA-256.
    """
    state = weights_state(path, facts)
    if state == "missing":
        raise WeightsMissingError(
            f"{path}: the weights are not there",
            fix="fetch them, or export them beside predictor.toml",
        )
    if state == "wrong":
        raise WeightsHashError(
            f"{path}: is not the file that predictor.toml describes (SHA-256)",
            fix="fetch it again, or export the predictor again",
        )


def own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter and persistent buffer of a module under its first name only.

    Modules that are registered twice (nnU-Net's decoder holds the encoder) appear once.
    """
    persistent = module.state_dict(keep_vars=True)
    named = [*module.named_parameters(), *module.named_buffers()]
    return {name: tensor.detach() for name, tensor in named if name in persistent}


def save_weights(module: nn.Module, path: Path, *, dtype: torch.dtype) -> dict[str, str | int]:
    """Write a module's tensors, parameters in `dtype`.

    Running statistics keep their precision, as do parameters with values beyond `dtype`'s range:
    a variance of 70,000 would be infinite in fp16, one of 1e-9 nothing. With `torch.int8`,
    parameters of two axes and more are whole numbers from -127 to 127 beside a tensor NAME.scale,
    by which each index of their first axis is multiplied; the others, which are few, are fp16.

    Returns:
        What `predictor.toml` says of the file: its name, hash and number of parameters.

    Raises:
        WeightsMismatchError: a tensor is not finite, or a variance negative.
        OutputError: it could not be written.
    """
    from safetensors.torch import save

    for name, tensor in own_tensors(module).items():
        if (fault := unusable(tensor, tensor) or _no_variance(name, tensor)) is not None:
            raise WeightsMismatchError(
                f"{path}: is not written: {name} {fault}",
                fix="take the weights of a sound training; this one has diverged",
            )
    statistics = {name for name, _ in module.named_buffers()}
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in own_tensors(module).items():
        tensors |= {name: tensor} if name in statistics else _stored(name, tensor, dtype)
    write_atomically(path, save({name: each.contiguous() for name, each in tensors.items()}))
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
    }


def _stored(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return what a file holds of a parameter."""
    import torch

    if dtype != torch.int8:
        return {name: _converted(tensor, dtype)}
    if tensor.ndim < 2:
        return {name: _converted(tensor, torch.float16)}
    rows = tensor.float().flatten(1)
    scale = rows.abs().amax(dim=1) / _LARGEST_OF_EIGHT_BITS
    scale[scale == 0] = 1
    whole = (rows / scale[:, None]).round().to(dtype)
    return {name: whole.view_as(tensor), name + _SCALE: scale}


def _without_scales(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors of eight bits times their scales, and all others as they are."""
    import torch

    def scale_of(name: str) -> torch.Tensor | None:
        scale, tensor = stored.get(name + _SCALE), stored[name]
        if scale is None or tensor.dtype != torch.int8 or not scale.is_floating_point():
            return None
        return scale if tensor.ndim > 1 and scale.shape == tensor.shape[:1] else None

    scales = {name: scale for name in stored if (scale := scale_of(name)) is not None}
    result = {
        name: tensor for name, tensor in stored.items() if name.removesuffix(_SCALE) not in scales
    }
    for name, scale in scales.items():
        tensor = stored[name]
        result[name] = (tensor.flatten(1) * scale.float()[:, None]).view_as(tensor)
    return result


def _converted(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor
    converted = tensor.to(dtype)
    return converted if bool(converted.isfinite().all()) else tensor


def unusable(stored: torch.Tensor, own: torch.Tensor) -> str | None:
    """Return why a tensor cannot become one of a network; None where it can.

    Copying would cast anything: whole numbers of a quantised network, numbers of eight bits without
    their scale, values beyond float32, and say nothing.

    Args:
        stored: from a file, of the same shape.
        own: the network's.
    """
    import torch

    kind = str(stored.dtype).removeprefix("torch.")
    if not own.is_floating_point():
        return None if not (stored.is_floating_point() or stored.is_complex()) else f"is {kind}"
    if stored.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return f"is {kind}, not a floating-point number of 16, 32 or 64 bits"
    if bool(stored.isnan().any()):
        return "holds NaN"
    if bool(stored.isinf().any()):  # a layer whose variance is infinite gives nothing
        return "holds infinite numbers"
    if stored.dtype == torch.float64 and bool(stored.float().isinf().any()):
        return "holds numbers beyond float32"
    return None


def _no_variance(name: str, tensor: torch.Tensor) -> str | None:
    """Return why a running variance cannot be one; None where it can, or is something else."""
    is_variance = name.rpartition(".")[2] == "running_var"
    return "holds a negative variance" if is_variance and bool((tensor < 0).any()) else None


def load_weights(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file, strictly: nothing missing, nothing left over.

    A module built without layers that never run may name them in `layers_left_out`, a tuple of how
    their tensors' names begin: a file may hold these all the same.

    Raises:
        WeightsMismatchError: not a safetensors file, or names, shapes or kinds of number that do
            not fit, or values that are not finite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    fix = "the file belongs to another architecture or other arguments; export it again"
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsMismatchError(
            f"{path}: is not a safetensors file: {error}", fix=fix
        ) from error
    own, left_out = own_tensors(module), getattr(module, "layers_left_out", ())
    stored = _without_scales(
        {name: tensor for name, tensor in stored.items() if not name.startswith(left_out)}
    )
    faults = [f"{name} is missing" for name in sorted(own.keys() - stored.keys())]
    faults += [f"{name} is not the network's" for name in sorted(stored.keys() - own.keys())]
    faults += [
        f"{name} is {list(stored[name].shape)}, the network needs {list(own[name].shape)}"
        for name in sorted(own.keys() & stored.keys())
        if stored[name].shape != own[name].shape
    ]
    if not faults:
        faults = [
            f"{name} {fault}"
            for name, tensor in own.items()
            if (fault := unusable(stored[name], tensor) or _no_variance(name, stored[name]))
        ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise WeightsMismatchError(
            f"{path}: does not fit the network: {'; '.join(faults[:3])}{more}", fix=fix
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])
