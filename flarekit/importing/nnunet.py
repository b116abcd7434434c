"""nnU-Net v2 result folders: plans, labels, folds; nnU-Net's own networks and the Mamba family."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flarekit import models
from flarekit.core.dataset_json import read_dataset
from flarekit.core.errors import FlarekitError, InputError, WeightsMismatchError
from flarekit.core.json_files import read_json, typed
from flarekit.importing import nnunet_files as files
from flarekit.importing.checkpoint import load_checkpoint, state_dict_of
from flarekit.importing.plans import read_configuration
from flarekit.importing.writing import ImportOptions, write_predictor

if TYPE_CHECKING:
    import torch
    from torch import nn

_LOG = logging.getLogger(__name__)
_ALL = "all"  # the fold that was trained on all cases
_TWICE = 2  # what a constructor may make and drop


def import_result_folder(source: Path, folder: Path, options: ImportOptions) -> None:
    """Write the predictor folder of a trained configuration.

    Args:
        source: `DATASET/TRAINER__PLANS__CONFIGURATION`, or a folder above just one of these.
        folder: the predictor folder to make.
        options: name, convention, folds.

    Raises:
        InputError: no such folder, no folds, or files that are damaged or lack something.
        PredictorError: something that is not supported: cascades, other networks.
        WeightsMismatchError: weights that do not fit the plans.
    """
    result = _result_folder(source)
    plans_file, dataset_file = result / "plans.json", result / "dataset.json"
    dataset = read_dataset(dataset_file)
    labels, regions = dataset.labels, list(dataset.region_values)
    names = dataset.channel_names()
    paths = fold_files(result, options)
    loaded = [load_checkpoint(path) for path in paths]
    states = [
        state_dict_of(content, path, field="network_weights")
        for content, path in zip(loaded, paths, strict=True)
    ]
    first = typed(files.Checkpoint, loaded[0], source=paths[0])
    said = None if first.init_args is None else first.init_args.configuration
    name = said or result.name.split("__")[-1]
    configuration = read_configuration(read_json(plans_file), name, source=plans_file)
    architecture, arguments = configuration.architecture(
        states[0], input_channels=len(names), num_classes=len(regions) or len(labels) + 1
    )
    channels, arithmetic = configuration.channels(names), configuration.arithmetic()
    grid = configuration.grid(first.inference_allowed_mirroring_axes or ())
    networks = []
    for path, state_dict in zip(paths, states, strict=True):
        try:
            network = _built(architecture, arguments, state_dict)
            models.load_official_state_dict(architecture, network, state_dict)
        except FlarekitError as error:
            raise type(error)(f"{path}: {error.message}", fix=error.fix) from error
        networks.append(network)
    facts = {
        "name": options.name,
        "title": f"{configuration.plans.dataset_name or result.parent.name}, {name}",
        "convention": options.convention,
        "architecture": {"name": architecture, "arguments": arguments},
        "channels": channels,
        "crop": {"kind": "nonzero"},
        "grid": grid,
        "nnunet": {**arithmetic, "region_values": regions},
        "labels": labels,
        "provenance": {
            "imported_from": str(result.name),
            "trainer": first.trainer_name,
            "folds": len(paths),
            "fold_names": [path.parent.name.removeprefix("fold_") for path in paths],
        },
    }
    write_predictor(folder, facts, networks, source=result)
    if regions:
        _LOG.warning(
            "regions are painted one over the other: masks, volumes and DICOM segments of %r are "
            "what later regions leave of it",
            next(iter(labels)),
        )


def _built(
    architecture: str, arguments: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Build the network of the plans, unless that is larger than what the checkpoint holds."""
    numbers = sum(tensor.numel() for tensor in state_dict.values())
    try:
        with models.at_most(_TWICE * numbers, _TWICE * len(state_dict)):
            return models.create(architecture, **arguments)
    except models.TooLargeError as error:
        raise WeightsMismatchError(
            f"belongs to another network than plans.json: that one has "
            f"{error}, twice what the checkpoint holds",
            fix="take plans and checkpoint from one training",
        ) from error


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


def fold_files(result: Path, options: ImportOptions) -> list[Path]:
    """Return the checkpoints of the chosen folds of a result folder.

    Without a choice they are the numbered ones, by number: the fold `all` has seen their cases, and
    is taken only where it is alone.

    Raises:
        InputError: there are none, one is missing, or `all` is to be one of several.
    """
    there = [path.name.removeprefix("fold_") for path in result.glob("fold_*") if path.is_dir()]
    numbered = sorted((fold for fold in there if fold.isdecimal()), key=int)
    others = sorted(set(there) - set(numbered))
    if options.folds is not None:
        wanted = list(dict.fromkeys(fold.strip() for fold in options.folds))
        if _ALL in wanted and len(wanted) > 1:
            raise InputError(
                f"{result}: fold_all is not a member of an ensemble: it saw the cases of all folds",
                fix=f"choose --folds {_ALL}, or numbers",
            )
    else:
        wanted = numbered or ([_ALL] if _ALL in others else [])
        left_out = [f"fold_{fold}" for fold in others if fold not in wanted]
        if left_out and wanted:
            _LOG.warning(
                "%s: %s left out; the folds are %s (choose with --folds)",
                result,
                ", ".join(left_out),
                ", ".join(wanted),
            )
    if not wanted:
        raise InputError(f"{result}: holds no fold_*", fix="copy the folds with their checkpoints")
    paths = [result / f"fold_{fold}" / options.checkpoint for fold in wanted]
    known = ", ".join([*numbered, *others]) or "none"
    for fold, path in zip(wanted, paths, strict=True):
        if fold not in there or not path.is_file():
            raise InputError(
                f"{path}: is not there (folds: {known})",
                fix="choose with --folds and --checkpoint, for example checkpoint_best.pth",
            )
    return paths
