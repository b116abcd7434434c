"""The MPU-Net authors' checkpoint: {`net`, `optimizer`, `epoch`}.

Their preparation: clip to [-200, 200] HU and divide by 200; slices 1 mm apart, each resized to
256 x 256; windows of 48 slices every 24; the mean of the windows' probabilities is resized to the
scan and the larger one wins. Label 1 is the liver.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flarekit import models
from flarekit.importing.options import ImportOptions
from flarekit.importing.writing import write_predictor

_PARALLEL = "module."  # in front of every name where the network was trained on several GPUs


def looks_like_mpu_net(content: Mapping[str, Any]) -> bool:
    """Return whether this is such a checkpoint."""
    net = content.get("net")
    return isinstance(net, Mapping) and any("PCL.attn" in str(key) for key in net)


def import_mpu_net(
    content: Mapping[str, Any], source: Path, folder: Path, options: ImportOptions
) -> None:
    """Write the predictor folder.

    Raises:
        WeightsMismatchError: tensors missing, left over or of another shape.
    """
    state_dict = {str(key).removeprefix(_PARALLEL): value for key, value in content["net"].items()}
    arguments = {"input_channels": 1, "num_classes": 2}
    network = models.create("mpu_net", **arguments)
    models.load_official_state_dict("mpu_net", network, state_dict)
    intensity = {"kind": "window", "low_hu": -200.0, "high_hu": 200.0, "mean": 0.0, "std": 200.0}
    facts = {
        "name": options.name,
        "title": "MPU-Net, liver",
        "convention": options.convention,
        "architecture": {"name": "mpu_net", "arguments": arguments},
        "channels": [{"name": "CT", "intensity": intensity}],
        "grid": {
            "spacing_mm_ZYX": [1.0, "fit", "fit"],
            "tile_ZYX": [48, 256, 256],
            "step": 0.5,
            "weighting": "uniform",
            "decide": "scan",
        },
        "labels": {"liver": 1},
        "provenance": {"imported_from": source.name},
    }
    write_predictor(folder, facts, [network], source=source)
