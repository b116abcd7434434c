"""A trainer for small machines: seconds to start, time-boxed, resumable after a kill."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from flarekit.core.errors import UsageError
from flarekit.core.files import make_folder
from flarekit.core.spec import HalfPrecision
from flarekit.engine import Precision
from flarekit.engine.torch import choose_device, choose_precision, device_name
from flarekit.training.curve import Curve
from flarekit.training.networks import estimate_statistics
from flarekit.training.recipe import Recipe
from flarekit.training.run_record import CHECKPOINT, keep_recipe
from flarekit.training.samples import Batch, Pool, Sampler
from flarekit.training.state import (
    TrainingState,
    begin_stage,
    begun_state,
    save_state,
    try_network,
)
from flarekit.training.step import learning_rate, train_step
from flarekit.training.validation import Validation

_LOG = logging.getLogger(__name__)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_AMPERE = 8  # first generation of GPUs that computes in bf16
_VALIDATIONS = 10  # in a training, and at its end
_STATISTICS_SAMPLES, _LEAST_SAMPLES = 96, 16  # that batch normalisation's statistics are of
_STATISTICS_SHARE = 0.05  # of the minutes of training
_LEAST_BETWEEN = 10.0  # times what a validation takes, so that it costs a tenth at most


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
        start: predictor folder whose weights a new run begins with; random ones where None.
        ahead: batches that a thread draws before they are needed; by default on CUDA only, where
            drawing is launching kernels.
        seed: of the first weights and of the samples.

    Raises:
        UsageError: a time in which nothing is trained, or that never ends.
    """

    minutes: float
    device: str = "auto"
    precision: Precision = "auto"
    checkpoint_every_s: float = 40.0
    record_every: int = 20
    draw_every_s: float = 300.0
    start: Path | None = None
    ahead: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a time that is none: untrained weights would be exported as if they were."""
        if not 0 < self.minutes < math.inf:
            raise UsageError(
                f"--minutes {self.minutes:g}: leaves no time to train", fix="give more than 0"
            )


def train(
    recipe: Recipe,
    pools: Sequence[Pool],
    run_dir: Path,
    options: RunOptions,
    *,
    validation: Validation | None = None,
    progress: Callable[[int, float, float], None] = lambda *_: None,
    clock: Callable[[], float] = time.monotonic,
) -> nn.Module:
    """Train until the time is used up, going on from the last checkpoint in a folder.

    Stages of the recipe share the time in proportion to their minutes. The learning rate follows
    the time of its stage, not the steps; validation may lower it, or end the training, where the
    recipe's schedule says so. Stages on another grid than the predictor's are not validated. The
    returned weights are a running average of the trained ones. Validation does not count as
    training time, and takes a tenth of it at most, beside the one at the end.

    Args:
        recipe: architecture and training facts.
        pools: the cases.
        run_dir: gets `checkpoint.pt`, `recipe.toml`, `curve.csv` and `curve.png`.
        options: time, device, precision.
        validation: measures the averaged network now and then, and at the end.
        progress: called after every step with the step, the minutes used and the loss.
        clock: seconds.

    Raises:
        InputError: the checkpoint is damaged, or another recipe's, or the recipe has changed.
        PredictorError: weights to start with that are missing, or do not fit the recipe; a network
            that does not take its samples, or gives other classes than the recipe has.
        DeviceError: the device or the precision is not available.
        FlarekitError: the loss stays infinite.
        OutputError: the folder cannot be written.
    """
    make_folder(run_dir)
    for left in run_dir.glob(".*.tmp"):  # by a write that a kill cut short
        left.unlink(missing_ok=True)
    run = _Run(recipe, run_dir, options, validation, clock)
    ahead = options.ahead if options.ahead is not None else 3 * (run.device.type == "cuda")
    for stage in run.stages():
        with _Batches(Sampler(stage, pools, run.device, options.seed), ahead) as batches:
            while (done := run.share_done()) < 1:
                loss = run.step(batches, done)
                progress(run.state.step, run.state.seconds / 60, loss)
                run.keep_up()
            if run.is_last_stage:
                run.estimate_statistics(batches)
    run.end()
    return run.state.average


class _Run:
    """A training under way: its steps, and what is saved, drawn and measured between them."""

    def __init__(
        self,
        recipe: Recipe,
        run_dir: Path,
        options: RunOptions,
        validation: Validation | None,
        clock: Callable[[], float],
    ) -> None:
        self.state, self.device, self._precision = _begun(recipe, run_dir, options)
        self._dtype = _DTYPES[self._precision]
        keep_recipe(recipe, run_dir)
        self._curve = Curve.resumed(run_dir, self.state.step)
        self.state.note_device(f"{device_name(self.device)} in {self._precision}")
        _LOG.info("%s in %s from step %d", self.device, self._dtype, self.state.step)
        self._recipe, self._options, self._validation = recipe, options, validation
        self._stage, self._ends = recipe.stages[0], _ends(recipe)
        self._clock, self._checkpoint = clock, run_dir / CHECKPOINT
        self._last = dict.fromkeys(("saved", "drawn", "measured"), self.state.seconds)
        self._began = clock() - self.state.seconds
        self._slower, self._has_ended = recipe.regime.schedule.after(self._curve.dice)

    def stages(self) -> Iterator[Recipe]:
        """Yield the recipe of every stage that is not over, and go on to it."""
        for number in range(self.state.stage, len(self._ends)):
            if number > self.state.stage:
                begin_stage(self.state, self._recipe, number)
            self._stage = self._recipe.stages[number]
            if len(self._ends) > 1:
                _LOG.info("stage %d of %d", number + 1, len(self._ends))
            yield self._stage

    @property
    def is_last_stage(self) -> bool:
        """Whether no stage follows."""
        return self.state.stage == len(self._ends) - 1

    def share_done(self) -> float:
        """Return the share of the stage's time that is used up.

        It is all of it once validation has ended the training.
        """
        if self._has_ended:
            return 1.0
        ends = (0.0, *self._ends)
        before, end = ends[self.state.stage], ends[self.state.stage + 1]
        done = (self._clock() - self._began) / (60 * self._options.minutes)
        return max(0.0, (done - before) / (end - before))

    def step(self, batches: _Batches, done: float) -> float:
        """Train one step and return its loss."""
        state = self.state
        batch = batches.at(state.step)
        loss = train_step(state, self._stage, batch, done, self._dtype, self._slower)
        state.seconds = self._clock() - self._began
        self._curve.add(loss)
        return loss

    def keep_up(self) -> None:
        """Record, save, draw and measure what is due after a step."""
        options, state = self._options, self.state
        if state.step % options.record_every == 0:
            self._record()
        if self._is_due("saved", options.checkpoint_every_s):
            save_state(state, self._checkpoint)
        if self._is_due("drawn", options.draw_every_s):
            self._curve.draw()
        if self._validation is None or self._stage.spec.grid != self._recipe.spec.grid:
            return
        usual_s = 60 * options.minutes / _VALIDATIONS
        if self._is_due("measured", max(usual_s, _LEAST_BETWEEN * self._validation.took_s)):
            self._began += self._measure(self._validation)
            self._slower, self._has_ended = self._recipe.regime.schedule.after(self._curve.dice)

    def estimate_statistics(self, batches: _Batches) -> None:
        """Give the averaged network statistics of batch normalisation of its own."""
        if self._has_ended:
            _LOG.info("ended at %.1f min: validation has not improved", self.state.seconds / 60)
        self._record()
        estimate_statistics(self.state.average, self._some_samples(batches), self._dtype)

    def _some_samples(self, batches: _Batches) -> Iterator[torch.Tensor]:
        """Yield images of the batches to come, as many as statistics need and the time allows."""
        size, began = self._stage.training.batch, self._clock()
        for index in range(math.ceil(_STATISTICS_SAMPLES / size)):
            is_late = self._clock() - began > _STATISTICS_SHARE * 60 * self._options.minutes
            if is_late and index * size >= _LEAST_SAMPLES:
                return
            yield batches.at(self.state.step + index).image

    def end(self) -> None:
        """Save and draw what there is at the end, and measure it where that is still to do."""
        save_state(self.state, self._checkpoint)
        if self._validation is not None and self._validation.last_step != self.state.step:
            self._measure(self._validation)
        self._curve.draw()

    def _is_due(self, what: str, every_s: float) -> bool:
        """Return whether more than some seconds have passed since it was done; note that it is."""
        is_due = self.state.seconds - self._last[what] > every_s
        if is_due:
            self._last[what] = self.state.seconds
        return is_due

    def _record(self) -> None:
        self._curve.record(self.state.step, self.state.seconds, learning_rate(self.state))

    def _measure(self, by: Validation) -> float:
        """Measure the averaged network; return the seconds that were not training."""
        paused = self._clock()
        self._record()
        measured = by.measure(self.state.average, self.state.effort, self.device, self._precision)
        self._curve.validate(measured.mean)
        return self._clock() - paused


def _ends(recipe: Recipe) -> list[float]:
    """Return at which share of the whole time each stage ends."""
    minutes = [stage.minutes for stage in recipe.training.stages] or [1.0]
    ends = [sum(minutes[: number + 1]) / sum(minutes) for number in range(len(minutes))]
    return [*ends[:-1], 1.0]


def check_run(recipe: Recipe, run_dir: Path, options: RunOptions) -> None:
    """Raise what `train` would raise before its first step, before any case is prepared for it.

    Nothing is written.

    Raises:
        InputError, PredictorError, DeviceError: as of `train`.
    """
    _begun(recipe, run_dir, options)


def _begun(
    recipe: Recipe, run_dir: Path, options: RunOptions
) -> tuple[TrainingState, torch.device, str]:
    """Return a state whose network has taken a sample, the device and the precision."""
    device = choose_device(options.device)
    precision = _training_precision(options.precision, device, recipe.spec.half_precisions)
    start, seed = options.start, options.seed
    state = begun_state(recipe, run_dir, start, device, _DTYPES[precision], seed)
    try_network(state, recipe, device)
    return state, device, precision


def _training_precision(
    request: Precision, device: torch.device, half_precisions: Sequence[HalfPrecision]
) -> str:
    """Return the precision that a request means for training: bf16 needs no scaled losses."""
    cuda = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= _AMPERE
    if request == "auto" and cuda and "bf16" in half_precisions:
        return "bf16"
    return choose_precision(request, device, half_precisions)


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
