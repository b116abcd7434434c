"""nnU-Net's fingerprint, self-configuration and preprocessing; then plans for our networks."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from flarekit.core.apart import keep_apart
from flarekit.core.dataset_json import Dataset, read_dataset
from flarekit.core.errors import InputError, UsageError
from flarekit.core.files import make_folder, write_atomically
from flarekit.training.cases import case_ids
from flarekit.training.nnunet import check_architecture, environment, plans_name
from flarekit.training.nnunet.from_recipe import Taken, into_plans
from flarekit.training.nnunet.networks import PLANNED, try_network

_FLAT = ("attention_unet", "mamba_ahnet")  # 2D only
_MULTIPLE = {
    "attention_unet": 16,
    "mamba_ahnet": 16,
    "mpu_net": 8,
    "segresnet": 8,
    "unetr": 16,
    "swin_unetr": 32,
}
SPLITS = "splits_final.json"  # nnU-Net's folds
_NETWORKS = "flarekit.training.nnunet.networks"
_GIVEN = ("input_channels", "num_classes", "input_size", "deep_supervision")  # by dataset and plan


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """Options of a plan.

    Attributes:
        configuration: nnU-Net's `2d` or `3d_fullres`; what suits the architecture where None.
        gpu_memory_gb: nnU-Net's budget for the patch; its default where None.
        unlabelled: labels that the cases do not have: background may be one of them.
        processes: for fingerprint and preprocessing.
        arguments: of the network, over what is planned (for example {"width": 0.5}).
        taken: of a recipe; the paper's regime where None.
    """

    configuration: str | None = None
    gpu_memory_gb: float | None = None
    unlabelled: tuple[str, ...] = ()
    processes: int = 2
    arguments: Mapping[str, Any] | None = None
    taken: Taken | None = None


def plan(dataset: Path, work_dir: Path, architecture: str, options: PlanOptions) -> Path:
    """Plan and preprocess a dataset for an architecture.

    Args:
        dataset: nnU-Net raw layout, its folder named `DatasetNNN_Name`.
        work_dir: gets `raw` (a link), `preprocessed` and `results`.
        architecture: a name with a trainer.
        options: configuration, memory, unlabelled organs.

    Returns:
        The plans file.

    Raises:
        UsageError: no such architecture, configuration, argument, label or case, nnU-Net is not
            installed, or the work folder is the dataset's.
        InputError: the dataset is not in nnU-Net's layout, or has regions that the network does
            not train; the work folder has other folds.
        PredictorError: the network does not take the arguments.
    """
    check_architecture(architecture)
    configuration = configuration_for(architecture, options.configuration)
    match = re.fullmatch(r"Dataset(\d{3})_\w+", dataset.resolve().name)
    if match is None or not (dataset / "dataset.json").is_file():
        raise InputError(
            f"{dataset}: is not a dataset of nnU-Net's",
            fix="name a folder DatasetNNN_Name with dataset.json, imagesTr and labelsTr",
        )
    facts = read_dataset(dataset / "dataset.json")
    check_regions(facts, architecture)
    arguments = {**(options.taken.arguments if options.taken else {}), **(options.arguments or {})}
    check_arguments(architecture, arguments)
    unlabelled = options.unlabelled + (options.taken.facts.unlabelled if options.taken else ())
    check_labels(facts, unlabelled)
    splits = options.taken.splits(case_ids(dataset)) if options.taken else []
    keep_apart(dataset, work_dir, [], what="the folder of the dataset")
    for name in ("raw", "preprocessed", "results"):
        make_folder(work_dir / name)
    link = work_dir / "raw" / dataset.resolve().name
    if not link.exists():
        link.symlink_to(dataset.resolve(), target_is_directory=True)
    preprocessed = work_dir / "preprocessed" / link.name
    check_splits(preprocessed / SPLITS, splits)
    environment(work_dir)
    _let_nnunet_plan(preprocessed, int(match[1]), options)
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text(encoding="utf-8"))
    ours = for_architecture(plans, architecture, configuration, arguments)
    classes = len(facts.region_values) or len(facts.labels) + 1
    try_network(
        architecture, ours["configurations"][configuration], len(facts.channel_names()), classes
    )
    _let_nnunet_preprocess(preprocessed, int(match[1]), configuration, options)
    _note_unlabelled(preprocessed / "dataset.json", unlabelled)
    if splits:
        write_atomically(preprocessed / SPLITS, (json.dumps(splits, indent=4) + "\n").encode())
    ours |= into_plans(options.taken, case_ids(dataset))
    path = preprocessed / f"{ours['plans_name']}.json"
    write_atomically(path, (json.dumps(ours, indent=4) + "\n").encode())
    return path


def parse_arguments(entries: Sequence[str]) -> dict[str, Any]:
    """Return arguments of a network that are written as NAME=VALUE; a value is TOML, or a word.

    Raises:
        UsageError: an entry without a name or a value.
    """
    arguments = {}
    for entry in entries:
        name, _, value = (part.strip() for part in entry.partition("="))
        if not name.isidentifier() or not value:
            raise UsageError(
                f"--argument: {entry!r} is not an argument", fix="write it as --argument mamba=enc"
            )
        try:
            arguments[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            arguments[name] = value
    return arguments


def check_arguments(architecture: str, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that a network does not take, before anything is planned.

    Raises:
        UsageError: naming them, and those that it takes.
    """
    given = sorted(set(arguments) & set(_GIVEN))
    if given:
        raise UsageError(
            f"{', '.join(given)}: comes from the dataset and from what nnU-Net plans",
            fix="leave it out",
        )
    if architecture == "nnunet":  # its arguments are what nnU-Net plans
        known: set[str] = set()
    else:
        known = set(signature(import_module(f"flarekit.models.{architecture}").create).parameters)
    known -= set(_GIVEN)
    unknown = sorted(set(arguments) - known)
    if unknown:
        raise UsageError(
            f"{architecture} takes no argument {', '.join(unknown)}",
            fix=f"it takes {', '.join(sorted(known))}" if known else "leave it out",
        )


