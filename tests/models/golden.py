"""Golden outputs of the authors' networks: found beside the repository, weights made by formula."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

FOLDER = Path(__file__).parents[3] / "shared" / "golden"


@dataclass(frozen=True, kw_only=True)
class Golden:
    """One network's fixture: `facts` is its JSON file, `tensors` its inputs and outputs."""

    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def stored_state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights that the fixture stores, under the authors' keys."""
        return {key[3:]: value for key, value in self.tensors.items() if key.startswith("sd/")}

    def filled_state_dict(self) -> dict[str, torch.Tensor]:
        """Return weights under the authors' keys; aliases hold the tensor that they repeat."""
        aliases = self.facts.get("aliases_of_shared_storage", {})
        shapes = self.facts["state_dict_shapes"]
        filled = {key: fill(key, shape) for key, shape in shapes.items() if key not in aliases}
        if "fill_overrides" in self.facts:
            filled |= _overridden(filled, self.facts["fill_overrides"]["prelu_keys"])
        return {key: filled[aliases.get(key, key)] for key in shapes}


def read_golden(name: str) -> Golden:
    """Read a fixture, or skip the test where the fixtures are not."""
    facts = golden_folder() / f"{name}.json"
    return Golden(
        facts=json.loads(facts.read_text()), tensors=load_file(facts.with_suffix(".safetensors"))
    )


def golden_folder() -> Path:
    if not FOLDER.is_dir():
        pytest.skip("the golden outputs are kept outside the repository and are not here")
    return FOLDER


def fill(key: str, shape: list[int]) -> torch.Tensor:
    """Return the tensor that the "hash fill" gives for a state dict key."""
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    u = uniform(key, int(np.prod(shape)))
    values = _values(key, leaf, shape, u).astype(np.float32)
    return torch.from_numpy(values).reshape(shape)


def _overridden(filled: dict[str, torch.Tensor], prelu_keys: list[str]) -> dict[str, torch.Tensor]:
    changed = {}
    for key, tensor in filled.items():
        if key in prelu_keys:
            slope = 0.3 * uniform(key, tensor.numel())
            changed[key] = torch.from_numpy(slope.astype(np.float32)).reshape(tensor.shape)
        elif tensor.ndim > 1:
            changed[key] = tensor * (0.25 if key.startswith("map") else 0.5)
    return changed


def uniform(key: str, count: int) -> np.ndarray:
    """Hash the key and the flat index to [0, 1), float64."""
    h = np.arange(count, dtype=np.uint64) * 0x9E3779B1 + crc32(key.encode("ascii"))
    h &= 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h = ((h ^ (h >> np.uint64(shift))) * factor) & 0xFFFFFFFF
    return h / 2.0**32


def _values(key: str, leaf: str, shape: list[int], u: np.ndarray) -> np.ndarray:
    s = 2 * u - 1
    if leaf == "A_log":
        return np.log(np.arange(u.size) % shape[-1] + 1) + 0.1 * s
    if key.endswith("dt_proj.bias"):
        return -3 + 2.5 * u
    if leaf in ("D", "gamma", "gamma1", "skip_scale") or (leaf == "weight" and len(shape) == 1):
        return 0.5 + u
    simple = {
        "running_var": 0.5 + 1.5 * u,
        "running_mean": 0.3 * s,
        "bias": 0.2 * s,
        "beta": 0.2 * s,
    }
    if leaf in simple:
        return simple[leaf]
    assert leaf == "weight", f"FILL.md has no row for {key}"
    gain = 0.5 if len(shape) < 4 else 1.0
    if key.endswith(("x_proj.weight", "dt_proj.weight")):
        gain = 1.5
    return s * np.sqrt(3 * gain / (u.size / shape[0]))
