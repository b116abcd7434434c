"""nnU-Net v2 result folders: plans, labels, folds; nnU-Net's own networks and the Mamba family."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flarekit import models
from flarekit.core.errors import InputError, PredictorError
from flarekit.importing.checkpoint import load_checkpoint
from flarekit.importing.options import ImportOptions
from flarekit.importing.plans import read_configuration
from flarekit.importing.writing import write_predictor


def import_result_folder(source: Path, folder: Path, options: ImportOptions) -> None:
    """Write the predictor folder of a trained configuration.

    Args:
        source: `DATASET/TRAINER__PLANS__CONFIGURATION`, or a folder above just one of these.
        folder: the predictor folder to make.
        options: name, convention, folds.

    Raises:
        InputError: no such folder, no folds, or damaged files.
        PredictorError: something that is not supported: cascades, other networks.
        WeightsMismatchError: weights that do not fit the plans.
    """
    result = _result_folder(source)
    checkpoints = [load_checkpoint(path) for path in _fold_files(result, options)]
    dataset = _read_json(result / "dataset.json")
    plans = _read_json(result / "plans.json")
    name = _configuration_name(checkpoints[0], result)
    configuration = read_configuration(plans, name, source=result / "plans.json")
    labels, regions = _labels(dataset, result)
    channels = dataset.get("channel_names") or dataset.get("modality") or {}
    first: Mapping[str, Any] = checkpoints[0]["network_weights"]
    architecture, arguments = configuration.architecture(
        first, input_channels=len(channels), num_classes=len(regions) or len(labels) + 1
    )
    networks = []
    for checkpoint in checkpoints:
        network = models.create(architecture, **arguments)
        models.load_official_state_dict(architecture, network, checkpoint["network_weights"])
        networks.append(network)
    mirror = checkpoints[0].get("inference_allowed_mirroring_axes") or ()
    facts = {
        "name": options.name,
        "title": f"{plans.get('dataset_name', result.parent.name)}, {name}",
        "convention": options.convention,
        "architecture": {"name": architecture, "arguments": arguments},
        "channels": configuration.channels(channels, plans),
        "crop": {"kind": "nonzero"},
        "grid": configuration.grid(mirror),
        "nnunet": {**configuration.arithmetic(plans), "region_values": regions},
        "labels": labels,
        "provenance": {
            "imported_from": str(result.name),
            "trainer": str(checkpoints[0].get("trainer_name", "unknown")),
            "folds": len(checkpoints),
        },
    }
    write_predictor(folder, facts, networks, source=result)


def _result_folder(source: Path) -> Path:
    found = [source] if (source / "plans.json").is_file() else []
    found = found or sorted(path.parent for path in source.glob("*/plans.json"))
    found = found or sorted(path.parent for path in source.glob("*/*/plans.json"))
    if not found:
        raise InputError(
            f"{source}: holds no plans.json", fix="name an nnU-Net result folder with its fold_*"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{source}: holds several results: {names}", fix="name one of them")
    return found[0]


def _fold_files(result: Path, options: ImportOptions) -> list[Path]:
    there = sorted(path.name.removeprefix("fold_") for path in result.glob("fold_*"))
    wanted = options.folds if options.folds is not None else there
    if not wanted:
        raise InputError(f"{result}: holds no fold_*", fix="copy the folds with their checkpoints")
    files = [result / f"fold_{fold}" / options.checkpoint for fold in wanted]
    for path in files:
        if not path.is_file():
            raise InputError(
                f"{path}: is not there (folds: {', '.join(there) or 'none'})",
                fix="choose with --folds and --checkpoint, for example checkpoint_best.pth",
            )
    return files


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read: {error}", fix="copy it from the training"
        ) from error
    return content


def _configuration_name(checkpoint: Mapping[str, Any], result: Path) -> str:
    said = checkpoint.get("init_args", {}).get("configuration")
    return str(said) if said else result.name.split("__")[-1]


def _labels(dataset: Mapping[str, Any], result: Path) -> tuple[dict[str, int], list[int]]:
    """Return label name -> mask value, and the values that regions paint (none without regions)."""
    named = {
        str(name).replace(" ", "_"): value
        for name, value in dataset.get("labels", {}).items()
        if value not in (0, [0]) and name != "ignore"
    }
    if not any(isinstance(value, list | tuple) and len(value) > 1 for value in named.values()):
        labels = {
            name: value[0] if isinstance(value, list) else int(value)
            for name, value in named.items()
        }
        if sorted(labels.values()) != list(range(1, len(labels) + 1)):
            raise PredictorError(
                f"{result / 'dataset.json'}: labels are not numbered 1 to {len(labels)}",
                fix="number them without gaps, as nnU-Net asks",
            )
        return labels, []
    order = [int(value) for value in dataset.get("regions_class_order", ())]
    if len(order) != len(named) or len(set(order)) != len(order):
        raise PredictorError(
            f"{result / 'dataset.json'}: regions_class_order does not name one value per region",
            fix="give it as nnU-Net asks",
        )
    return dict(zip(named, order, strict=True)), order
