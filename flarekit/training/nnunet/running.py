"""Train a planned network with nnU-Net, from its last checkpoint on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flarekit.core.errors import InputError
from flarekit.engine.torch import choose_device
from flarekit.training.nnunet import TRAINERS, check_architecture, environment, plans_name
from flarekit.training.nnunet.planning import configuration_for


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training.

    Attributes:
        configuration: as it was planned.
        fold: of nnU-Net's five, or `all`.
        device: as for prediction.
        epochs: in place of the paper's.
        iterations: steps per epoch, in place of the paper's.
    """

    configuration: str | None = None
    fold: str = "0"
    device: str = "auto"
    epochs: int | None = None
    iterations: int | None = None


def run(work_dir: Path, architecture: str, options: TrainOptions) -> Path:
    """Train and validate one fold; a run that was killed goes on.

    Args:
        work_dir: of `flarekit.training.nnunet.planning.plan`.
        architecture: as it was planned.
        options: fold, device, epochs.

    Returns:
        The result folder, which `flarekit train export` takes.

    Raises:
        UsageError: no such architecture, or nnU-Net is not installed.
        InputError: nothing was planned for it in this folder, or for several datasets.
        DeviceError: no such device.
    """
    check_architecture(architecture)
    configuration = configuration_for(architecture, options.configuration)
    plans = plans_name(architecture)
    found = sorted((work_dir / "preprocessed").glob(f"Dataset*/{plans}.json"))
    if len(found) != 1:
        what = "nothing" if not found else f"{len(found)} datasets"
        raise InputError(
            f"{work_dir}: {what} planned for {architecture}",
            fix="run flarekit train plan, one work folder per dataset",
        )
    dataset = found[0].parent.name
    device = choose_device(options.device)
    environment(work_dir)
    for name, value in (("EPOCHS", options.epochs), ("ITERATIONS", options.iterations)):
        if value is not None:
            os.environ[f"FLAREKIT_{name}"] = str(value)
    from nnunetv2.run.run_training import run_training  # type: ignore[import-not-found]

    trainer = TRAINERS[architecture]
    result = work_dir / "results" / dataset / f"{trainer}__{plans}__{configuration}"
    checkpoints = list((result / f"fold_{options.fold}").glob("checkpoint_*.pth"))
    run_training(
        dataset,
        configuration,
        options.fold,
        trainer_class_name=trainer,
        plans_identifier=plans,
        continue_training=bool(checkpoints),
        device=device,
    )
    return result
