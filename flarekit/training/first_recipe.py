"""`flarekit train init`: a recipe for a folder of labelled scans, from what is in the folder."""

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import psutil

from flarekit.core.budget import container_memory_mib
from flarekit.core.dataset_json import NAME, Dataset, read_dataset
from flarekit.core.errors import InputError
from flarekit.core.names import safe_name
from flarekit.core.plausible import check_range
from flarekit.training.cases import case_ids, no_cases
from flarekit.training.fitting import check_named, refuse_what_is_not_trained, surplus_channels
from flarekit.training.labelled_scan import LabelMap, Progress, read_channel, read_labels, survey
from flarekit.training.proposal import fit
from flarekit.training.recipe import recipe_of
from flarekit.training.recipe_text import Channel, recipe_text

_MIB = 2**20
_LOOKED_AT = 20  # cases whose intensities are looked at
_SAMPLED = 20_000  # labelled voxels of each
_OF_MEMORY = 0.5  # of what is free, for a step
_OF_MEMORY_CASES = 0.25  # of what is free, for the scans themselves
_EVERY = 5  # case of five is set aside for validation
_CT_LOWEST_HU = -500.0
_NAMED_IN_TITLE = 4
_CASE_BYTES = 3  # per voxel that is kept: float16 and its class


def first_recipe(
    dataset: Path,
    *,
    name: str | None = None,
    convention: str = "flare",
    device: str = "auto",
    memory_mib: float | None = None,
    progress: Progress = lambda *_: None,
) -> tuple[str, list[str]]:
    """Write a recipe that fits a folder of labelled scans and this machine.

    Args:
        dataset: nnU-Net raw layout: imagesTr, labelsTr and, for names, dataset.json.
        name: of the predictor; the dataset's where None.
        convention: of the predictor.
        device: what it is going to be trained on, see `flarekit.engine.torch.choose_device`.
        memory_mib: that a step may take; half of what is free where None.
        progress: called with how many label maps are read, of how many.

    Returns:
        The recipe, and what was decided on the way, in sentences.

    Raises:
        InputError: no labelled cases, a scan that is missing or lies on another grid than its
            labels, labels that are not labels or have no names, regions.
    """
    ids = case_ids(dataset)
    if not ids:
        raise no_cases(dataset)
    stated = read_dataset(dataset / NAME, gaps=True) if (dataset / NAME).is_file() else None
    if stated is not None:
        refuse_what_is_not_trained(stated)
    channels = _channels(dataset, ids, stated)
    maps = survey([dataset / "labelsTr" / f"{each}.nii.gz" for each in ids], progress)
    notes = _unlabelled_scans(dataset, ids) + surplus_channels(dataset, ids, len(channels))
    labels, unlabelled = _labels_with_cases(maps, _labels(maps, stated, notes), notes)
    if not labels:
        raise InputError(f"{dataset}: no label map has a labelled voxel", fix="label some cases")
    _look_at(dataset, ids, channels, stated)
    memory_bytes, on_gpu = _memory(device, memory_mib)
    chosen = fit(
        [each.shape_ZYX for each in maps],
        [each.spacing_mm_ZYX for each in maps],
        _least_extent(maps, labels),
        classes=len(labels) + 1,
        channels=len(channels),
        memory_bytes=memory_bytes,
        on_gpu=on_gpu,
    )
    text = recipe_text(
        dataset=dataset.resolve().name,
        name=safe_name(name or _name(dataset)),
        title=_title(list(labels), channels),
        convention=convention,
        labels=labels,
        channels=channels,
        fit=chosen,
        validation=_set_aside(ids, maps, labels),
        count=len(ids),
        case_grid=_case_grid(maps, len(channels)),
        licence=stated.licence if stated is not None and stated.licence else "not stated",
        on_gpu=on_gpu,
        empty=unlabelled,
    )
    recipe_of(text, tomllib.loads(text), Path("the recipe for " + dataset.name))
    return text, notes


def _name(dataset: Path) -> str:
    plain = re.sub(r"^Dataset\d{3}_", "", dataset.resolve().name)
    return re.sub(r"\W+", "_", plain).strip("_").lower() or "mine"


def _unlabelled_scans(dataset: Path, ids: Sequence[str]) -> list[str]:
    """Return a note on scans that have no labels: they are not trained on."""
    scans = {path.name.rpartition("_")[0] for path in (dataset / "imagesTr").glob("*.nii.gz")}
    without = sorted(scans - set(ids))
    if not without:
        return []
    names = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
    return [f"scans without labels are left out: {len(without)} ({names})"]


def _title(labels: Sequence[str], channels: Sequence[Channel]) -> str:
    found = ", ".join(labels) if len(labels) <= _NAMED_IN_TITLE else f"{len(labels)} labels"
    return f"{found} on {' and '.join(each.name for each in channels)}"


