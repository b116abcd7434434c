"""Predictors whose weights were not brought along, with weights from a seed: for timing only.

Background is made likely, as it is after training: noise everywhere would keep the rules busy.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpu.pack import ROOT
from gpu.supervise import Settings
from gpu.worker import Record

_BACKGROUND = 5.0  # added to its logits


def run(settings: Settings, record: Record) -> None:
    for name in settings.untrained:
        text = (ROOT / "weights" / name / "predictor.toml").read_text()
        write(Path(settings.work) / "weights" / name, text)
        record.append("made", name)


def write(folder: Path, facts: str) -> None:
    """Write a predictor folder with weights from a seed.

    Args:
        folder: to make.
        facts: its predictor.toml, whose hash and number of parameters are put right.
    """
    import tomllib

    import torch

    from flarekit import models

    architecture: Mapping[str, Any] = tomllib.loads(facts)["architecture"]
    torch.manual_seed(0)
    arguments = architecture.get("arguments", {})
    network = models.create(architecture["name"], **arguments)
    for module in network.modules():
        bias = getattr(module, "bias", None)
        if getattr(module, "out_channels", None) == arguments["num_classes"] and bias is not None:
            bias.data[0] += _BACKGROUND
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.safetensors"
    models.save_weights(network, path, dtype=torch.float16)
    count = sum(parameter.numel() for parameter in network.parameters())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = re.sub(r'(?m)^sha256 = ".*"', f'sha256 = "{digest}"', facts)
    facts = re.sub(r"(?m)^parameters = \d+", f"parameters = {count}", facts)
    facts = re.sub(r"(?ms)^\[locator\b.*?(?=^\[(?!locator\b)|\Z)", "", facts)  # untrained as well
    (folder / "predictor.toml").write_text(facts)
