"""What our trainers leave in an nnU-Net result folder, for the networks that only we can build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.errors import InputError, WeightsMismatchError
from flarekit.training.networks import copy_weights
from flarekit.training.nnunet.networks import PLANNED

if TYPE_CHECKING:
    import torch
    from torch import nn

_OURS = "flarekit.training.nnunet.networks."


@dataclass(frozen=True, kw_only=True)
class Result:
    """A trained configuration of one of our networks.

    Attributes:
        arguments: of the architecture, as prediction builds it.
        labels: name -> mask value.
        networks: one per fold, with their weights.
    """

    source: Path
    plans: Mapping[str, Any]
    configuration: str
    architecture: str
    arguments: dict[str, Any]
    channel_names: Mapping[str, str]
    labels: dict[str, int]
    mirror_axes: Sequence[int]
    trainer: str
    networks: Sequence[nn.Module]


def is_ours(plans: Mapping[str, Any], result: Path) -> bool:
    """Tell whether a result folder is of a network that only we can build.

    Args:
        plans: content of its `plans.json`.
        result: `DATASET/TRAINER__PLANS__CONFIGURATION`.
    """
    path = _class_path(plans, result)
    return path.startswith(_OURS) and path.removeprefix(_OURS) not in PLANNED


def read_result(
    result: Path,
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    checkpoints: Sequence[Mapping[str, Any]],
    weights: Sequence[Mapping[str, torch.Tensor]],
) -> Result:
    """Read a result folder of one of our trainers.

    Args:
        result: `DATASET/TRAINER__PLANS__CONFIGURATION`.
        plans: content of its `plans.json`, of which `is_ours` holds.
        dataset: content of its `dataset.json`.
        checkpoints: content of the chosen folds'.
        weights: their state dicts.

    Raises:
        InputError: something in these files is missing or of another type.
        WeightsMismatchError: weights that are not the network's.
    """
    try:
        configuration = result.resolve().name.split("__")[-1]
        architecture = _class_path(plans, result).removeprefix(_OURS)
        names = dataset["channel_names"]
        labels = {
            name.replace(" ", "_"): int(value)
            for name, value in dataset["labels"].items()
            if name not in ("background", "ignore")
        }
        arguments = {
            **plans["configurations"][configuration]["architecture"]["arch_kwargs"],
            "input_channels": len(names),
            "num_classes": len(labels) + 1,
        }
        networks = [_network(architecture, arguments, each) for each in weights]
        if architecture == "mamba_ahnet":
            arguments["reconstruction"] = False
        return Result(
            source=result / "plans.json",
            plans=plans,
            configuration=configuration,
            architecture=architecture,
            arguments=arguments,
            channel_names=names,
            labels=labels,
            mirror_axes=checkpoints[0].get("inference_allowed_mirroring_axes") or (),
            trainer=str(checkpoints[0]["trainer_name"]),
            networks=networks,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{result}: its plans.json, dataset.json or a checkpoint lacks something: "
            f"{type(error).__name__}: {error}",
            fix="export the whole folder that the training has left",
        ) from error


def _class_path(plans: Mapping[str, Any], result: Path) -> str:
    found: object = plans.get("configurations")
    for key in (result.resolve().name.split("__")[-1], "architecture", "network_class_name"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""


def _network(name: str, arguments: dict[str, Any], weights: Mapping[str, Any]) -> nn.Module:
    """Return the network as prediction builds it."""
    trained = models.create(name, **arguments)
    try:
        trained.load_state_dict(weights)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise WeightsMismatchError(
            f"the checkpoint is not {name}'s: {reason}", fix="export the folder it was trained in"
        ) from error
    if name != "mamba_ahnet":
        return trained
    network = models.create(name, **{**arguments, "reconstruction": False})
    copy_weights(trained, network)
    return network
