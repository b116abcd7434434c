"""How many samples a step of training takes on a card: recipes here have a CPU's batch.

A step of few samples leaves a large GPU waiting for launches; one of too many does not fit beside
the other trainings. So the batch is the one that an H200 was kept busy with, or as much of it as
there is room for, and the learning rate goes with its square root, up to the regime's own.
"""

from __future__ import annotations

import re
from dataclasses import replace

import torch

from flarekit.training.networks import as_trained
from flarekit.training.recipe import Recipe
from flarekit.training.regimes import REGIMES

TILES, SLICES = 4, 24  # of a step on an H200, where the recipe has fewer
_BESIDE = 1.5  # times what is kept for the way back: gradients, and what libraries take
_MIB = 2**20


def sized(recipe: Recipe, room_mib: float, device: torch.device) -> Recipe:
    """Return a recipe whose steps suit a card.

    Args:
        recipe: as its file says.
        room_mib: what this training may take of the card's memory.
        device: the card.
    """
    return with_batch(recipe, batch_within(recipe, room_mib, kept_mib(recipe, device)))


def batch_within(recipe: Recipe, room_mib: float, sample_mib: float) -> int:
    """Return how many samples a step takes; one at least.

    Args:
        recipe: its batch is taken where it is larger and fits.
        room_mib: what the training may take.
        sample_mib: what is kept of one sample until its gradients are there.
    """
    wanted = max(recipe.training.batch, SLICES if recipe.flat else TILES)
    return max(1, min(wanted, int(room_mib / (_BESIDE * sample_mib))))


def with_batch(recipe: Recipe, batch: int) -> Recipe:
    """Return a recipe with another batch, and the learning rate that goes with it, in its text too.

    The rate rises or falls with the square root of the batch; it does not rise above the regime's.
    """
    if batch == recipe.training.batch:
        return recipe
    rate = recipe.regime.optimiser.learning_rate
    most = max(rate, REGIMES[recipe.training.regime].optimiser.learning_rate)
    scaled = min(most, rate * (batch / recipe.training.batch) ** 0.5)
    changed = {"batch": batch, "learning_rate": float(f"{scaled:.2g}")}
    text = recipe.text
    for name, value in changed.items():
        text = _with_setting(text, name, value)
    return replace(recipe, text=text, training=recipe.training.model_copy(update=changed))


def _with_setting(text: str, name: str, value: float) -> str:
    """Return a recipe's text with one line of its table `[training]` replaced or added."""
    before, header, after = re.split(r"(?m)^(\[training\].*\n)", text, maxsplit=1)
    table, *others = re.split(r"(?m)^(?=\[)", after, maxsplit=1)
    table = re.sub(rf"(?m)^{name} *=.*\n", "", table)
    return "".join((before, header, f"{name} = {value}\n", table, *others))


def kept_mib(recipe: Recipe, device: torch.device) -> float:
    """Return what the forward of one blank sample keeps for its gradients, in MiB.

    In bf16 where the network may be computed in it, as training does on a GPU.
    """
    network = as_trained(recipe).to(device).train()
    channels, tile = len(recipe.spec.channels), recipe.training.tile_ZYX
    blank = torch.zeros((1, channels, *(tile[1:] if recipe.flat else tile)), device=device)
    weights = {each.untyped_storage().data_ptr() for each in network.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    half = torch.autocast(
        device.type, torch.bfloat16, enabled="bf16" in recipe.spec.half_precisions
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), half:
        outputs = network(blank)
    del outputs
    return max(1, sum(kept.values())) / _MIB