def check_labels(dataset: Dataset, names: Sequence[str]) -> None:
    """Refuse names of labels that a dataset does not have.

    Raises:
        UsageError: naming them.
    """
    unknown = sorted(set(names) - set(dataset.labels))
    if unknown:
        raise UsageError(
            f"no label {', '.join(unknown)}", fix=f"known: {', '.join(dataset.labels)}"
        )


def check_regions(dataset: Dataset, architecture: str) -> None:
    """Refuse regions of a dataset for a network whose outputs exclude each other.

    Raises:
        InputError: the dataset has regions.
    """
    if dataset.region_values and architecture not in (*PLANNED, "nnunet"):
        raise InputError(
            f"{dataset.source}: has regions, which {architecture} does not train",
            fix=f"train regions with {', '.join((*PLANNED, 'nnunet'))}; or give each voxel one "
            "label, and score the regions: flarekit evaluate --labels WT=1+2+3,TC=1+3,ET=3",
        )


def read_splits(path: Path) -> list[Any]:
    """Return nnU-Net's folds of a file; none where there is no such file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        content: list[Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})", fix="delete it") from error
    return content


def check_splits(path: Path, splits: Sequence[Mapping[str, Sequence[str]]]) -> None:
    """Refuse a recipe's folds where a work folder has others.

    Raises:
        InputError: what was trained there has kept other cases apart.
    """
    found = read_splits(path) if splits else []
    if found and found != splits:
        raise InputError(
            f"{path}: holds other folds than the recipe's held_out and validation make",
            fix="plan it in another work folder",
        )


def configuration_for(architecture: str, wanted: str | None) -> str:
    """Return nnU-Net's configuration for an architecture.

    Raises:
        UsageError: the architecture does not exist in that dimension.
    """
    flat = architecture in _FLAT
    chosen = wanted if wanted is not None else "2d" if flat else "3d_fullres"
    if architecture not in (*PLANNED, "nnunet") and (chosen == "2d") != flat:
        raise UsageError(
            f"{architecture} has no configuration {chosen!r}",
            fix=f"use {'2d' if flat else '3d_fullres'}",
        )
    return chosen


def for_architecture(
    plans: Mapping[str, Any],
    architecture: str,
    configuration: str,
    arguments: Mapping[str, Any],
) -> dict[str, Any]:
    """Return nnU-Net's plans with another network in one configuration.

    Topology, patch, spacing and batch stay as planned; patches are cut to what the network can
    halve. The preprocessed data are the same files.

    Raises:
        UsageError: nnU-Net planned no such configuration for this dataset.
    """
    content: dict[str, Any] = json.loads(json.dumps(plans))
    if configuration not in content["configurations"]:
        known = ", ".join(content["configurations"])
        raise UsageError(f"nnU-Net planned no configuration {configuration!r}", fix=f"use {known}")
    content["plans_name"] = plans_name(architecture)
    chosen = content["configurations"][configuration]
    block = chosen["architecture"]
    if architecture in PLANNED:
        block["network_class_name"] = f"{_NETWORKS}.{architecture}"
        block["arch_kwargs"].update(arguments)
        if arguments.get("mamba") == "enc":
            block["arch_kwargs"]["input_size"] = chosen["patch_size"]
    elif architecture != "nnunet":
        multiple = _MULTIPLE[architecture]
        chosen["patch_size"] = [
            max(multiple, n // multiple * multiple) for n in chosen["patch_size"]
        ]
        own = {"input_size": chosen["patch_size"]} if architecture == "unetr" else {}
        chosen["architecture"] = {
            "network_class_name": f"{_NETWORKS}.{architecture}",
            "arch_kwargs": {**arguments, **own},
            "_kw_requires_import": [],
        }
    content["configurations"] = {configuration: chosen}
    return content


def _let_nnunet_plan(preprocessed: Path, number: int, options: PlanOptions) -> None:
    """Run nnU-Net's fingerprint and planning."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # type: ignore[import-not-found]
        extract_fingerprints,
        plan_experiments,
    )

    extract_fingerprints([number], num_processes=options.processes, clean=False)
    plan_experiments([number], gpu_memory_target_in_gb=options.gpu_memory_gb)
    if not (preprocessed / "nnUNetPlans.json").is_file():
        raise InputError(
            f"{preprocessed}: nnU-Net has planned nothing", fix="read its messages above"
        )


def _let_nnunet_preprocess(
    preprocessed: Path, number: int, configuration: str, options: PlanOptions
) -> None:
    """Run nnU-Net's preprocessing, unless all its files are there, made for these very plans."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    plans = (preprocessed / "nnUNetPlans.json").read_bytes()
    made_for = preprocessed / f"flarekit_{configuration}.made_for.json"
    identifier = json.loads(plans)["configurations"][configuration]["data_identifier"]
    cases = len(list((preprocessed.parents[1] / "raw" / preprocessed.name / "labelsTr").iterdir()))
    whole = len(list((preprocessed / identifier).glob("*.pkl"))) == cases
    if not (whole and made_for.is_file() and made_for.read_bytes() == plans):
        made_for.unlink(missing_ok=True)
        preprocess([number], configurations=(configuration,), num_processes=[options.processes])
        write_atomically(made_for, plans)


def _note_unlabelled(path: Path, names: Sequence[str]) -> None:
    """Write into the preprocessed dataset's facts what its cases do not have."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    stated = {name.strip().replace(" ", "_"): name for name in facts["labels"]}
    facts["unlabelled"] = [stated[name] for name in names]
    write_atomically(path, (json.dumps(facts, indent=4) + "\n").encode())
