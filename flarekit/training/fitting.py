"""Whether a recipe and its data fit each other: told before anything is trained."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from flarekit.core.dataset_json import NAME, Dataset, read_dataset
from flarekit.core.errors import InputError, PredictorError, UsageError
from flarekit.training.cases import case_ids, matches, no_cases
from flarekit.training.labelled_scan import LabelMap, Progress, survey
from flarekit.training.makers import SUV_ENDING
from flarekit.training.recipe import Recipe
from flarekit.training.sources import labelled_folders, material_files
from flarekit.training.tables import DatasetFacts

_LOG = logging.getLogger(__name__)
_MOST_NAMED = 5


class LabelledFolder(BaseModel):
    """The labelled cases of one folder; a run's record has no path of it.

    Attributes:
        name: of the folder.
        licence: what its dataset.json says of it; empty where it says nothing.
        training: ids of the cases that are trained on.
        validation: ids of those on which choices are made.
        folder: where it is.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    licence: str
    training: tuple[str, ...]
    validation: tuple[str, ...]
    folder: Path = Field(Path(), exclude=True)


def check_fit(
    recipe: Recipe,
    dataset: Path,
    others: Sequence[Path] = (),
    progress: Progress = lambda *_: None,
) -> list[LabelledFolder]:
    """Compare a recipe with its data, and return which cases are for what.

    Args:
        recipe: labels, channels, and the cases that it holds out.
        dataset: nnU-Net raw layout; where the recipe names datasets, the folder that holds them.
        others: folders of material and negatives, whose scans may be held out as well.
        progress: called with how many label maps are read, of how many.

    Raises:
        InputError: the folder's labels are others, in name or value; a label map holds a value that
            nothing names; a label that no case has; a case that is held out and not there.
    """
    found, plain = [], []
    held_out, validation = recipe.training.held_out, recipe.training.validation
    for folder, table in labelled_folders(recipe, dataset):
        facts = _stated(recipe, folder) if table.layout == "nnunet" else None
        ids = _ids(folder, table)
        if table.layout == "nnunet":
            if not ids:
                raise no_cases(folder)
            for note in surplus_channels(folder, ids, len(recipe.spec.channels)):
                _LOG.warning("%s: %s", folder, note)
        labelled = LabelledFolder(
            name=folder.resolve().name,
            licence=facts.licence if facts is not None else "",
            training=tuple(each for each in ids if not matches(each, (*held_out, *validation))),
            validation=tuple(each for each in ids if matches(each, validation)),
            folder=folder,
        )
        found.append(labelled)
        if table.layout == "nnunet":
            plain.append((labelled, facts))
    if found:
        _check_held_out(recipe, dataset, others)
    _check_maps(recipe, plain, progress, complete=len(plain) == len(found))
    return found


def check_folders(
    recipe: Recipe, material: Sequence[Path] = (), negatives: Sequence[Path] = ()
) -> None:
    """Refuse folders that the recipe makes no samples of: somebody meant them to be trained on.

    Args:
        recipe: its tables of synthesis and negatives.
        material: as of `flarekit.training.sources.training_pools`.
        negatives: folders of CTs without a label, as `training_pools` takes them.

    Raises:
        UsageError: there are some, and no table for them.
    """
    facts = recipe.training
    for option, folders, table, name in (
        ("--material", material, facts.synthesis, "synthesis"),
        ("--negatives", negatives, facts.negatives, "negatives"),
    ):
        if folders and table is None:
            raise UsageError(
                f"{option} {folders[0]}: the recipe has no table [training.{name}], so nothing "
                "would be trained on it",
                fix=f"add that table to the recipe, or leave {option} out",
            )


def _ids(folder: Path, table: DatasetFacts) -> list[str]:
    if table.layout == "wholebody_pet":
        names = sorted(path.name for path in folder.glob(f"*{SUV_ENDING}"))
        return [name.removesuffix(SUV_ENDING) for name in names]
    return case_ids(folder)


def _stated(recipe: Recipe, folder: Path) -> Dataset | None:
    """Return what dataset.json says, compared with the recipe; None where there is no such file."""
    path = folder / NAME
    if not path.is_file():
        return None
    dataset = read_dataset(path, gaps=True)
    refuse_what_is_not_trained(dataset)
    spec, names = recipe.spec, {value: name for name, value in dataset.labels.items()}
    for name, value in spec.labels.items():
        theirs = dataset.labels.get(name)
        if theirs is not None and theirs != value:
            raise _other_labels(f"{path}: {name} is {theirs}, and {value} in the recipe")
        if theirs is None and value in names:
            raise _other_labels(f"{path}: {value} is {names[value]}, and {name} in the recipe")
        if theirs is None and name not in recipe.training.unlabelled:
            raise _other_labels(f"{path}: names no label {name}, which the recipe trains")
    channels = dataset.channels
    if channels is not None and len(channels) < len(spec.channels):
        raise InputError(
            f"{path}: has {len(channels)} channels ({', '.join(channels.values())}), the recipe "
            f"{len(spec.channels)}",
            fix="correct [[predictor.channels]]",
        )
    _check_channels(recipe, channels or {}, path)
    others = sorted(set(dataset.labels) - set(spec.labels) - set(recipe.training.neighbours))
    if others:
        _LOG.info("%s: background in this training: %s", folder.name, ", ".join(others))
    return dataset


