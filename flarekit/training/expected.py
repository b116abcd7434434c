"""What the labels of a predictor measure in its training cases, for quality flags."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flarekit.core.channels import Window
from flarekit.core.dataset_json import NAME, read_dataset
from flarekit.core.errors import InputError
from flarekit.core.expected import Expected
from flarekit.core.records import LabelStatistics
from flarekit.core.spec import PredictorFolder, write_spec
from flarekit.core.tables import read_toml
from flarekit.core.volume import Geometry
from flarekit.report.statistics import label_statistics
from flarekit.training.cases import case_ids
from flarekit.training.labelled_scan import read_channel, read_labels
from flarekit.training.recipe import Recipe, read_recipe

_OUTSIDE = 0.002  # of other cases are expected below the least volume, and beyond the greatest
_FEWEST = 4  # cases, from which bounds can be told
_DIGITS = 4
_NEAR_MM = 15.0  # readers leave off before the last slice that shows a vessel
_MOST_CLIPPED = 0.01  # of a label's voxels at the least value of the scan: gas, that is clipped
_MAD_TO_SD = 1.4826  # of a normal distribution
_HEAD = "Facts of a predictor; [expected] is written by flarekit train expected."


@dataclass
class _Seen:
    """What one label measured, in the cases that would have been labelled for it."""

    cases: int = 0
    volumes_ml: list[float] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    cut: int = 0
    clipped: float = 0.0
    second_part: float = 0.0

    def add(self, each: LabelStatistics) -> None:
        self.volumes_ml.append(each.volume_ml)
        measured = next(iter(each.intensities.values()))
        assert measured is not None
        self.means.append(measured[0])
        self.second_part = max(self.second_part, each.second_part)


def expected_of(
    predictor: PredictorFolder, cases: Mapping[Path, Sequence[str]], *, crops: bool = False
) -> dict[str, Expected]:
    """Measure the labels of data sets that a predictor has as well, by their names.

    Volumes are taken as log-normal and mean intensities as normal, with their medians and median
    absolute deviations; bounds are those of the prediction interval that two in a thousand cases
    are beyond, on either side. Each data set has its own interval, as lesions of one kind tell
    little of another; what any of them expects is expected.

    Args:
        predictor: whose labels; those of a folder without a `dataset.json` have its values.
        cases: folder in nnU-Net's raw layout -> ids of its cases.
        crops: the scans are crops around what is labelled, whose edges tell nothing of other scans.

    Returns:
        Label -> what it measured. A data set where fewer than four cases have a label tells nothing
        of it; labels that none tells of are left out. A case that lacks a label by the predictor's
        recipe (`training.labelled`, `training.unlabelled`) tells nothing of it.

    Raises:
        InputError: a file is missing or unreadable, or two do not fit each other.
    """
    seen: dict[str, list[_Seen]] = {}
    for dataset, ids in cases.items():
        for name, each in _seen_in(predictor, dataset, ids).items():
            if len(each.volumes_ml) >= _FEWEST:
                seen.setdefault(name, []).append(each)
    return {
        name: _expected(seen[name], crops=crops) for name in predictor.spec.labels if name in seen
    }


def _seen_in(predictor: PredictorFolder, dataset: Path, ids: Sequence[str]) -> dict[str, _Seen]:
    """Return what the labels of one data set measure."""
    values, recipe = predictor.spec.labels, _recipe_of(predictor)
    if (dataset / NAME).is_file():
        values = read_dataset(dataset / NAME, gaps=True).voxel_labels()
    stated = {name: values[name] for name in predictor.spec.labels if name in values}
    seen = {name: _Seen() for name in stated}
    channel = predictor.spec.channels[0]
    has_unit = isinstance(channel.intensity, Window)  # an MR's numbers are each scanner's own
    for case_id in ids:
        scan = read_channel(dataset / "imagesTr" / f"{case_id}_0000.nii.gz", channel)
        label_map, geometry = read_labels(dataset / "labelsTr" / f"{case_id}.nii.gz", scan)
        channels = {channel.name: scan.voxels_ZYX}
        unlabelled = () if recipe is None else recipe.unlabelled_in(case_id)
        lacking = {recipe.class_names[k] for k in unlabelled} if recipe is not None else set()
        labels = {name: value for name, value in stated.items() if name not in lacking}
        for name in labels:
            seen[name].cases += 1
        for each in label_statistics(label_map, geometry, labels, channels):
            if each.voxels:
                seen[each.label].add(each)
                seen[each.label].cut += _is_near_edge(each, geometry)
                own = scan.voxels_ZYX[label_map == each.value]
                share = float(np.mean(own <= scan.voxels_ZYX.min())) if has_unit else 1.0
                seen[each.label].clipped = max(seen[each.label].clipped, share)
    return seen


def _is_near_edge(each: LabelStatistics, geometry: Geometry) -> bool:
    assert each.first_voxel_xyz is not None
    assert each.last_voxel_xyz is not None
    first, last = np.array(each.first_voxel_xyz), np.array(each.last_voxel_xyz)
    beyond = np.array(geometry.shape_ZYX[::-1]) - 1 - last
    spacing_mm = np.array(geometry.spacing_mm_ZYX[::-1])
    return bool((np.minimum(first, beyond) * spacing_mm).min() < _NEAR_MM)


def _expected(seen: Sequence[_Seen], *, crops: bool) -> Expected:
    """Return what several data sets together expect of one label."""
    count = sum(len(each.volumes_ml) for each in seen)
    volumes = [_interval([math.log(ml) for ml in each.volumes_ml]) for each in seen]
    intensities = [_with_observed(each.means) for each in seen]
    low, high = _widest(volumes)
    return Expected(
        cases=count,
        missing=_rounded(1 - count / sum(each.cases for each in seen)),
        volume_ml=(_rounded(math.exp(low)), _rounded(math.exp(high))),
        intensity=_widest(intensities)
        if max(each.clipped for each in seen) <= _MOST_CLIPPED
        else None,
        cut=None if crops else _rounded(sum(each.cut for each in seen) / count),
        second_part=_rounded(max(each.second_part for each in seen)),
    )


def _widest(bounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in bounds), max(high for _, high in bounds)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the bounds between which a further value is expected, whatever a few of these are."""
    from scipy.stats import t

    count, middle = len(values), float(np.median(values))
    spread = _MAD_TO_SD * float(np.median(np.abs(np.asarray(values) - middle)))
    reach = float(t.ppf(1 - _OUTSIDE, count - 1)) * math.sqrt(1 + 1 / count) * spread
    return _rounded(middle - reach), _rounded(middle + reach)


