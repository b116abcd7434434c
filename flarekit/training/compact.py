"""A trainer for small machines: seconds to start, time-boxed, resumable after a kill."""

from __future__ import annotations

import io
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flarekit import models
from flarekit.core.errors import FlarekitError, InputError
from flarekit.core.files import make_folder, write_atomically
from flarekit.core.spec import HalfPrecision, read_spec
from flarekit.engine import Precision
from flarekit.engine.torch import choose_device, choose_precision
from flarekit.training.curve import Curve
from flarekit.training.recipe import Recipe
from flarekit.training.samples import Batch, Pool, Sampler

_LOG = logging.getLogger(__name__)
Show = Callable[[nn.Module, dict[str, Any]], None]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AMPERE = 8  # first generation of GPUs that computes in bf16
_MOST_FAILURES = 20  # steps in a row without a finite loss
CHECKPOINT, RECIPE = "checkpoint.pt", "recipe.toml"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is made; what is trained stands in the recipe.

    Attributes:
        minutes: training time in all, interrupted runs counted in.
        device: as for prediction, see `flarekit.engine.torch.choose_device`.
        precision: `auto` is bf16 where the device computes in it, else fp16 on CUDA and fp32 on a
            CPU.
        checkpoint_every_s: what a kill loses at most, and the step that it falls into.
        record_every: steps per point of the curve.
        draw_every_s: seconds between pictures of the curve.
        show_every_s: seconds between calls of `show` in `train`.
        start: predictor folder whose weights a new run begins with; random ones where None.
        ahead: batches that a thread draws before they are needed; by default on CUDA only, where
            drawing is launching kernels.
    """

    minutes: float
    device: str = "auto"
    precision: Precision = "auto"
    checkpoint_every_s: float = 40.0
    record_every: int = 20
    draw_every_s: float = 300.0
    show_every_s: float = 30.0
    start: Path | None = None
    ahead: int | None = None


@dataclass
class _State:
    """What a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0
    failures: int = 0
    start: str = ""  # SHA-256 of the weights that it began with


def train(
    recipe: Recipe,
    pools: Sequence[Pool],
    run_dir: Path,
    options: RunOptions,
    *,
    progress: Callable[[int, float, float], None] = lambda *_: None,
    show: Show = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
) -> nn.Module:
    """Train until the time is used up, going on from the last checkpoint in a folder.

    The learning rate follows the time, not the steps. The returned weights are a running average of
    the trained ones.

    Args:
        recipe: architecture and training facts.
        pools: the cases.
        run_dir: gets `checkpoint.pt`, `recipe.toml`, `curve.csv` and `curve.png`.
        options: time, device, precision.
        progress: called after every step with the step, the minutes used and the loss.
        show: called now and then with the averaged network and the steps and minutes so far.
        clock: seconds.

    Raises:
        InputError: the checkpoint is damaged, or another recipe's.
        PredictorError: weights to start with that are missing, or do not fit the recipe.
        DeviceError: the device or the precision is not available.
        FlarekitError: the loss stays infinite.
        OutputError: the folder cannot be written.
    """
    device = choose_device(options.device)
    half = recipe.spec.half_precisions
    dtype = _DTYPES[_training_precision(options.precision, device, half)]
    make_folder(run_dir)
    for left in run_dir.glob(".*.tmp"):  # of a write that a kill cut short
        left.unlink(missing_ok=True)
    state = _begun(recipe, run_dir, options.start, device, dtype)
    write_atomically(run_dir / RECIPE, recipe.text.encode())
    curve = Curve.resumed(run_dir, state.step)
    _LOG.info("%s in %s from step %d", device, dtype, state.step)
    saved = drawn = shown = state.seconds
    began = clock() - state.seconds
    ahead = options.ahead if options.ahead is not None else 3 * (device.type == "cuda")
    with _Batches(Sampler(recipe, pools, device), ahead) as batches:
        while (done := (clock() - began) / (60 * options.minutes)) < 1:
            loss = _step(state, recipe, batches.at(state.step), done, dtype)
            state.seconds = clock() - began
            curve.add(loss)
            progress(state.step, state.seconds / 60, loss)
            if state.step % options.record_every == 0:
                curve.record(state.step, state.seconds, _rate(state))
            if state.seconds - saved > options.checkpoint_every_s:
                _save(state, run_dir / CHECKPOINT)
                saved = state.seconds
            if state.seconds - drawn > options.draw_every_s:
                curve.draw()
                drawn = state.seconds
            if state.seconds - shown > options.show_every_s:
                show(state.average, _effort(state))
                shown = state.seconds
    curve.record(state.step, state.seconds, _rate(state))
    _save(state, run_dir / CHECKPOINT)
    curve.draw()
    return state.average


def _training_precision(
    request: Precision, device: torch.device, half_precisions: Sequence[HalfPrecision]
) -> str:
    """Return the precision that a request means for training: bf16 needs no scaled losses."""
    cuda = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= _AMPERE
    if request == "auto" and cuda and "bf16" in half_precisions:
        return "bf16"
    return choose_precision(request, device, half_precisions)


