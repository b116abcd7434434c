"""A trainer for small machines: seconds to start, time-boxed, resumable after a kill."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from flarekit import models
from flarekit.training.losses import partial_label_loss
from flarekit.training.recipe import Recipe
from flarekit.training.samples import TrainingCase, draw_sample

_LOG = logging.getLogger(__name__)
_WARM_UP = 0.02  # of the time
_AVERAGE = 0.998  # weight of the past in the running average of the weights


@dataclass
class _State:
    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def train(
    recipe: Recipe,
    real: Sequence[TrainingCase],
    phantoms: Sequence[TrainingCase],
    *,
    run_dir: Path,
    minutes: float,
    device: str = "cpu",
    checkpoint_every_s: float = 300.0,
) -> nn.Module:
    """Train until the time is used up, going on from the last checkpoint in `run_dir`.

    The learning rate follows the time, not the steps: a short warm-up, then half a cosine. The
    returned weights are a running average of the trained ones.

    Args:
        recipe: architecture and training facts.
        real: labelled scans on the network's grid.
        phantoms: phantoms on the same grid; may be empty.
        run_dir: gets `checkpoint.pt` and `curve.jsonl`.
        minutes: training time in all, interrupted runs counted in.
        device: a torch device; bfloat16 autocast on the CPU, float16-safe bfloat16 on CUDA too.
        checkpoint_every_s: seconds between checkpoints.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    state = _start(recipe, device)
    _resume(state, run_dir / "checkpoint.pt")
    saved, began = time.monotonic(), time.monotonic() - state.seconds
    losses: list[float] = []
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in state.optimiser.param_groups:
            group["lr"] = recipe.training.learning_rate * _schedule(progress)
        losses.append(_step(state, recipe, real, phantoms, device))
        if state.step % 50 == 0:
            state.seconds = time.monotonic() - began
            _record(run_dir / "curve.jsonl", state, float(np.mean(losses)))
            losses.clear()
        if time.monotonic() - saved > checkpoint_every_s:
            state.seconds, saved = time.monotonic() - began, time.monotonic()
            _save(state, run_dir / "checkpoint.pt")
    state.seconds = time.monotonic() - began
    if losses:
        _record(run_dir / "curve.jsonl", state, float(np.mean(losses)))
    _save(state, run_dir / "checkpoint.pt")
    return state.average


def averaged_network(recipe: Recipe, checkpoint: Path) -> tuple[nn.Module, dict[str, float]]:
    """Return the averaged network of a checkpoint, and its steps and minutes."""
    state = _start(recipe, "cpu")
    _resume(state, checkpoint)
    return state.average, {"steps": state.step, "minutes": round(state.seconds / 60, 1)}


def _start(recipe: Recipe, device: str) -> _State:
    torch.manual_seed(0)
    architecture = recipe.spec.architecture
    arguments = {**architecture.arguments, "deep_supervision": True}
    network = models.create(architecture.name, **arguments).to(device)
    average = models.create(architecture.name, **arguments).to(device)
    average.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-4)
    return _State(network=network, average=average.requires_grad_(False), optimiser=optimiser)


def _schedule(progress: float) -> float:
    return min(1.0, progress / _WARM_UP + 0.01) * 0.5 * (1 + math.cos(math.pi * progress))


def _step(
    state: _State,
    recipe: Recipe,
    real: Sequence[TrainingCase],
    phantoms: Sequence[TrainingCase],
    device: str,
) -> float:
    rng = np.random.default_rng([7, state.step])
    facts = recipe.training
    samples = []
    for _ in range(facts.batch):
        pool = phantoms if phantoms and rng.random() < facts.phantom_share else real
        case = pool[int(rng.integers(len(pool)))]
        samples.append(draw_sample(case, facts.tile_ZYX, recipe.spacing_mm_ZYX, rng))
    image = torch.stack([sample[0] for sample in samples]).to(device)
    classes = torch.stack([sample[1] for sample in samples]).to(device)
    unlabelled = tuple(
        recipe.spec.class_values.index(recipe.spec.labels[name]) for name in facts.unlabelled
    )
    with torch.autocast(torch.device(device).type, torch.bfloat16):
        outputs: list[torch.Tensor] = state.network(image)
    loss = torch.zeros((), device=device)
    weights = [0.5**level for level in range(min(3, len(outputs)))]
    for weight, logits in zip(weights, outputs, strict=False):
        scaled = functional.interpolate(
            classes[:, None].float(), size=logits.shape[2:], mode="nearest-exact"
        )[:, 0].long()
        loss = loss + weight / sum(weights) * partial_label_loss(logits, scaled, unlabelled)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(state.network.parameters(), 2.0)
    state.optimiser.step()
    state.step += 1
    keep = min(_AVERAGE, 1 - 10 / (state.step + 10))
    for mean, value in zip(state.average.parameters(), state.network.parameters(), strict=True):
        mean.lerp_(value.detach(), 1 - keep)
    for kept, statistic in zip(state.average.buffers(), state.network.buffers(), strict=True):
        kept.copy_(statistic)  # running statistics are averages already
    return float(loss.detach())


def _record(path: Path, state: _State, loss: float) -> None:
    row = {"step": state.step, "minutes": round(state.seconds / 60, 2), "loss": round(loss, 4)}
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(row) + "\n")
    _LOG.info("step %(step)d, %(minutes).1f min, loss %(loss).3f", row)


def _save(state: _State, path: Path) -> None:
    content: dict[str, Any] = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
    }
    temporary = path.with_suffix(".tmp")
    torch.save(content, temporary)
    temporary.replace(path)


def _resume(state: _State, path: Path) -> None:
    if not path.exists():
        return
    content = torch.load(path, weights_only=True)
    state.network.load_state_dict(content["network"])
    state.average.load_state_dict(content["average"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.step, state.seconds = content["step"], content["seconds"]