def _with_observed(values: Sequence[float]) -> tuple[float, float]:
    """Return bounds that none of the values is beyond."""
    low, high = _interval(values)
    return min(low, _rounded(min(values))), max(high, _rounded(max(values)))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def training_ids(predictor: PredictorFolder, dataset: Path) -> list[str]:
    """Return the cases of a data set that a predictor's recipe trains on; all without a recipe.

    Raises:
        InputError: there are none.
    """
    recipe = _recipe_of(predictor)
    held_out: tuple[str, ...] = ()
    if recipe is not None:
        held_out = (*recipe.training.held_out, *recipe.training.validation)
    found = case_ids(dataset, without=held_out)
    if not found:
        raise InputError(f"{dataset}: has no training cases", fix="name a data set with labelsTr")
    return found


def _recipe_of(predictor: PredictorFolder) -> Recipe | None:
    path = predictor.folder / "recipe.toml"
    return read_recipe(path) if path.is_file() else None


def write_expected(predictor: PredictorFolder, expected: dict[str, Expected]) -> None:
    """Write what labels measure into a predictor's facts, in place of what stood there.

    Raises:
        InputError: there is nothing to write.
        OutputError: it could not be written.
    """
    if not expected:
        raise InputError(
            f"no label of {predictor.name} has {_FEWEST} training cases",
            fix="name a data set with labels of the same names",
        )
    text, content = read_toml(
        predictor.folder / "predictor.toml", fix="name the folder of a predictor"
    )
    head = text.partition("\n")[0].removeprefix("#").strip() if text.startswith("#") else _HEAD
    tables = {
        name: each.model_dump(mode="json", exclude_none=True) for name, each in expected.items()
    }
    write_spec(predictor.folder, dict(content) | {"expected": tables}, head=head)