def _check_channels(recipe: Recipe, channels: Mapping[str, str], path: Path) -> None:
    """Compare the names of channels: those that changed places are refused, others are told."""
    ours = [channel.name for channel in recipe.spec.channels]
    theirs = {k: channels.get(str(k), name) for k, name in enumerate(ours)}
    other = [k for k, name in theirs.items() if name.casefold() != ours[k].casefold()]
    if not other:
        return
    said = ", ".join(f"{k} is {theirs[k]}, and {ours[k]} in the recipe" for k in other)
    if {theirs[k].casefold() for k in other} & {name.casefold() for name in ours}:
        raise InputError(
            f"{path}: channel_names: {said}", fix="give [[predictor.channels]] the same order"
        )
    _LOG.warning("%s: channel_names: %s", path, said)


def surplus_channels(folder: Path, ids: Sequence[str], count: int) -> list[str]:
    """Return a note where cases have files of a channel beyond those that are trained on."""
    files = [f"{each}_{count:04d}.nii.gz" for each in ids]
    there = [name for name in files if (folder / "imagesTr" / name).is_file()]
    more = f" and {len(there) - 1} more" if len(there) > 1 else ""
    return [f"further channels are left out: {there[0]}{more}"] if there else []


def _other_labels(message: str) -> InputError:
    return InputError(
        message,
        fix="correct [predictor.labels], or write a recipe with flarekit train init; labels "
        "that the cases do not have belong into training.unlabelled",
    )


def refuse_what_is_not_trained(dataset: Dataset) -> None:
    """Refuse labels of a dataset.json that only nnU-Net can train.

    Raises:
        InputError: it has regions, or voxels that are to be ignored.
    """
    fix = "train it with nnU-Net: flarekit train plan DATASET WORK -a nnunet, then train run"
    if dataset.region_values:
        raise InputError(
            f"{dataset.source}: has regions, which overlap; this trainer has one label per voxel",
            fix=fix,
        )
    if dataset.ignored:
        raise InputError(
            f"{dataset.source}: has voxels to be ignored ({', '.join(dataset.ignored)}), which "
            "this trainer would take for background",
            fix=fix,
        )


def _check_held_out(recipe: Recipe, dataset: Path, others: Sequence[Path]) -> None:
    """Refuse names of cases that are not there: a typing error would be trained on."""
    facts = recipe.training
    ids = []
    for folder, table in labelled_folders(recipe, dataset):
        own = _ids(folder, table)
        ids += own
        unknown = sorted(set(table.known_Z) - set(own))
        if unknown:
            raise InputError(
                f"training.datasets.known_Z: no case {', '.join(unknown)} in {folder}",
                fix=f"name whole bodies that are there, X of X{SUV_ENDING}, or remove them",
            )
    scans = [path.name for folder in others for path in material_files(folder, ())]
    for field, patterns in (
        ("held_out", facts.held_out),
        ("validation", facts.validation),
        ("labelled", tuple(facts.labelled)),
    ):
        unknown = [
            pattern
            for pattern in patterns
            if not any(matches(each, [pattern]) for each in ids)
            and not any(scan.startswith(pattern) for scan in scans)
        ]
        if unknown:
            here = ", ".join(ids[:_MOST_NAMED]) + (", ..." if len(ids) > _MOST_NAMED else "")
            raise InputError(
                f"training.{field}: no case {', '.join(unknown[:_MOST_NAMED])} in {dataset}",
                fix=f"name cases that are there ({here or 'there are none'}), or remove them",
            )


def _check_maps(
    recipe: Recipe,
    folders: Sequence[tuple[LabelledFolder, Dataset | None]],
    progress: Progress,
    *,
    complete: bool,
) -> None:
    """Read the label maps that are used, and compare their values with names."""
    paths, named = list[Path](), dict[Path, Mapping[str, int] | None]()
    for each, dataset in folders:
        for case_id in (*each.training, *each.validation):
            paths.append(each.folder / "labelsTr" / f"{case_id}.nii.gz")
            named[paths[-1]] = None if dataset is None else dataset.labels
    maps = survey(paths, progress)
    for label_map in maps:
        check_named(label_map, named[label_map.path])
    trained_on = {
        each.folder / "labelsTr" / f"{case_id}.nii.gz"
        for each, _ in folders
        for case_id in each.training
    }
    counts = Counter[int]()
    for label_map in maps:
        if label_map.path in trained_on:
            counts.update(label_map.voxels)
    facts = recipe.training
    synthetic = facts.phantom_share > 0 or facts.synthesis is not None
    absent = [
        f"{name} ({value})"
        for name, value in recipe.spec.labels.items()
        if not counts[value] and name not in facts.unlabelled
    ]
    if maps and complete and not synthetic and absent:
        raise InputError(
            f"no case that is trained on has {', '.join(absent)}",
            fix="correct the values in [predictor.labels], or remove what is not labelled",
        )


def check_named(label_map: LabelMap, labels: Mapping[str, int] | None) -> None:
    """Refuse a label map with values that its dataset.json does not name.

    Raises:
        InputError: naming the file and the values.
    """
    strange = sorted(set(label_map.voxels) - set(labels.values())) if labels is not None else []
    if strange:
        raise InputError(
            f"{label_map.path}: holds {', '.join(map(str, strange))}, which {NAME} does not name",
            fix=f"name it there, or correct the label map ({NAME} names "
            f"{', '.join(f'{name} {value}' for name, value in (labels or {}).items())})",
        )


def check_classes(given: int, recipe: Recipe) -> None:
    """Compare the classes that a network gives with those that the recipe trains.

    Raises:
        PredictorError: they differ.
    """
    names = recipe.class_names
    if given != len(names):
        raise PredictorError(
            f"the network gives {given} classes, the recipe has {len(names)} ({', '.join(names)})",
            fix="correct num_classes in [predictor.architecture.arguments], or the labels",
        )
