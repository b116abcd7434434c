"""How good a network is while it is trained: Dice on the cases that the recipe sets aside."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from torch import nn

from flarekit.core.files import write_atomically
from flarekit.core.json_files import read_json, typed
from flarekit.engine import Effort
from flarekit.engine.torch import TorchEngine
from flarekit.evaluation.confusion import dice_per_label
from flarekit.training.losses import MAYBE
from flarekit.training.networks import as_predicted
from flarekit.training.recipe import Recipe
from flarekit.training.training_case import TrainingCase

_LOG = logging.getLogger(__name__)
_FILE = "validation.json"
Scores = Mapping[str, Mapping[str, float]]  # case -> label -> Dice


class Measured(BaseModel):
    """What was measured last in a run.

    Attributes:
        step: of the training.
        minutes: of the training.
        scores: case -> label -> Dice; labels that a case does not have are left out.
    """

    step: int
    minutes: float
    scores: Scores

    @property
    def per_label(self) -> dict[str, list[float]]:
        """Label -> its Dice in every case that has it."""
        found: dict[str, list[float]] = {}
        for labels in self.scores.values():
            for name, dice in labels.items():
                found.setdefault(name, []).append(dice)
        return found

    @property
    def mean(self) -> float:
        """Mean over the labels of their means over the cases; NaN where there are none."""
        means = [float(np.mean(each)) for each in self.per_label.values()]
        return float(np.mean(means)) if means else float("nan")


class Validation:
    """Measures a network on cases that lie on its grid, and keeps what it measured last.

    Args:
        recipe: labels, window.
        cases: of `flarekit.training.sources.validation_pool`.
        run_dir: gets `validation.json`.
    """

    def __init__(self, recipe: Recipe, cases: Sequence[TrainingCase], run_dir: Path) -> None:
        self._recipe, self._cases, self._path = recipe, cases, run_dir / _FILE
        self.took_s = 0.0

    @property
    def last_step(self) -> int:
        """The step that was measured last in this folder; -1 where none was."""
        measured = read_measured(self._path.parent)
        return -1 if measured is None else measured.step

    def measure(
        self, trained: nn.Module, effort: Mapping[str, Any], device: torch.device, precision: str
    ) -> Measured:
        """Segment every case and compare.

        The window has the predictor's own step and no flips, and no rules run: what is measured is
        the network.

        Args:
            trained: the network, as it is trained.
            effort: its `steps` and `minutes`.
            device: where it runs.
            precision: fp32, bf16 or fp16.

        Raises:
            OutputError: `validation.json` cannot be written.
        """
        began = time.monotonic()
        with torch.random.fork_rng():  # building it draws weights; the training's draws stay
            network = as_predicted(trained, self._recipe)
        engine = TorchEngine(
            [network.eval().requires_grad_(False)],
            self._recipe.spec.grid,
            class_count=len(self._recipe.class_names),
            device=device,
            precision=precision,
            channels=len(self._recipe.spec.channels),
        )
        scores = {case.case_id: self._dice(engine, case) for case in self._cases}
        found = Measured(step=effort["steps"], minutes=effort["minutes"], scores=scores)
        write_atomically(self._path, (found.model_dump_json(indent=2) + "\n").encode())
        self.took_s = time.monotonic() - began
        worst = sorted((float(np.mean(each)), name) for name, each in found.per_label.items())
        shown = ", ".join(f"{name} {dice:.3f}" for dice, name in worst[:4])
        _LOG.info("validation Dice %.3f at %.1f min (%s)", found.mean, found.minutes, shown)
        return found

    def _dice(self, engine: TorchEngine, case: TrainingCase) -> dict[str, float]:
        effort = Effort(step=self._recipe.spec.grid.step)
        slabs = engine.sweep(case.image_CZYX.astype(np.float32), effort=effort)
        predicted = np.concatenate([slab.classes() for slab in slabs])
        truth = np.where(case.classes_ZYX == MAYBE, np.uint8(0), case.classes_ZYX)
        known = {
            name: index
            for index, name in enumerate(self._recipe.class_names)
            if index and index not in self._recipe.unlabelled_classes and (truth == index).any()
        }
        scores = dice_per_label(predicted, truth, known)
        return {name: round(dice, 4) for name, dice in scores.items()}


def read_measured(run_dir: Path) -> Measured | None:
    """Return what a run measured last; None where it measured nothing.

    Raises:
        InputError: the file is damaged.
    """
    path = run_dir / _FILE
    return typed(Measured, read_json(path), source=path) if path.is_file() else None
