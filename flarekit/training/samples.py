"""Training samples: real scans and phantoms on the network's grid, cut and augmented."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from flarekit.core.nifti import read_nifti
from flarekit.core.spec import PredictorSpec
from flarekit.core.volume import Geometry, Volume
from flarekit.preprocess import prepare
from flarekit.training.recipe import Recipe

MAYBE = 255  # background, or an organ that this case's labels leave out
_ROOM = 1.5  # a sample is cut this much larger before it is turned and scaled


@dataclass(frozen=True, kw_only=True)
class TrainingCase:
    """One case on the network's grid.

    Attributes:
        image_ZYX: float16, normalised.
        classes_ZYX: uint8 class indices, MAYBE where the labels cannot tell.
        centres: class -> (n, 3) int32 voxel indices of that class, thinned.
    """

    case_id: str
    image_ZYX: NDArray[np.float16]
    classes_ZYX: NDArray[np.uint8]
    centres: dict[int, NDArray[np.int32]]


def real_cases(dataset: Path, recipe: Recipe) -> Iterator[TrainingCase]:
    """Yield the cases of an nnU-Net raw dataset folder that are not held out.

    Label values in the files are the predictor's mask values.
    """
    spec, facts = recipe.spec, recipe.training
    for label_path in sorted((dataset / "labelsTr").glob("*.nii.gz")):
        case_id = label_path.name.removesuffix(".nii.gz")
        if case_id in facts.held_out:
            continue
        volume = read_nifti(dataset / "imagesTr" / f"{case_id}_0000.nii.gz")
        labels = read_nifti(label_path).voxels_ZYX.astype(np.uint8)
        prepared = prepare([volume], spec)
        classes = _as_classes(prepared.grid_labels(labels), spec)
        if facts.unlabelled and facts.near is not None:
            anchor = spec.class_values.index(spec.labels[facts.near])
            _mark_maybe(classes, classes == anchor, recipe.spacing_mm_ZYX, facts.near_mm)
        yield _case(case_id, prepared.tensor_CZYX[0], classes)


def phantom_cases(recipe: Recipe) -> Iterator[TrainingCase]:
    """Yield phantoms, fully labelled, windowed like any scan."""
    spec, facts = recipe.spec, recipe.training
    from flarekit.phantom import abdomen_phantom

    for seed in range(*facts.phantom_seeds):
        phantom = abdomen_phantom(seed)
        geometry = Geometry(shape_ZYX=phantom.labels_ZYX.shape, affine=phantom.affine, header=None)
        volume = Volume(
            voxels_ZYX=phantom.hu_ZYX.astype(np.float32),
            geometry=geometry,
            path=Path(f"phantom-{seed}"),
        )
        prepared = prepare([volume], spec)
        classes = _as_classes(prepared.grid_labels(phantom.labels_ZYX), spec)
        yield _case(f"phantom-{seed}", prepared.tensor_CZYX[0], classes)


def _as_classes(label_map: NDArray[np.uint8], spec: PredictorSpec) -> NDArray[np.uint8]:
    table = np.zeros(256, np.uint8)
    for index, value in enumerate(spec.class_values):
        table[value] = index
    return table[label_map]


def _mark_maybe(
    classes: NDArray[np.uint8],
    anchor: NDArray[np.bool_],
    spacing_mm: tuple[float, float, float],
    near_mm: float,
) -> None:
    from scipy.ndimage import distance_transform_edt

    if anchor.any():
        near = distance_transform_edt(~anchor, sampling=spacing_mm) <= near_mm
        classes[near & (classes == 0)] = MAYBE


def _case(case_id: str, image: NDArray[np.float32], classes: NDArray[np.uint8]) -> TrainingCase:
    centres = {}
    for index in np.unique(classes):
        if index not in (0, MAYBE):
            voxels = np.argwhere(classes == index).astype(np.int32)
            centres[int(index)] = voxels[:: max(1, len(voxels) // 2000)]
    return TrainingCase(
        case_id=case_id, image_ZYX=image.astype(np.float16), classes_ZYX=classes, centres=centres
    )


def draw_sample(
    case: TrainingCase,
    tile_ZYX: tuple[int, int, int],
    spacing_mm_ZYX: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut one augmented sample.

    Two in three samples are centred near a voxel of a class drawn evenly, so that small organs are
    seen as often as large ones.

    Returns:
        image (1, Z, Y, X) float32 and class indices (Z, Y, X) int64.
    """
    shape = np.array(case.image_ZYX.shape)
    if case.centres and rng.random() < 0.67:
        voxels = case.centres[int(rng.choice(list(case.centres)))]
        jitter = rng.normal(0, np.array(tile_ZYX) / 8)
        centre = voxels[rng.integers(len(voxels))] + jitter
    else:
        centre = rng.uniform(0, shape)
    image, classes = _cut(case, np.round(centre).astype(int), tile_ZYX)
    image, classes = _turn_and_scale(image, classes, tile_ZYX, spacing_mm_ZYX, rng)
    return _change_intensity(image, rng), classes


