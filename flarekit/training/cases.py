"""Training cases on the network's grid: labelled scans, phantoms, synthetic ones."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from flarekit.core.errors import InputError
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Volume, orientation_of
from flarekit.preprocess import Prepared, prepare
from flarekit.training.augment import ct_window
from flarekit.training.kept import make_kept, read_kept
from flarekit.training.labelled_scan import read_channel, read_labels
from flarekit.training.losses import MAYBE
from flarekit.training.other_ct import with_other_ct
from flarekit.training.recipe import Recipe
from flarekit.training.tables import TrainingFacts
from flarekit.training.training_case import Spacing, TrainingCase

_LOG = logging.getLogger(__name__)
_SAY_EVERY = 20  # cases
_MOST_CENTRES = 2000  # voxels remembered per class
_LEAST_PART = 20  # voxels of a connected part of hard negatives


class LazyCases(Sequence[TrainingCase]):
    """Cases that are made when they are first drawn, or before, and kept on disk where wanted."""

    def __init__(self, makers: Sequence[Callable[[], TrainingCase]]) -> None:
        self.makers = makers
        self._made: dict[int, TrainingCase] = {}

    def __len__(self) -> int:
        return len(self.makers)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - one case; slices are not needed
        if index not in self._made:
            self._made[index] = self.makers[index]()
        return self._made[index]

    def make_all(
        self, folder: Path, processes: int, made: Callable[[], None] = lambda: None
    ) -> None:
        """Make every case in processes of their own, or read it from a folder of an earlier run.

        Args:
            folder: keeps the cases; a case whose maker has changed since is made anew.
            processes: how many make cases at the same time; 1 is this one.
            made: called for each case that is there.
        """
        for index, path in enumerate(make_kept(self.makers, folder, processes)):
            self._made[index] = read_kept(path)
            if (index + 1) % _SAY_EVERY == 0 or index + 1 == len(self):
                _LOG.info("%d of %d cases are prepared", index + 1, len(self))
            made()


def real_cases(dataset: Path, recipe: Recipe, *, only: Sequence[str] | None = None) -> LazyCases:
    """Return the cases of an nnU-Net raw dataset folder that are trained on.

    Label values in the files are the predictor's mask values; others are background.

    Args:
        dataset: the folder.
        recipe: what is held out.
        only: patterns of other cases, which are taken instead; there may be none.

    Raises:
        InputError: no cases to train on, or a file of one is missing.
    """
    found = [each for each in case_ids(dataset) if taken(each, recipe.training, only)]
    if not found and only is None:
        raise no_cases(dataset)
    other_ct = recipe.training.other_ct
    return LazyCases(
        [
            _RealCase(dataset / "labelsTr" / f"{case_id}.nii.gz", recipe, copy)
            for case_id in found
            for copy in range(1 if other_ct is None else other_ct.copies)
        ]
    )


def no_cases(dataset: Path) -> InputError:
    """Return the error of a folder without cases to train on: what is there instead."""
    labels = dataset / "labelsTr"
    others = sorted(path.name for path in labels.iterdir()) if labels.is_dir() else []
    if case_ids(dataset):
        there = ": all of its cases are held out, or for validation"
    elif others:
        there = f": labelsTr has {', '.join(others[:3])}, and should have CASE.nii.gz"
    else:
        there = "" if labels.is_dir() else ": it has no folder labelsTr"
    return InputError(
        f"{dataset}: holds no labelled cases to train on{there}",
        fix="name a folder with imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz",
    )


def taken(case_id: str, facts: TrainingFacts, only: Sequence[str] | None) -> bool:
    """Return whether a case is trained on, or, where patterns are given, whether it matches one."""
    if only is not None:
        return matches(case_id, only) and not matches(case_id, facts.held_out)
    return not matches(case_id, (*facts.held_out, *facts.validation))


def case_ids(
    dataset: Path, *, only: Sequence[str] = ("*",), without: Sequence[str] = ()
) -> list[str]:
    """Return the ids of the labelled cases of an nnU-Net raw dataset folder, in order.

    Args:
        dataset: the folder.
        only: patterns, see `matches`; an id has to match one.
        without: patterns that it must not match.
    """
    paths = sorted((dataset / "labelsTr").glob("*.nii.gz"))
    found = [path.name.removesuffix(".nii.gz") for path in paths]
    return [name for name in found if matches(name, only) and not matches(name, without)]


def matches(case_id: str, patterns: Sequence[str]) -> bool:
    """Return whether an id matches a pattern; `*`, `?` and `[...]` are the shell's."""
    return any(fnmatchcase(case_id, pattern) for pattern in patterns)


