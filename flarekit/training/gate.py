"""How the lesions of training cases are shaped, for the rule `shape_gate`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.core.dataset_json import NAME, read_dataset
from flarekit.core.errors import InputError, UsageError
from flarekit.core.gate import FEATURES, Gate, component_features
from flarekit.core.plausible import check_range
from flarekit.core.spec import PredictorFolder, write_spec
from flarekit.core.tables import read_toml
from flarekit.training.expected import training_ids
from flarekit.training.labelled_scan import read_channel, read_labels

RULE = "shape_gate"
_FEWEST = 2 * len(FEATURES)
_DIGITS = 6
_LEAST_SD = (0.3, 0.1, 0.05)  # of the first three features: fewer cases than lesions there are
_HEAD = "Facts of a predictor; the rule shape_gate is written by flarekit train gate."
_LAST = ("clicks", "recist_line")  # what a person marked is never dropped


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A gate, and the distance up to which components are kept.

    Attributes:
        label: whose components were measured.
        kept: share of the measured lesions that the rule keeps.
    """

    label: str
    gate: Gate
    most: float
    kept: float


def fit_gate(
    predictor: PredictorFolder,
    datasets: Sequence[Path],
    *,
    label: str | None = None,
    channel: str | None = None,
    lost: float = 0.01,
) -> Fitted:
    """Measure the components of a label in the training cases of data sets.

    The features are taken as normal with their means and covariance; the distance is that beyond
    which so many further lesions of the same kind are expected (Hotelling's prediction region), and
    no less than that within which all but so many of the measured ones lie.

    Args:
        predictor: whose label, channels and recipe.
        datasets: folders in nnU-Net's raw layout; without a `dataset.json` the label has the
            predictor's value.
        label: the predictor's only one where None.
        channel: whose intensity counts; the uptake where there is one, else the first, where None.
        lost: share of further lesions that may lie beyond, in (0, 1).

    Raises:
        UsageError: no such label or channel, or a share that is none.
        InputError: too few lesions, or a file that is missing or unreadable.
    """
    from scipy.stats import f

    if not 0 < lost < 1:
        raise UsageError(f"{lost:g} is not a share of lesions", fix="give one between 0 and 1")
    label, index = _label(predictor, label), _channel(predictor, channel)
    rows = np.array([row for folder in datasets for row in _rows(predictor, folder, label, index)])
    count, features = len(rows), len(FEATURES)
    if count < _FEWEST:
        raise InputError(
            f"{count} lesions {label!r} in the training cases, fewer than {_FEWEST}",
            fix="name data sets with more labelled lesions",
        )
    covariance = np.cov(rows.T)
    least = (*np.square(_LEAST_SD), 1e-6 * (1 + np.square(rows[:, -1].mean())))
    covariance += np.diag(np.maximum(0, np.array(least) - np.diag(covariance)))
    scale = features * (count + 1) * (count - 1) / (count * (count - features))
    gate = Gate(
        channel=predictor.spec.channels[index].name,
        mean=_rounded(rows.mean(axis=0)),
        covariance=(
            _rounded(covariance[0]),
            _rounded(covariance[1]),
            _rounded(covariance[2]),
            _rounded(covariance[3]),
        ),
        components=count,
    )
    own = np.array([gate.distance(row) for row in rows])
    expected = float(np.sqrt(scale * f.ppf(1 - lost, features, count - features)))
    most = max(expected, float(np.quantile(own, 1 - lost, method="higher")))
    kept = float(np.mean(own <= most))
    return Fitted(label=label, gate=gate, most=float(np.ceil(most * 1000) / 1000), kept=kept)


def write_gate(predictor: PredictorFolder, fitted: Fitted) -> None:
    """Write the rule into a predictor's facts, in place of one that stood there.

    It stands behind all rules but those that do what a person marked.

    Raises:
        OutputError: it could not be written.
    """
    text, content = read_toml(
        predictor.folder / "predictor.toml", fix="name the folder of a predictor"
    )
    head = text.partition("\n")[0].removeprefix("#").strip() if text.startswith("#") else _HEAD
    rule = {
        "name": RULE,
        "labels": [fitted.label],
        "value": fitted.most,
        "gate": fitted.gate.model_dump(mode="json"),
    }
    others = [each for each in content.get("rules", []) if not _is_replaced(each, fitted.label)]
    place = next((k for k, each in enumerate(others) if each["name"] in _LAST), len(others))
    rules = [*others[:place], rule, *others[place:]]
    write_spec(predictor.folder, dict(content) | {"rules": rules}, head=head)


def _is_replaced(rule: dict[str, object], label: str) -> bool:
    return rule["name"] == RULE and rule["labels"] == [label]


def _label(predictor: PredictorFolder, label: str | None) -> str:
    labels = predictor.spec.labels
    if label is None and len(labels) == 1:
        return next(iter(labels))
    if label not in labels:
        raise UsageError(
            "which label the lesions are is not clear" if label is None else f"no label {label!r}",
            fix=f"--label, one of: {', '.join(labels)}",
        )
    return label


def _channel(predictor: PredictorFolder, channel: str | None) -> int:
    channels = predictor.spec.channels
    if channel is None:
        return next((k for k, each in enumerate(channels) if each.is_uptake), 0)
    for index, each in enumerate(channels):
        if each.name.lower() == channel.lower():
            return index
    known = ", ".join(each.name for each in channels)
    raise UsageError(f"no channel {channel!r}", fix=f"--channel, one of: {known}")


def _rows(
    predictor: PredictorFolder, folder: Path, label: str, index: int
) -> Iterator[NDArray[np.float64]]:
    """Yield the features of every component of a label in a data set's training cases."""
    import cc3d

    value = predictor.spec.labels[label]
    if (folder / NAME).is_file():
        values = read_dataset(folder / NAME, gaps=True).voxel_labels()
        if label not in values:
            raise InputError(
                f"{folder / NAME}: has no label {label!r}", fix="name data sets with that label"
            )
        value = values[label]
    for case_id in training_ids(predictor, folder):
        channel = predictor.spec.channels[index]
        scan = read_channel(folder / "imagesTr" / f"{case_id}_{index:04d}.nii.gz", channel)
        check_range(scan)
        labels, geometry = read_labels(folder / "labelsTr" / f"{case_id}.nii.gz", scan)
        mask = labels == value
        numbered = cc3d.connected_components(mask, connectivity=26)
        for number, box in enumerate(cc3d.statistics(numbered)["bounding_boxes"][1:], 1):
            inside = numbered[box] == number
            spacing_mm = geometry.spacing_mm_ZYX
            yield component_features(inside, scan.voxels_ZYX[box], spacing_mm)


def _rounded(values: NDArray[np.float64]) -> tuple[float, float, float, float]:
    one, two, three, four = (float(f"{value:.{_DIGITS}g}") for value in values)
    return one, two, three, four
