"""One step of a compact training: forward, loss, backward, and the running average of weights."""

import logging
import math

import torch
from torch import nn

from flarekit.core.errors import FlarekitError
from flarekit.training.recipe import Recipe
from flarekit.training.samples import Batch
from flarekit.training.state import TrainingState

_LOG = logging.getLogger(__name__)
_MOST_FAILURES = 20  # steps in a row without a finite loss


def learning_rate(state: TrainingState) -> float:
    """Return what the optimiser has for its first group of weights."""
    return float(state.optimiser.param_groups[0]["lr"])


def train_step(
    state: TrainingState,
    recipe: Recipe,
    batch: Batch,
    progress: float,
    dtype: torch.dtype,
    slower: float,
) -> float:
    """Train one step, and return its loss; a step whose loss is not finite changes no weights.

    Args:
        state: its networks and optimiser are changed in place.
        recipe: architecture and training facts.
        batch: what the step is trained on.
        progress: the share of the training's time that is used up.
        dtype: that the network computes in.
        slower: factor on the learning rate, beside the schedule's.

    Raises:
        FlarekitError: the loss has not been finite for many steps in a row.
    """
    regime, facts = recipe.regime, recipe.training
    for group in state.optimiser.param_groups:
        group["lr"] = slower * regime.optimiser.learning_rate * regime.schedule.factor(progress)
    with torch.autocast(batch.image.device.type, dtype, enabled=dtype != torch.float32):
        outputs = state.network(batch.image)
    loss = regime.objective(
        outputs,
        batch.target,
        batch.image,
        architecture=recipe.spec.architecture.name,
        epoch=regime.schedule.epoch(progress),
    )
    state.step += 1
    value = float(loss.detach())
    state.optimiser.zero_grad(set_to_none=True)
    if not math.isfinite(value):
        _count_failure(state)
        return value
    state.failures = 0
    state.scaler.scale(loss).backward()
    state.scaler.unscale_(state.optimiser)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), regime.clip)
    if state.scaler.is_enabled() or bool(torch.isfinite(norm)):
        state.scaler.step(state.optimiser)
    state.scaler.update()
    _average(state, facts.average)
    return value


def _count_failure(state: TrainingState) -> None:
    state.failures += 1
    _LOG.warning("step %d: the loss is not finite; the step is left out", state.step)
    if state.failures > _MOST_FAILURES:
        raise FlarekitError(
            f"the loss was not finite {state.failures} times in a row",
            fix="lower training.learning_rate, or use --precision fp32",
        )


@torch.no_grad()
def _average(state: TrainingState, most: float) -> None:
    keep = min(most, 1 - 10 / (state.step + 10))
    means: list[torch.Tensor] = list(state.average.parameters())
    values: list[torch.Tensor] = list(state.network.parameters())
    torch._foreach_lerp_(means, values, 1 - keep)  # noqa: SLF001 - one launch for all of them
    for kept, statistic in zip(state.average.buffers(), state.network.buffers(), strict=True):
        kept.copy_(statistic)  # running statistics are averages already