@dataclass(frozen=True)
class _RealCase:
    label_path: Path
    recipe: Recipe
    copy: int = 0

    def __post_init__(self) -> None:
        for path in self.image_paths:
            if not path.is_file():
                raise InputError(f"{path}: is not there", fix="add it, or hold the case out")

    @property
    def case_id(self) -> str:
        return self.label_path.name.removesuffix(".nii.gz")

    @property
    def image_paths(self) -> list[Path]:
        folder = self.label_path.parents[1] / "imagesTr"
        count = len(self.recipe.spec.channels)
        return [folder / f"{self.case_id}_{channel:04d}.nii.gz" for channel in range(count)]

    def __call__(self) -> TrainingCase:
        channels = self.recipe.spec.channels
        volumes = [
            read_channel(path, channel)
            for path, channel in zip(self.image_paths, channels, strict=True)
        ]
        labels, _ = read_labels(self.label_path, volumes[0])
        unlabelled = self.recipe.unlabelled_in(self.case_id)
        case = on_grid(self.case_id, volumes, labels, self.recipe, unlabelled=unlabelled)
        if not self.copy:
            return case
        seed = [17, self.copy, crc32(os.fsencode(self.case_id))]
        return with_other_ct(case, self.recipe, np.random.default_rng(seed))


def phantom_cases(recipe: Recipe) -> LazyCases:
    """Return the recipe's abdominal phantoms, fully labelled."""
    seeds = range(*recipe.training.phantom_seeds)
    return LazyCases([_PhantomCase(seed, recipe) for seed in seeds])


@dataclass(frozen=True)
class _PhantomCase:
    seed: int
    recipe: Recipe

    def __call__(self) -> TrainingCase:
        from flarekit.phantom import abdomen_phantom

        phantom = abdomen_phantom(self.seed)
        volume = volume_of(phantom.hu_ZYX, phantom.affine, f"phantom-{self.seed}")
        return on_grid(
            volume.path.name,
            [volume],
            phantom.labels_ZYX,
            self.recipe,
            unlabelled=self.recipe.auxiliary_classes,
        )


def volume_of(voxels_ZYX: NDArray[Any], affine: NDArray[np.float64], name: str) -> Volume:
    """Return voxels that were never in a file as a volume."""
    shape = voxels_ZYX.shape
    geometry = Geometry(shape_ZYX=(shape[0], shape[1], shape[2]), affine=affine, header=None)
    return Volume(voxels_ZYX=voxels_ZYX.astype(np.float32), geometry=geometry, path=Path(name))