def averaged_network(recipe: Recipe, checkpoint: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the averaged network of a checkpoint, and its steps, minutes and what it began with.

    Raises:
        InputError: no checkpoint there, or it is damaged, or another recipe's.
    """
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: is not there", fix="train first: flarekit train compact")
    state = _start(recipe, torch.device("cpu"), torch.float32)
    _resume(state, checkpoint)
    return state.average, _effort(state)


def _effort(state: _State) -> dict[str, Any]:
    effort = {"steps": state.step, "minutes": round(state.seconds / 60, 1)}
    return effort | ({"start_sha256": state.start} if state.start else {})


class _Batches:
    """Batches by step, some of them drawn ahead by threads."""

    def __init__(self, sampler: Sampler, ahead: int) -> None:
        self._sampler = sampler
        self._ahead = ahead
        self._threads = ThreadPoolExecutor(max_workers=1)
        self._coming: dict[int, Future[Batch]] = {}

    def __enter__(self) -> _Batches:
        return self

    def __exit__(self, *exception: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def at(self, step: int) -> Batch:
        """Return the batch of a step."""
        for coming in range(step + 1, step + 1 + self._ahead):
            if coming not in self._coming:
                self._coming[coming] = self._threads.submit(self._sampler.batch, coming)
        future = self._coming.pop(step, None)
        return self._sampler.batch(step) if future is None else future.result()


def _start(recipe: Recipe, device: torch.device, dtype: torch.dtype) -> _State:
    torch.manual_seed(0)
    architecture = recipe.spec.architecture
    arguments = {**architecture.arguments, **_only_in_training(recipe)}
    network = models.create(architecture.name, **arguments).to(device).train()
    average = models.create(architecture.name, **arguments).to(device)
    average.load_state_dict(network.state_dict())
    return _State(
        network=network,
        average=average.requires_grad_(False),
        optimiser=recipe.regime.optimiser.build(
            network.parameters(), recipe.training.learning_rate
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
    )


def _begun(
    recipe: Recipe, run_dir: Path, start: Path | None, device: torch.device, dtype: torch.dtype
) -> _State:
    """Return the state that a folder's checkpoint holds, or that of a new run."""
    state = _start(recipe, device, dtype)
    checkpoint = run_dir / CHECKPOINT
    if checkpoint.exists():
        if start is not None:
            _LOG.info("%s goes on; %s was for its beginning", run_dir, start)
        _resume(state, checkpoint)
    elif start is not None:
        _begin_with(state, recipe, start)
    return state


def _begin_with(state: _State, recipe: Recipe, folder: Path) -> None:
    """Take the weights of a predictor; what it has no tensors for stays random."""
    predictor = read_spec(folder)
    network = models.create(recipe.spec.architecture.name, **recipe.spec.architecture.arguments)
    models.load_weights(network, predictor.weights)
    tensors = models.own_tensors(network)
    with torch.no_grad():
        for module in (state.network, state.average):
            for name, tensor in models.own_tensors(module).items():
                if name in tensors:
                    tensor.copy_(tensors[name])
    state.start = predictor.spec.weights.sha256
    _LOG.info("starts with the weights of %s", folder)


def _only_in_training(recipe: Recipe) -> dict[str, Any]:
    """Return arguments of the outputs that the loss looks at and prediction does not need."""
    if recipe.spec.architecture.name == "mamba_ahnet":  # one output in the paper, and the image
        return {"reconstruction": recipe.regime.objective.reconstruction > 0}
    return {"deep_supervision": True}


def _rate(state: _State) -> float:
    return float(state.optimiser.param_groups[0]["lr"])


def _step(
    state: _State, recipe: Recipe, batch: Batch, progress: float, dtype: torch.dtype
) -> float:
    regime, facts = recipe.regime, recipe.training
    peak = facts.learning_rate or regime.optimiser.learning_rate
    for group in state.optimiser.param_groups:
        group["lr"] = peak * regime.schedule.factor(progress)
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


def _count_failure(state: _State) -> None:
    state.failures += 1
    _LOG.warning("step %d: the loss is not finite; the step is left out", state.step)
    if state.failures > _MOST_FAILURES:
        raise FlarekitError(
            f"the loss was not finite {state.failures} times in a row",
            fix="lower training.learning_rate, or use --precision fp32",
        )


@torch.no_grad()
def _average(state: _State, most: float) -> None:
    keep = min(most, 1 - 10 / (state.step + 10))
    means: list[torch.Tensor] = list(state.average.parameters())
    values: list[torch.Tensor] = list(state.network.parameters())
    torch._foreach_lerp_(means, values, 1 - keep)  # noqa: SLF001 - one launch for all of them
    for kept, statistic in zip(state.average.buffers(), state.network.buffers(), strict=True):
        kept.copy_(statistic)  # running statistics are averages already


def _save(state: _State, path: Path) -> None:
    content: dict[str, Any] = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "start": state.start,
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomically(path, stream.getvalue())


def _resume(state: _State, path: Path) -> None:
    fix = "give the recipe of that run, or train in another folder"
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        state.network.load_state_dict(content["network"])
        state.average.load_state_dict(content["average"])
        state.optimiser.load_state_dict(content["optimiser"])
    except (RuntimeError, ValueError, KeyError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: is not this recipe's checkpoint: {reason}", fix=fix) from error
    if content.get("scaler") and state.scaler.is_enabled():
        state.scaler.load_state_dict(content["scaler"])
    state.step, state.seconds = content["step"], content["seconds"]
    state.start = content.get("start", "")
