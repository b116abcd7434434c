"""A training between two steps: its networks and optimiser, kept in `checkpoint.pt`."""

import io
import logging
import math
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from flarekit import models
from flarekit.core.errors import InputError, PredictorError, memory_fault
from flarekit.core.files import write_atomically
from flarekit.core.network import NETWORK_FILES
from flarekit.core.spec import read_spec
from flarekit.training.fitting import check_classes
from flarekit.training.networks import as_trained
from flarekit.training.recipe import Recipe, read_recipe
from flarekit.training.recipe_changes import changes_between
from flarekit.training.run_record import CHECKPOINT, RECIPE

_LOG = logging.getLogger(__name__)
# what contents that are of another network, or of none, raise
_UNREADABLE = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)
_NEEDED = ("network", "average", "optimiser", "step", "seconds")
_AGAIN = "copy the whole run's folder again, or train in another folder"


@dataclass
class TrainingState:
    """What a checkpoint holds."""

    network: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    step: int = 0
    seconds: float = 0.0
    stage: int = 0  # of the recipe's stages
    failures: int = 0
    start: str = ""  # SHA-256 of the weights that it began with
    devices: list[str] = field(default_factory=list)  # that it was trained on, and how

    @property
    def effort(self) -> dict[str, Any]:
        """Steps and minutes so far, what computed them, and the weights that they began with."""
        minutes = self.seconds / 60
        effort: dict[str, Any] = {"steps": self.step}
        effort["minutes"] = round(minutes, 1) if minutes >= 1 else round(minutes, 3)
        effort |= {"devices": list(self.devices)} if self.devices else {}
        return effort | ({"start_sha256": self.start} if self.start else {})

    def note_device(self, device: str) -> None:
        """Remember what trains."""
        if device not in self.devices:
            self.devices.append(device)


def begin_stage(state: TrainingState, recipe: Recipe, stage: int) -> None:
    """Go on from the averaged weights, with an optimiser of the stage's own.

    Args:
        state: changed in place.
        recipe: that names the stages.
        stage: its number, from 0.
    """
    state.network.load_state_dict(state.average.state_dict())
    state.optimiser = _optimiser(state, recipe, stage)
    state.stage = stage


def _optimiser(state: TrainingState, recipe: Recipe, stage: int) -> torch.optim.Optimizer:
    return recipe.stages[stage].regime.optimiser.build(state.network.parameters())