def _channels(dataset: Path, ids: Sequence[str], stated: Dataset | None) -> list[Channel]:
    """Return the channels that every case has, by name."""
    folder = dataset / "imagesTr"
    counts = Counter[int]()
    for case_id in ids:
        here = 0
        while (folder / f"{case_id}_{here:04d}.nii.gz").is_file():
            here += 1
        counts[here] += 1
        if not here:
            raise InputError(
                f"{folder / f'{case_id}_0000.nii.gz'}: is not there",
                fix="add it, or take its label map out of labelsTr",
            )
    count = len(stated.channel_names()) if stated is not None and stated.channels else min(counts)
    short = [each for each in ids if not (folder / f"{each}_{count - 1:04d}.nii.gz").is_file()]
    if short:
        raise InputError(
            f"{folder / f'{short[0]}_{count - 1:04d}.nii.gz'}: is not there",
            fix=f"add it: the dataset has {count} channels",
        )
    if stated is not None and stated.channels:
        return [Channel(name=name) for name in stated.channel_names()]
    return [Channel(name=f"channel_{index}") for index in range(count)]


def _labels(maps: Sequence[LabelMap], stated: Dataset | None, notes: list[str]) -> dict[str, int]:
    """Return label name -> value: those of dataset.json, or the values that are there."""
    if stated is not None:
        for each in maps:
            check_named(each, stated.labels)
        return dict(sorted(stated.labels.items(), key=lambda item: item[1]))
    values = sorted({value for each in maps for value in each.voxels})
    notes.append(f"there is no {NAME}: labels are called label_1, label_2, ... by their values")
    return {f"label_{value}": value for value in values}


def _labels_with_cases(
    maps: Sequence[LabelMap], labels: Mapping[str, int], notes: list[str]
) -> tuple[dict[str, int], list[str]]:
    """Return the labels that cases have, and the names of those that none has, noting them."""
    present = {value for each in maps for value in each.voxels}
    without = [name for name, value in labels.items() if value not in present]
    if without:
        notes.append(
            f"{NAME} names {', '.join(without)}, which no case has: the recipe leaves it out"
        )
    return {name: value for name, value in labels.items() if value in present}, without


def _look_at(
    dataset: Path, ids: Sequence[str], channels: Sequence[Channel], stated: Dataset | None
) -> None:
    """Read intensities of labelled voxels from some cases, evenly chosen; name what is a CT."""
    rng = np.random.default_rng(0)
    some = list(ids)[:: max(1, len(ids) // _LOOKED_AT)]
    for case_id in some:
        picked = np.zeros(0, np.int64)
        for index, channel in enumerate(channels):
            path = dataset / "imagesTr" / f"{case_id}_{index:04d}.nii.gz"
            scan = read_channel(path, channel.name)
            check_range(scan)
            labels, _ = read_labels(dataset / "labelsTr" / f"{case_id}.nii.gz", scan)
            if index == 0:
                inside = np.flatnonzero(labels.ravel())
                picked = rng.choice(inside, min(_SAMPLED, len(inside)), replace=False)
            channel.labelled.append(scan.voxels_ZYX.ravel()[picked].astype(np.float32))
            channel.lowest.append(float(scan.voxels_ZYX.min()))
    if stated is None or not stated.channels:
        for channel in channels:
            if float(np.median(channel.lowest)) <= _CT_LOWEST_HU:
                channel.name = "CT"


def _least_extent(
    maps: Sequence[LabelMap], labels: Mapping[str, int]
) -> tuple[float, float, float]:
    """Return the size of the smallest label along each axis: of each, the median over its cases."""
    extents = [
        np.median([each.extents_mm[value] for each in maps if value in each.extents_mm], axis=0)
        for value in labels.values()
    ]
    z, y, x = (float(mm) for mm in np.min(extents, axis=0))
    return z, y, x


def _set_aside(
    ids: Sequence[str], maps: Sequence[LabelMap], labels: Mapping[str, int]
) -> list[str]:
    """Return every fifth case, as long as each label stays in a case that is trained on."""
    left = Counter(value for each in maps for value in each.voxels)
    chosen = []
    for case_id, label_map in list(zip(ids, maps, strict=True))[_EVERY // 2 :: _EVERY]:
        mine = set(label_map.voxels) & set(labels.values())
        if all(left[value] > 1 for value in mine):
            left.subtract(mine)
            chosen.append(case_id)
    return chosen


def _memory(device: str, memory_mib: float | None) -> tuple[float, bool]:
    """Return the bytes that a step may take, and whether on a GPU."""
    import torch

    from flarekit.engine.torch import choose_device

    chosen = choose_device(device)
    on_gpu = chosen.type == "cuda"
    if memory_mib is not None:
        return memory_mib * _MIB, on_gpu
    free: float = torch.cuda.mem_get_info(chosen)[0] if on_gpu else _free_bytes()
    return _OF_MEMORY * free, on_gpu


def _free_bytes() -> float:
    limit_mib = container_memory_mib()
    free = float(psutil.virtual_memory().available)
    return min(free, limit_mib * _MIB) if limit_mib else free


def _case_grid(maps: Sequence[LabelMap], channels: int) -> str:
    """Return `scan` where all scans fit into memory as they are, else `network`."""
    per_voxel = _CASE_BYTES + 2 * (channels - 1)
    taken = sum(float(np.prod(each.shape_ZYX)) * per_voxel for each in maps)
    return "scan" if taken <= _OF_MEMORY_CASES * _free_bytes() else "network"
