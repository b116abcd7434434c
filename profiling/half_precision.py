"""How many voxels keep their class when a trained network runs in half precision.

    python profiling/half_precision.py [NETWORK ...] [--seconds 60] [--device cpu]
    python profiling/half_precision.py --quick --output FOLDER

Each architecture, at a small width, is trained for a while on phantoms (liver, spleen, kidneys)
and predicts a phantom it never saw, in float32 and in bf16 (fp16 on CUDA). The result goes to
half_precision_DEVICE.json beside this file; rows of networks that are not named stay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from measured import parsed, parser_of, write
from torch.nn import functional

from flarekit import models
from flarekit.phantom import abdomen_phantom

LABELS = (1, 3, 2, 13)
CLASSES = len(LABELS) + 1
SPACING_MM = (4.0, 3.5, 3.5)
TRAINED_ON, UNSEEN = range(2000, 2006), 2100
NNUNET: dict[str, Any] = {
    "input_channels": 1, "num_classes": CLASSES, "n_stages": 4,
    "features_per_stage": [16, 32, 64, 64], "kernel_sizes": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": 2, "n_conv_per_stage_decoder": 2,
}  # fmt: skip
SMALL: dict[str, Any] = {"input_channels": 1, "num_classes": CLASSES}
NETWORKS: dict[str, dict[str, Any]] = {
    "nnunet": {**NNUNET, "n_conv_per_stage": [2] * 4, "n_conv_per_stage_decoder": [2] * 3},
    "umamba": NNUNET,
    "att_umamba": NNUNET,
    "mamba_clinix": NNUNET,
    "mpu_net": {**SMALL, "width": 0.25},
    "attention_unet": {**SMALL, "width": 0.25},
    "mamba_ahnet": {**SMALL, "width": 0.25, "reconstruction": False},
}
FLAT = ("attention_unet", "mamba_ahnet")
Case = tuple[torch.Tensor, torch.Tensor]
Cases = list[Case]
TILE_3D, TILE_2D = (24, 64, 64), (96, 96)


def load(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image (Z, Y, X) and class indices of a phantom on a coarse grid, cropped to 16s."""
    phantom = abdomen_phantom(seed, spacing_mm_ZYX=SPACING_MM)
    table = np.zeros(256, np.int64)
    table[list(LABELS)] = range(1, CLASSES)
    image = torch.from_numpy(np.clip(phantom.hu_ZYX, -125, 275).astype(np.float32) / 100)
    classes = torch.from_numpy(table[phantom.labels_ZYX])
    size = [n // 16 * 16 for n in image.shape]
    return image[: size[0], : size[1], : size[2]], classes[: size[0], : size[1], : size[2]]


def sample(cases: Cases, rng: np.random.Generator, *, flat: bool) -> Case:
    image, classes = cases[rng.integers(len(cases))]
    tile = (1, *TILE_2D) if flat else TILE_3D
    box = []
    for n, t in zip(image.shape, tile, strict=True):
        start = int(rng.integers(max(1, n - t + 1)))
        box.append(slice(start, start + min(n, t)))
    part, target = image[tuple(box)], classes[tuple(box)]
    return (part, target) if flat else (part[None], target[None])


def train(name: str, cases: Cases, seconds: float, device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = models.create(name, **NETWORKS[name]).to(device).train()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    began, flat = time.monotonic(), name in FLAT
    while time.monotonic() - began < seconds:
        pairs = [sample(cases, rng, flat=flat) for _ in range(4 if flat else 1)]
        image = torch.stack([p[0] for p in pairs]).to(device)
        target = torch.stack([p[1][0] for p in pairs]).to(device)
        output = network(image)
        scores = output.clamp_min(1e-6).log() if name == "mpu_net" else output
        weights = torch.ones(CLASSES, device=device) * 10
        weights[0] = 1
        loss = functional.cross_entropy(scores, target, weights)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network.eval()


def main(line: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("networks", nargs="*", help="all, or nnunet where --quick")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--device", default="cpu")
    arguments = parsed(parser, line)
    networks, seeds = arguments.networks or list(NETWORKS), TRAINED_ON
    if arguments.quick:
        networks, seeds = arguments.networks or ["nnunet"], TRAINED_ON[:1]
        arguments.seconds = 1.0
    half = torch.bfloat16 if arguments.device == "cpu" else torch.float16
    cases = [load(seed) for seed in seeds]
    image, truth = load(UNSEEN)
    path = arguments.output / f"half_precision_{arguments.device.split(':')[0]}.json"
    rows = json.loads(path.read_text())["networks"] if path.exists() else {}
    for name in networks:
        network = train(name, cases, arguments.seconds, arguments.device)
        x = image[:, None] if name in FLAT else image[None, None]
        with torch.inference_mode():
            exact = network(x.to(arguments.device)).argmax(1).cpu().reshape(truth.shape)
            with torch.autocast(arguments.device.split(":")[0], half):
                rounded = (
                    network(x.to(arguments.device)).float().argmax(1).cpu().reshape(truth.shape)
                )
        overlap = ((exact == truth) & (truth > 0)).sum() * 2
        rows[name] = {
            "voxels_equal": round(float((exact == rounded).float().mean()), 6),
            "foreground_dice_fp32": round(
                float(overlap / ((exact > 0).sum() + (truth > 0).sum())), 4
            ),
            "seconds_of_training": arguments.seconds,
            "parameters": sum(p.numel() for p in network.parameters()),
        }
        print(name, rows[name], flush=True)
    result = {"half": str(half), "networks": rows}
    write(path, result)


if __name__ == "__main__":
    main()
