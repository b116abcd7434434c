"""`flarekit.save_predictor`: a network and facts about it become a predictor folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.errors import UsageError
from flarekit.core.files import make_folder, sha256_of, write_atomically
from flarekit.core.spec import PredictorFolder, parse_spec, write_spec
from flarekit.segmentation.predictors import find_predictor

if TYPE_CHECKING:
    from torch import nn

_KINDS = {".onnx": "onnx", ".pt": "torchscript", ".ts": "torchscript"}
_HEAD = "Made by flarekit.save_predictor."


def save_predictor(
    folder: str | Path,
    facts: Mapping[str, Any],
    *,
    module: nn.Module | None = None,
    file: str | Path | None = None,
    code: str | Path | None = None,
) -> PredictorFolder:
    """Write a predictor folder for a trained network of one's own.

    Args:
        folder: to make; files of the same names are replaced.
        facts: as `predictor.toml` has them: `channels`, `grid` and `labels` at least, and, with a
            module, `architecture`: its name in `flarekit.models.names()`, or `MODULE:CLASS`, and
            its arguments. `name` and `title` are the folder's name and `convention` is `flare`
            where they are not given.
        module: the network, a PyTorch module; its tensors are stored as float32.
        file: instead of a module, the network as an ONNX file (`.onnx`) or a TorchScript file
            (`.pt`); it is copied.
        code: a Python file that has the class; it is copied beside the facts, so that the folder
            is whole. Whoever loads the folder has to trust it (`flarekit.load(trust=True)`).

    Returns:
        The predictor, as `flarekit.load` takes it; it is not trusted yet.

    Raises:
        UsageError: neither a module nor a file, or both, a file of another kind, or code that is
            not there.
        PredictorError: the facts do not hold together; nothing is written then.
        OutputError: something could not be written.

    >>> import torch
    >>> import flarekit
    >>> facts = {
    ...     "architecture": {"name": "torch.nn:Conv3d",
    ...                      "arguments": {"in_channels": 1, "out_channels": 2, "kernel_size": 1}},
    ...     "channels": [{"name": "MR", "intensity": {"kind": "z_score"}}],
    ...     "grid": {"spacing_mm_ZYX": [2.0, 2.0, 2.0], "tile_ZYX": [16, 32, 32]},
    ...     "labels": {"tumour": 1},
    ... }
    >>> saved = flarekit.save_predictor("mine", facts, module=torch.nn.Conv3d(1, 2, 1))
    >>> with flarekit.load("mine", trust=True) as segmenter:
    ...     segmenter.label_names
    {1: 'tumour'}
    """
    folder, name = Path(folder), Path(folder).resolve().name
    if (module is None) == (file is None):
        raise UsageError("what to save is not clear", fix="give a module, or the file of a network")
    if code is not None and not Path(code).is_file():
        raise UsageError(f"{code}: is not there", fix="name the Python file that has the class")
    whole = {"name": name, "title": name, "convention": "flare", **facts}
    if file is not None:
        whole["architecture"] = {"name": _kind(Path(file))}
    blank = {"sha256": "0" * 64, "parameters": 1}
    parse_spec({**whole, "weights": blank}, source=str(folder / "predictor.toml"))
    make_folder(folder)
    if module is not None:
        whole["weights"] = _stored(module, folder)
    elif file is not None:
        whole["weights"] = _copied(Path(file), folder)
    if code is not None and Path(code).resolve().parent != folder.resolve():
        write_atomically(folder / Path(code).name, Path(code).read_bytes())
    write_spec(folder, whole, head=_HEAD)
    return find_predictor(str(folder))


def _stored(module: nn.Module, folder: Path) -> dict[str, Any]:
    """Write a module's tensors, and return the facts of the file."""
    import torch

    return models.save_weights(module, folder / "model.safetensors", dtype=torch.float32)


def _copied(file: Path, folder: Path) -> dict[str, Any]:
    """Copy a network in a file, and return the facts of the copy."""
    path = folder / f"model{file.suffix}"
    write_atomically(path, file.read_bytes())
    return {"file": path.name, "sha256": sha256_of(path)}


def _kind(file: Path) -> str:
    if file.suffix not in _KINDS or not file.is_file():
        raise UsageError(
            f"{file}: is not a network in a file",
            fix="give an .onnx file, or a .pt file that torch.jit.save has written",
        )
    return _KINDS[file.suffix]