def averaged_network(recipe: Recipe, checkpoint: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the averaged network of a checkpoint, and its steps, minutes and what it began with.

    Raises:
        InputError: no checkpoint there, or it is damaged, or another recipe's.
    """
    if not checkpoint.is_file():
        raise InputError(f"{checkpoint}: is not there", fix="train first: flarekit train compact")
    _check_unchanged(recipe, checkpoint)
    state = _start(recipe, torch.device("cpu"), torch.float32)
    _resume(state, checkpoint, recipe)
    return state.average, state.effort


def _start(
    recipe: Recipe, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> TrainingState:
    torch.manual_seed(seed)
    network = as_trained(recipe).to(device).train()
    average = as_trained(recipe).to(device)
    average.load_state_dict(network.state_dict())
    return TrainingState(
        network=network,
        average=average.requires_grad_(False),
        optimiser=recipe.stages[0].regime.optimiser.build(network.parameters()),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
    )


def begun_state(
    recipe: Recipe,
    run_dir: Path,
    start: Path | None,
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> TrainingState:
    """Return the state that a folder's checkpoint holds, or that of a new run.

    A new run begins with the weights of a predictor's folder, random ones where that is None.

    Raises:
        InputError: the checkpoint is damaged, or another recipe's, or the recipe has changed.
        PredictorError: the weights to start with are not there, are others than their predictor
            names, or do not fit.
    """
    state = _start(recipe, device, dtype, seed)
    checkpoint = run_dir / CHECKPOINT
    if checkpoint.exists():
        if start is not None:
            _LOG.info("%s goes on; %s is used only when a run begins", run_dir, start)
        _check_unchanged(recipe, checkpoint)
        _resume(state, checkpoint, recipe)
    elif start is not None:
        _begin_with(state, recipe, start)
    return state


def _begin_with(state: TrainingState, recipe: Recipe, folder: Path) -> None:
    """Take the weights of a predictor; what it has no tensors for stays random."""
    predictor = read_spec(folder)
    if predictor.spec.architecture.name in NETWORK_FILES:
        raise PredictorError(
            f"{folder}: is a network in a file, which no training begins with",
            fix="name the folder of a predictor whose weights are safetensors",
        )
    models.check_weights(predictor.weights, predictor.spec.weights)
    network = models.build(recipe.spec.architecture, recipe.folder, trusted=recipe.trusted)
    models.load_weights(network, predictor.weights)
    tensors = models.own_tensors(network)
    with torch.no_grad():
        for module in (state.network, state.average):
            for name, tensor in models.own_tensors(module).items():
                if name in tensors:
                    tensor.copy_(tensors[name])
    state.start = predictor.spec.weights.sha256
    _LOG.info("starts with the weights of %s", folder)


def _check_unchanged(recipe: Recipe, checkpoint: Path) -> None:
    """Refuse to go on with another recipe than the one beside a checkpoint.

    Title, rules, convention and provenance may change: the training does not depend on them.
    """
    kept = checkpoint.with_name(RECIPE)
    if not kept.is_file():
        return
    began = read_recipe(kept)
    changes = changes_between(began, recipe)
    then, now = began.own_class, recipe.own_class
    if then is not None and now is not None and then.file and then.sha256() != now.sha256():
        changes.append(f"{then.file.name} is another file")
    if changes:
        more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise InputError(
            f"{checkpoint}: is not this recipe's checkpoint: {'; '.join(changes[:3])}{more}",
            fix=f"change the recipe back (the run's own is {kept}), or train in another folder",
        )


@torch.no_grad()
def try_network(state: TrainingState, recipe: Recipe, device: torch.device) -> None:
    """Run one blank sample of every size, so that what does not fit is known before the first step.

    Raises:
        PredictorError: the network does not take it, or gives other classes than the recipe has.
    """
    for tile in {stage.training.tile_ZYX for stage in recipe.stages}:
        _try_sample(state, recipe, tile, device)


def _try_sample(
    state: TrainingState, recipe: Recipe, tile: tuple[int, int, int], device: torch.device
) -> None:
    channels = len(recipe.spec.channels)
    blank = torch.zeros((1, channels, *(tile[1:] if recipe.flat else tile)), device=device)
    try:
        output = state.average.eval()(blank)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        size = " x ".join(map(str, tile))
        raise PredictorError(
            f"the network does not take a sample of {channels} channel(s) and {size} voxels: "
            f"{str(error).splitlines()[0]}",
            fix="correct training.tile_ZYX (each axis a multiple of all strides together), or the "
            "architecture's arguments",
        ) from error
    finally:
        state.average.train()
    while isinstance(output, (tuple, list)):
        output = output[0]
    check_classes(int(output.shape[1]), recipe)


def save_state(state: TrainingState, path: Path) -> None:
    """Write a checkpoint; it is whole, or the one before is still there."""
    content: dict[str, Any] = {
        "network": state.network.state_dict(),
        "average": state.average.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "stage": state.stage,
        "start": state.start,
        "devices": state.devices,
    }
    stream = io.BytesIO()
    torch.save(content, stream)
    write_atomically(path, stream.getvalue())


def _resume(state: TrainingState, path: Path, recipe: Recipe) -> None:
    content = _content(path)
    fix = "give the recipe of that run, or train in another folder"
    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise InputError(
            f"{path}: is not a checkpoint of flarekit train compact: it has no {missing[0]!r}",
            fix=fix,
        )
    stage = _amount(content.get("stage", 0), "stage", path, int)
    if stage >= len(recipe.stages):
        raise InputError(f"{path}: is in stage {stage + 1}, which this recipe has not", fix=fix)
    state.stage, state.optimiser = stage, _optimiser(state, recipe, stage)
    try:
        state.network.load_state_dict(content["network"])
        state.average.load_state_dict(content["average"])
        state.optimiser.load_state_dict(content["optimiser"])
        if content.get("scaler") and state.scaler.is_enabled():
            state.scaler.load_state_dict(content["scaler"])
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: is not this recipe's checkpoint: {reason}", fix=fix) from error
    state.step = _amount(content["step"], "step", path, int)
    state.seconds = float(_amount(content["seconds"], "seconds", path, int, float))
    start, devices = content.get("start", ""), content.get("devices", [])
    listed = isinstance(devices, list) and all(isinstance(each, str) for each in devices)
    if not isinstance(start, str) or not listed:
        odd = "devices" if isinstance(start, str) else "start"
        raise InputError(f"{path}: its {odd!r} is not what a training writes", fix=_AGAIN)
    state.start, state.devices = start, devices


def _content(path: Path) -> Mapping[str, Any]:
    """Read a checkpoint without running anything in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on how to write and unpickle such files
            content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:  # whose words advise to unpickle it
        raise InputError(
            f"{path}: holds what is neither a tensor nor a number, or is damaged", fix=_AGAIN
        ) from error
    except Exception as error:  # noqa: BLE001 - damaged files raise whatever the reader meets
        reason = error.strerror if isinstance(error, OSError) and error.filename else None
        reason = reason or memory_fault(error) or "it is damaged"
        raise InputError(f"{path}: cannot be read: {reason}", fix=_AGAIN) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: is not a checkpoint of flarekit train compact: it holds a "
            f"{type(content).__name__}",
            fix=_AGAIN,
        )
    return content


def _amount(value: object, name: str, path: Path, *kinds: type) -> Any:  # noqa: ANN401 - a number
    if type(value) not in kinds or not 0 <= value < math.inf:  # type: ignore[operator]
        raise InputError(f"{path}: its {name!r} is {value!r}, which no training writes", fix=_AGAIN)
    return value
