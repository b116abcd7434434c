"""The deterministic weights of fixtures that store none: a hash of key and index."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import torch


def hash_filled(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, torch.Tensor]:
    """Return a float32 tensor for every (key, shape)."""
    return {key: _filled(key, tuple(shape)) for key, shape in shapes}


def _filled(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    u = _uniform(key, int(np.prod(shape, dtype=np.int64))).reshape(shape)
    s, leaf = 2 * u - 1, key.rsplit(".", 1)[-1]
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long)
    if leaf == "running_var":
        value = 0.5 + 1.5 * u
    elif leaf == "running_mean":
        value = 0.3 * s
    elif leaf in ("bias", "beta"):
        value = 0.2 * s
    elif len(shape) == 1:
        value = 0.5 + u
    else:
        gain = 0.5 if len(shape) < 4 else 1.0
        value = s * np.sqrt(3 * gain / (u.size / shape[0]))
    return torch.from_numpy(np.asarray(value).astype(np.float32))


def _uniform(key: str, count: int) -> np.ndarray:
    mask = np.uint64(0xFFFFFFFF)
    h = (
        np.arange(count, dtype=np.uint64) * np.uint64(0x9E3779B1)
        + np.uint64(zlib.crc32(key.encode("ascii")))
    ) & mask
    h ^= h >> np.uint64(16)
    h = (h * np.uint64(0x85EBCA6B)) & mask
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(0xC2B2AE35)) & mask
    h ^= h >> np.uint64(16)
    return h.astype(np.float64) / 2**32
