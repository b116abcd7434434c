"""The FLARE23 attention U-Net's published state dict, and its FLARE21 origin's.

Their preparation: canonical orientation; every axial slice resized to 512 x 512, clipped to its 1st
and 99th percentile and z-scored (their z-score of the volume and their stretch to 0..255 cancel
out); the slice copied to three channels, which is the same as one channel with the weights of the
first convolution summed over the three; BatchNorm on the statistics of each slice. Masks come out
in the orientation of the scan, not rotated as the published script writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flarekit import models
from flarekit.core.errors import InputError
from flarekit.importing.writing import ImportOptions, preparation, write_predictor

if TYPE_CHECKING:
    import torch

_FIRST = ("encoder.0.weight", "enblock1.0.weight")
_LAST = "out2.single_conv.weight"


def looks_like_flare23(keys: Sequence[str]) -> bool:
    """Return whether these are the keys of either network, whatever stands in front of them."""
    return any(key.endswith(_FIRST[0]) for key in keys) and any(
        part in key for key in keys for part in ("decoder_att1.", "deblock1.")
    )


def import_state_dict(
    state: Mapping[str, torch.Tensor], source: Path, folder: Path, options: ImportOptions
) -> None:
    """Write the predictor folder.

    Raises:
        InputError: the last layer, which tells the number of labels, is missing.
        WeightsMismatchError: tensors missing, left over or of another shape.
    """
    state_dict = dict(state)
    attention = any(key.startswith("decoder_att1.") for key in state_dict)
    last = state_dict.get(_LAST)
    if last is None or last.ndim == 0 or last.shape[0] < 2:
        raise InputError(
            f"{source}: {_LAST} is missing or has no shape, which gives the number of labels",
            fix="give the whole state dict",
        )
    classes = int(last.shape[0])
    for key in _FIRST:
        if key in state_dict and state_dict[key].ndim == 4:
            state_dict[key] = state_dict[key].sum(dim=1, keepdim=True)
    arguments = {
        "input_channels": 1,
        "num_classes": classes,
        "attention": attention,
        "batch_statistics": True,
    }
    network = models.create("attention_unet", **arguments)
    models.load_official_state_dict("attention_unet", network, state_dict)
    stated = preparation("flare23")
    known = {len(organs): organs for organs in stated["organs"]}
    names = known.get(classes - 1, [f"label_{k}" for k in range(1, classes)])
    labels = {label: value for value, label in enumerate(names, start=1)}
    facts = {
        "name": options.name,
        "title": f"FLARE{'23 attention' if attention else '21'} U-Net, {classes - 1} labels",
        "convention": options.convention,
        "architecture": {"name": "attention_unet", "arguments": arguments},
        **stated["facts"],
        "labels": labels,
        "rules": [{"name": "largest_component", "labels": list(labels)}],
        "provenance": {"imported_from": source.name},
    }
    write_predictor(folder, facts, [network], source=source)