def on_grid(
    case_id: str,
    volumes: Sequence[Volume],
    labels_ZYX: NDArray[np.uint8],
    recipe: Recipe,
    *,
    unlabelled: Sequence[int],
) -> TrainingCase:
    """Bring a labelled case onto the grid that samples are read from.

    Args:
        case_id: for messages.
        volumes: one per channel.
        labels_ZYX: values of `Recipe.label_values` on the stored grid.
        recipe: the predictor, and where its unlabelled organs may lie.
        unlabelled: classes that the labels do not have; their values are background here.
    """
    spec, facts = recipe.spec, recipe.training
    if facts.case_grid == "scan":
        grid = spec.grid.model_copy(update={"spacing_mm_ZYX": ("scan", "scan", "scan")})
        spec = spec.model_copy(update={"grid": grid})
    prepared = prepare(volumes, spec)
    class_of = np.zeros(256, np.uint8)
    for index, value in enumerate(recipe.label_values):
        class_of[value] = 0 if index in unlabelled else index
    on_grid_ZYX = prepared.grid_labels(labels_ZYX)
    classes = class_of[on_grid_ZYX]
    spacing_mm = _grid_spacing(prepared, volumes[0], spec)
    possible = np.zeros(len(recipe.label_values), np.bool_)
    if unlabelled:
        possible[[0, *unlabelled]] = True
        anchor = None if facts.near is None else spec.class_values.index(spec.labels[facts.near])
        _mark_maybe(classes, anchor, spacing_mm, facts.near_mm)
    return TrainingCase(
        case_id=case_id,
        image_CZYX=prepared.tensor_CZYX.astype(np.float16),
        classes_ZYX=classes,
        possible_K=possible,
        centres=_centres(classes) | _neighbour_centres(on_grid_ZYX, recipe),
        hard_negatives=_hard_negatives(prepared.tensor_CZYX, classes, recipe),
        spacing_mm_ZYX=spacing_mm,
    )


def _hard_negatives(
    image_CZYX: NDArray[np.floating[Any]], classes: NDArray[np.uint8], recipe: Recipe
) -> list[NDArray[np.int32]]:
    facts = recipe.training.hard_negatives
    if facts is None:
        return []
    import cc3d

    channels = recipe.spec.channels
    index = next(i for i, channel in enumerate(channels) if channel.name == facts.channel)
    window = ct_window(channels[index])
    hot = image_CZYX[index] > (facts.above - window.mean) / window.std
    hot &= np.isin(classes, (0, MAYBE))
    parts = cc3d.connected_components(cc3d.dust(hot, threshold=_LEAST_PART), connectivity=18)
    return [_thinned(parts == part) for part in range(1, int(parts.max()) + 1)]


def _mark_maybe(
    classes: NDArray[np.uint8], anchor: int | None, spacing_mm: Spacing, near_mm: float
) -> None:
    from scipy.ndimage import distance_transform_edt

    if anchor is None:
        classes[classes == 0] = MAYBE
    elif (classes == anchor).any():
        near = distance_transform_edt(classes != anchor, sampling=spacing_mm) <= near_mm
        classes[near & (classes == 0)] = MAYBE


def _centres(classes: NDArray[np.uint8]) -> dict[int, NDArray[np.int32]]:
    present = set(np.unique(classes).tolist()) - {0, MAYBE}
    return {index: _thinned(classes == index) for index in sorted(present)}


def _neighbour_centres(
    labels_ZYX: NDArray[np.uint8], recipe: Recipe
) -> dict[int, NDArray[np.int32]]:
    first = len(recipe.class_names)
    values = enumerate(recipe.training.neighbours.values(), start=first)
    found = {index: _thinned(labels_ZYX == value) for index, value in values}
    return {index: voxels for index, voxels in found.items() if len(voxels)}


def _thinned(mask_ZYX: NDArray[np.bool_]) -> NDArray[np.int32]:
    voxels = np.argwhere(mask_ZYX).astype(np.int32)
    return voxels[:: max(1, len(voxels) // _MOST_CENTRES)]


def _grid_spacing(prepared: Prepared, volume: Volume, spec: PredictorSpec) -> Spacing:
    """Return the spacing of the grid; what the crop kept of the scan shows what `fit` became."""
    grid_shape = prepared.tensor_CZYX.shape[1:]
    orientation = orientation_of(volume.geometry.affine, spec.grid.axes)
    scan_mm = orientation.apply_to_axes(volume.geometry.spacing_mm_ZYX)
    kept = orientation.apply(prepared.restore(np.ones(grid_shape, np.uint8)))
    sizes = [
        np.count_nonzero(kept.any(axis=tuple(other for other in range(3) if other != axis)))
        for axis in range(3)
    ]
    z, y, x = (
        float(count * mm / n) for count, mm, n in zip(sizes, scan_mm, grid_shape, strict=True)
    )
    return z, y, x
