"""The MPU-Net authors' checkpoints, also of their U-Net baseline: {`net`, `optimizer`, `epoch`}.

Their preparation: clip to [-200, 200] HU and divide by 200; slices 1 mm apart, each resized to
256 x 256; windows of 48 slices every 24; the mean of the windows' probabilities is resized to the
scan and the larger one wins. Label 1 is the liver.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.importing.writing import ImportOptions, preparation, write_predictor

if TYPE_CHECKING:
    import torch

_BASELINE = ("encoder1.weight", "decoder4.weight", "map4.0.weight")


def looks_like_mpu_net(keys: Sequence[str]) -> bool:
    """Return whether these are the keys of the network or of the paper's U-Net baseline."""
    return any("PCL.attn" in key for key in keys) or _is_baseline(keys)


def _is_baseline(keys: Sequence[str]) -> bool:
    return all(any(key.endswith(name) for key in keys) for name in _BASELINE)


def import_mpu_net(
    state_dict: Mapping[str, torch.Tensor], source: Path, folder: Path, options: ImportOptions
) -> None:
    """Write the predictor folder.

    Raises:
        WeightsMismatchError: tensors missing, left over or of another shape.
    """
    baseline = _is_baseline(list(state_dict))
    arguments: dict[str, Any] = {"input_channels": 1, "num_classes": 2}
    if baseline:
        arguments["baseline"] = True
    network = models.create("mpu_net", **arguments)
    models.load_official_state_dict("mpu_net", network, state_dict)
    facts = {
        "name": options.name,
        "title": f"MPU-Net{'s U-Net baseline' if baseline else ''}, liver",
        "convention": options.convention,
        "architecture": {"name": "mpu_net", "arguments": arguments},
        **preparation("mpu_net")["facts"],
        "provenance": {"imported_from": source.name},
    }
    write_predictor(folder, facts, [network], source=source)
