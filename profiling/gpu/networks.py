"""The papers' networks at full width, with weights from a seed, at their papers' patch sizes.

`sizes` runs the FLARE23 network as a predictor at the eight sizes of its paper's Table 4: 39.6 to
351 s, 2218 MB, and an area of 75,269 to 762,258 MB s there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpu import inputs
from gpu.cases import Reports
from gpu.device import cuda_memory, ms_each
from gpu.supervise import Settings
from gpu.tiles import launches
from gpu.untrained import write
from gpu.worker import Record

FLARE23 = "flare23_attention_unet"
_LEAST_S = 4.0
_NNUNET: dict[str, Any] = {
    "n_stages": 6,
    "features_per_stage": [32, 64, 128, 256, 320, 320],
    "n_conv_per_stage": 2,
    "n_conv_per_stage_decoder": 2,
}
_HALVED = [[2, 2, 2]] * 4
_ABDOMEN: dict[str, Any] = _NNUNET | {
    "input_channels": 1,
    "num_classes": 14,
    "kernel_sizes": [[1, 3, 3]] + [[3, 3, 3]] * 5,
    "strides": [[1, 1, 1], [1, 2, 2], *_HALVED[1:], [1, 2, 2]],
}
_PSMA: dict[str, Any] = _NNUNET | {
    "input_channels": 2,
    "num_classes": 2,
    "kernel_sizes": [[3, 3, 3]] * 6,
    "strides": [[1, 1, 1], *_HALVED, [1, 2, 1]],
}
# where it stands, architecture, arguments, input
NETWORKS: tuple[tuple[str, str, dict[str, Any], tuple[int, ...]], ...] = (
    ("MambaClinix, abdomen", "mamba_clinix", _ABDOMEN, (1, 1, 40, 224, 192)),
    ("Att-UMamba, PSMA", "att_umamba", _PSMA | {"mamba": "bot"}, (1, 2, 112, 192, 112)),
    ("Attention U-Net, FLARE23", "attention_unet", {}, (8, 3, 512, 512)),
    ("Mamba-AHNet", "mamba_ahnet", {"reconstruction": False}, (8, 1, 256, 256)),
    ("MPU-Net", "mpu_net", {}, (1, 1, 48, 256, 256)),
)
_FACTS = """
name = "flare23_attention_unet"
title = "13 organs and tumour on CT, the FLARE23 network at full width, random weights"
convention = "flare"

[architecture]
name = "attention_unet"

[architecture.arguments]
input_channels = 1
num_classes = 15

[[channels]]
name = "CT"
intensity = { kind = "window", low_hu = -325, high_hu = 325, mean = 0, std = 100 }

[grid]
spacing_mm_ZYX = ["scan", "scan", "scan"]
tile_ZYX = [1, 512, 512]
step = 1.0
decide = "network"

[labels]
LABELS
[weights]
file = "model.safetensors"
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
parameters = 1
"""


def run(settings: Settings, record: Record, which: str = "patches") -> None:
    """Time the networks, or run the FLARE23 one as a predictor.

    Args:
        settings: of the check.
        record: gets a row for every network, or for every case.
        which: `patches` or `sizes`.
    """
    if which == "sizes":
        _run_sizes(settings, record)
        return
    for place, architecture, arguments, shape in NETWORKS:
        row: dict[str, Any] = {"network": place, "input": list(shape)}
        if settings.left_s < _LEAST_S:
            record.append("networks", {**row, "skipped": "no time left"})
            continue
        with record.attempt(place):
            row |= _time(settings, architecture, arguments, shape)
        record.append("networks", row)


def _time(
    settings: Settings, architecture: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    import torch

    from flarekit import models

    if settings.quick:
        arguments, shape = _smaller(architecture, arguments, shape)
    torch.manual_seed(0)
    with torch.device(settings.device):
        network = models.create(architecture, **arguments).eval().requires_grad_(False)
    given = torch.randn(shape, device=settings.device)
    half = torch.float16 if settings.device == "cuda" else torch.bfloat16
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters())}
    with torch.inference_mode():
        for name, dtype in (("half", half), ("fp32", torch.float32)):
            if settings.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

            def work(dtype: Any = dtype) -> Any:  # noqa: ANN401
                with torch.autocast(settings.device, dtype, enabled=dtype != torch.float32):
                    return network(given)

            logits = work()
            row: dict[str, Any] = {
                "precision": str(dtype),
                "finite": float(torch.isfinite(logits.float()).float().mean()),
                "ms": ms_each(work, settings.device, rounds=10, most_s=0.5),
                **launches(work, settings.device),
            }
            found[name] = row | (cuda_memory() if settings.device == "cuda" else {})
    return found


def _smaller(
    architecture: str, arguments: dict[str, Any], shape: tuple[int, ...]
) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return a narrow network and a small input: to see that it runs."""
    if "features_per_stage" in arguments:
        narrow = arguments | {"features_per_stage": [8, 8, 16, 16, 32, 32]}
        return narrow, (*shape[:2], 32, 64, 64)
    size = (16, 32, 32) if architecture == "mpu_net" else (64, 64)
    return arguments | {"width": 0.25}, (1, shape[1], *size)


def _run_sizes(settings: Settings, record: Record) -> None:
    folder = Path(settings.work) / "weights" / FLARE23
    labels = "".join(f"organ_{value} = {value}\n" for value in range(1, 15))
    facts = _FACTS.replace("LABELS", labels)
    if settings.quick:
        facts = facts.replace("num_classes = 15", "num_classes = 15\nwidth = 0.125")
        facts = facts.replace("[1, 512, 512]", "[1, 128, 128]")
    write(folder, facts)
    reports = Reports(settings)
    every = inputs.sizes("flare", quick=settings.quick, every=not settings.quick)
    # the ends first: time may not suffice for all
    order = sorted(every, key=lambda size: (size not in (every[0], every[-1]), -size))
    for size in order:
        row: dict[str, Any] = {"predictor": FLARE23, "size": size, "weights": "random"}
        if settings.left_s < _LEAST_S:
            record.append("cases", {**row, "skipped": "no time left"})
            continue
        scan = inputs.wait_for(settings, "flare", size)
        if scan is None:
            record.append("cases", {**row, "skipped": "its input was not ready in time"})
            continue
        with record.attempt(f"{FLARE23} {size}"):
            row |= reports.monitor(str(folder), scan, FLARE23, f"{FLARE23}_{size}")
        record.append("cases", row)
    reports.pack()
