"""What our trainers leave in an nnU-Net result folder, for the networks that only we can build."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.errors import InputError, WeightsMismatchError
from flarekit.training.nnunet.networks import PLANNED

if TYPE_CHECKING:
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


def read_result(
    result: Path,
    folds: Sequence[str] | None,
    checkpoint: str,
    load: Callable[[Path], Mapping[str, Any]],
) -> Result | None:
    """Read a result folder of one of our trainers; None where another reader knows its network.

    Args:
        result: `DATASET/TRAINER__PLANS__CONFIGURATION`.
        folds: which; all that are there where None.
        checkpoint: file name inside a fold.
        load: reads a checkpoint without running anything in it.

    Raises:
        InputError: the folder holds no such checkpoints.
        WeightsMismatchError: weights that are not the network's.
    """
    plans = _json(result / "plans.json")
    dataset = _json(result / "dataset.json")
    configuration = result.resolve().name.split("__")[-1]
    chosen = plans.get("configurations", {}).get(configuration, {})
    path = str(chosen.get("architecture", {}).get("network_class_name", ""))
    architecture = path.removeprefix(_OURS)
    if not path.startswith(_OURS) or architecture in PLANNED:
        return None
    names = dataset["channel_names"]
    labels = {
        name.replace(" ", "_"): int(value)
        for name, value in dataset["labels"].items()
        if name not in ("background", "ignore")
    }
    arguments = {
        **chosen["architecture"]["arch_kwargs"],
        "input_channels": len(names),
        "num_classes": len(labels) + 1,
    }
    contents = [load(path) for path in _files(result, folds, checkpoint)]
    networks = [_network(architecture, arguments, each["network_weights"]) for each in contents]
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
        mirror_axes=contents[0].get("inference_allowed_mirroring_axes") or (),
        trainer=str(contents[0]["trainer_name"]),
        networks=networks,
    )


def _network(name: str, arguments: dict[str, Any], weights: Mapping[str, Any]) -> nn.Module:
    """Return the network as prediction builds it."""
    import torch

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
    tensors = models.own_tensors(trained)
    with torch.no_grad():
        for key, tensor in models.own_tensors(network).items():
            tensor.copy_(tensors[key])
    return network


def _files(result: Path, folds: Sequence[str] | None, checkpoint: str) -> list[Path]:
    there = sorted(path.name.removeprefix("fold_") for path in result.glob("fold_*"))
    files = [result / f"fold_{fold}" / checkpoint for fold in (folds or there)]
    missing = [path for path in files if not path.is_file()]
    if missing or not files:
        what = missing[0] if missing else result / "fold_0" / checkpoint
        raise InputError(
            f"{what}: is not there", fix="train to the end, or choose with --folds, --checkpoint"
        )
    return files


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read: {error}", fix="name a result folder of nnU-Net's"
        ) from error
    return content
