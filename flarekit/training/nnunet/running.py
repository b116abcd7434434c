"""Train a planned network with nnU-Net, from its last checkpoint on."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flarekit.core.errors import InputError, UsageError
from flarekit.core.json_files import read_json
from flarekit.engine.torch import choose_device
from flarekit.training.nnunet import TRAINERS, check_architecture, environment, plans_name
from flarekit.training.nnunet.from_recipe import KEY
from flarekit.training.nnunet.planning import SPLITS, configuration_for, read_splits

_FOLDS = 5  # of nnU-Net's own splits


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
        UsageError: no such architecture, fold or number of epochs, or nnU-Net is not installed.
        InputError: nothing was planned for it in this folder, or for several datasets; it was
            planned otherwise since the training began.
        DeviceError: no such device.
    """
    check_architecture(architecture)
    check_effort(options)
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
    planned = read_json(found[0])
    if configuration not in planned["configurations"]:
        known = ", ".join(planned["configurations"])
        raise UsageError(
            f"{architecture} was planned for {known}, not for {configuration}",
            fix=f"add --configuration {known}, or plan it again",
        )
    check_fold(options.fold, found[0].with_name(SPLITS), planned)
    device = choose_device(options.device)
    trainer = TRAINERS[architecture]
    result = work_dir / "results" / dataset / f"{trainer}__{plans}__{configuration}"
    check_plans(result, planned)
    environment(work_dir)
    for name, value in (("EPOCHS", options.epochs), ("ITERATIONS", options.iterations)):
        if value is not None:
            os.environ[f"FLAREKIT_{name}"] = str(value)
    from nnunetv2.run.run_training import run_training  # type: ignore[import-not-found]

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


def check_effort(options: TrainOptions) -> None:
    """Refuse a fold that is none, and a training without a step.

    Raises:
        UsageError: naming the option.
    """
    if options.fold != "all" and not options.fold.isdecimal():
        raise UsageError(f"--fold {options.fold}: is not a fold", fix="give 0 to 4, or all")
    for name, value in (("--epochs", options.epochs), ("--iterations", options.iterations)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value}: trains nothing", fix="give 1 or more")


def check_fold(fold: str, splits: Path, plans: Mapping[str, Any]) -> None:
    """Refuse a fold that there is not, in whose place nnU-Net would make up another one.

    Args:
        fold: a number, or `all`.
        splits: file of the folds; nnU-Net makes five where it is not there.
        plans: that may keep cases apart.

    Raises:
        UsageError: no such fold, or it would train on cases that the recipe keeps apart.
        InputError: the file is damaged.
    """
    count = len(read_splits(splits)) or _FOLDS
    if fold == "all":
        apart = plans.get(KEY, {}).get("apart", [])
        if apart:
            raise UsageError(
                f"--fold all: would train on {', '.join(apart[:5])}, which the recipe keeps apart",
                fix="train a fold",
            )
    elif int(fold) >= count:
        raise UsageError(
            f"--fold {fold}: there is no such fold",
            fix="give 0" if count == 1 else f"give 0 to {count - 1}",
        )


def check_plans(result: Path, planned: Mapping[str, Any]) -> None:
    """Refuse to go on with what another plan has begun.

    Args:
        result: folder of the training, which holds the plans that it began with.
        planned: the plans as they are.

    Raises:
        InputError: they differ.
    """
    path = result / "plans.json"
    if not path.is_file():
        return
    began = read_json(path)
    changed = sorted(
        name
        for name in ("configurations", KEY, "dataset_name")
        if json.dumps(began.get(name), sort_keys=True)
        != json.dumps(planned.get(name), sort_keys=True)
    )
    if changed:
        raise InputError(
            f"{result}: was begun with other plans ({', '.join(changed)} differ)",
            fix="plan and train this in another work folder, or remove that folder",
        )