def _cut(
    case: TrainingCase, centre: NDArray[np.int_], tile_ZYX: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    size = [math.ceil(n * _ROOM) for n in tile_ZYX]
    image = np.full(size, float(case.image_ZYX.min()), np.float32)
    classes = np.zeros(size, np.uint8)
    source, target = [], []
    for c, n, extent in zip(centre, size, case.image_ZYX.shape, strict=True):
        start = int(np.clip(c, 0, extent - 1)) - n // 2
        low, high = max(0, start), min(extent, start + n)
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    image[tuple(target)] = case.image_ZYX[tuple(source)]
    classes[tuple(target)] = case.classes_ZYX[tuple(source)]
    return torch.from_numpy(image), torch.from_numpy(classes)


def _turn_and_scale(
    image: torch.Tensor,
    classes: torch.Tensor,
    tile_ZYX: tuple[int, int, int],
    spacing_mm_ZYX: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample the tile from its larger surroundings under a random rotation and scaling."""
    matrix = np.diag(np.exp(rng.normal(0, 0.1, 3)) * math.exp(rng.normal(0, 0.1)))
    for axis, degrees in ((0, 5), (1, 5), (2, 12)):  # about X, Y and Z
        angle = math.radians(float(rng.normal(0, degrees)))
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    tile_XYZ = np.array(tile_ZYX[::-1], float)
    room_XYZ = np.array(image.shape[::-1], float)
    spacing_XYZ = np.array(spacing_mm_ZYX[::-1])
    in_voxels = matrix * spacing_XYZ[None, :] / spacing_XYZ[:, None]
    theta = np.zeros((1, 3, 4), np.float32)
    theta[0, :, :3] = in_voxels * tile_XYZ[None, :] / room_XYZ[:, None]
    grid = functional.affine_grid(torch.from_numpy(theta), [1, 1, *tile_ZYX], align_corners=False)
    turned = functional.grid_sample(
        image[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    turned_classes = functional.grid_sample(
        classes[None, None].float(),
        grid,
        mode="nearest",
        padding_mode="border",
        align_corners=False,
    )
    return turned[0], turned_classes[0, 0].long()


def _change_intensity(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Vary contrast, brightness, gamma, sharpness and noise."""
    low, high = image.amin(), image.amax()
    if rng.random() < 0.3:
        span = (high - low).clamp_min(1e-3)
        image = ((image - low) / span) ** math.exp(float(rng.normal(0, 0.25))) * span + low
    if rng.random() < 0.6:
        image = image * math.exp(float(rng.normal(0, 0.12))) + float(rng.normal(0, 0.12))
    if rng.random() < 0.2:
        image = functional.avg_pool3d(
            image[None], (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False
        )[0]
    if rng.random() < 0.4:
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        noise = torch.randn(image.shape, generator=generator)
        image = image + float(rng.uniform(0, 0.15)) * noise
    return image
