"""Phantoms: the same for the same seed, and anatomically plausible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from flarekit.phantom import Phantom, abdomen_phantom

LIVER, RIGHT_KIDNEY, SPLEEN, PANCREAS, AORTA, VENA_CAVA, RIGHT_ADRENAL = range(1, 8)
LEFT_ADRENAL, GALLBLADDER, ESOPHAGUS, STOMACH, DUODENUM, LEFT_KIDNEY = range(8, 14)
SEEDS = (0, 1, 2, 3, 4)
SPACING_MM = (4.0, 2.2, 2.2)

PLAUSIBLE_ML = {
    LIVER: (700, 2400),
    RIGHT_KIDNEY: (70, 270),
    SPLEEN: (60, 450),
    PANCREAS: (30, 150),
    AORTA: (25, 170),
    VENA_CAVA: (30, 190),
    RIGHT_ADRENAL: (1.2, 10),
    LEFT_ADRENAL: (1.2, 10),
    GALLBLADDER: (5, 90),
    ESOPHAGUS: (5, 50),
    STOMACH: (90, 700),
    DUODENUM: (25, 150),
    LEFT_KIDNEY: (70, 270),
}
PLAUSIBLE_HU = {
    LIVER: (20, 150),
    SPLEEN: (30, 160),
    RIGHT_KIDNEY: (15, 240),
    LEFT_KIDNEY: (15, 240),
    PANCREAS: (15, 140),
    AORTA: (25, 380),
    GALLBLADDER: (-15, 60),
}


Coarse = Callable[[int], Phantom]


def save(path: Path, phantom: Phantom) -> None:
    with path.open("wb") as stream:
        np.savez(stream, hu=phantom.hu_ZYX, labels=phantom.labels_ZYX, affine=phantom.affine)


@pytest.fixture
def coarse(made_once: Callable[..., Path]) -> Coarse:
    """Return a function: a seed -> its phantom, drawn once for all processes."""

    def drawn(seed: int) -> Phantom:
        path = made_once(
            f"phantom_{seed}.npz",
            lambda target: save(target, abdomen_phantom(seed, spacing_mm_ZYX=SPACING_MM)),
        )
        with np.load(path) as stored:
            return Phantom(
                hu_ZYX=stored["hu"],
                labels_ZYX=stored["labels"],
                spacing_mm_ZYX=SPACING_MM,
                affine=stored["affine"],
            )

    return drawn


def volume_ml(phantom: Phantom, label: int) -> float:
    return float((phantom.labels_ZYX == label).sum() * np.prod(phantom.spacing_mm_ZYX) / 1000)


def centroid_mm(phantom: Phantom, label: int) -> NDArray[np.float64]:
    voxels = np.argwhere(phantom.labels_ZYX == label)
    centroid: NDArray[np.float64] = voxels.mean(axis=0) * phantom.spacing_mm_ZYX
    return centroid


@pytest.mark.long
def test_the_same_seed_gives_the_same_voxels() -> None:
    first = abdomen_phantom(7, spacing_mm_ZYX=(6.0, 4.0, 4.0))
    second = abdomen_phantom(7, spacing_mm_ZYX=(6.0, 4.0, 4.0))
    np.testing.assert_array_equal(first.hu_ZYX, second.hu_ZYX)
    np.testing.assert_array_equal(first.labels_ZYX, second.labels_ZYX)
    np.testing.assert_array_equal(first.affine, second.affine)


@pytest.mark.slow
def test_different_seeds_give_different_patients() -> None:
    shape = (40, 72, 90)
    first, second = (abdomen_phantom(seed, shape_ZYX=shape) for seed in (11, 12))
    assert first.spacing_mm_ZYX != second.spacing_mm_ZYX
    assert (first.labels_ZYX != second.labels_ZYX).mean() > 0.02
    assert (first.hu_ZYX != second.hu_ZYX).mean() > 0.5


@pytest.mark.long(2)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_organ_is_there_except_perhaps_the_gallbladder(seed: int, coarse: Coarse) -> None:
    missing = set(range(1, 14)) - set(np.unique(coarse(seed).labels_ZYX).tolist())
    assert missing <= {GALLBLADDER}
    assert coarse(seed).labels_ZYX.max() == LEFT_KIDNEY


@pytest.mark.long(2)
@pytest.mark.parametrize("seed", SEEDS)
def test_organ_volumes_are_plausible(seed: int, coarse: Coarse) -> None:
    for label, (low, high) in PLAUSIBLE_ML.items():
        millilitres = volume_ml(coarse(seed), label)
        assert low <= millilitres <= high or (label == GALLBLADDER and millilitres == 0), (
            label,
            millilitres,
        )


@pytest.mark.long(2)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_organ_is_one_component(seed: int, coarse: Coarse) -> None:
    labels = coarse(seed).labels_ZYX
    for label in np.unique(labels)[1:]:
        _, count = ndimage.label(labels == label, np.ones((3, 3, 3)))
        assert count == 1, label


@pytest.mark.long(2)
@pytest.mark.parametrize("seed", SEEDS)
def test_organs_lie_on_their_own_side(seed: int, coarse: Coarse) -> None:
    phantom = coarse(seed)
    at = {
        label: centroid_mm(phantom, label)
        for label in PLAUSIBLE_ML
        if (phantom.labels_ZYX == label).any()
    }
    for right, left in (
        (LIVER, SPLEEN),
        (RIGHT_KIDNEY, LEFT_KIDNEY),
        (VENA_CAVA, AORTA),
        (RIGHT_ADRENAL, LEFT_ADRENAL),
        (LIVER, STOMACH),
        (DUODENUM, STOMACH),
    ):
        assert at[right][2] < at[left][2], (right, left)
    for lower, upper in (
        (RIGHT_KIDNEY, RIGHT_ADRENAL),
        (LEFT_KIDNEY, LEFT_ADRENAL),
        (STOMACH, ESOPHAGUS),
    ):
        assert at[lower][0] < at[upper][0], (lower, upper)
    for front, back in ((STOMACH, LEFT_KIDNEY), (PANCREAS, AORTA), (DUODENUM, RIGHT_KIDNEY)):
        assert at[front][1] < at[back][1], (front, back)


@pytest.mark.long(2)
@pytest.mark.parametrize("seed", SEEDS)
def test_hounsfield_units_are_plausible(seed: int, coarse: Coarse) -> None:
    phantom = coarse(seed)
    for label, (low, high) in PLAUSIBLE_HU.items():
        inside = ndimage.binary_erosion(phantom.labels_ZYX == label)
        if inside.any():
            assert low <= float(np.median(phantom.hu_ZYX[inside])) <= high, label
    corners = phantom.hu_ZYX[:, :4, :4]
    assert abs(float(corners.mean()) + 1000) < 15
    assert phantom.hu_ZYX.min() >= -1024
    assert phantom.hu_ZYX.max() > 250


@pytest.mark.long
def test_an_explicit_spacing_and_shape_are_respected() -> None:
    phantom = abdomen_phantom(5, spacing_mm_ZYX=(5.0, 3.0, 4.0), shape_ZYX=(17, 31, 45))
    assert phantom.hu_ZYX.shape == phantom.labels_ZYX.shape == (17, 31, 45)
    assert phantom.spacing_mm_ZYX == (5.0, 3.0, 4.0)
    assert phantom.hu_ZYX.dtype == np.int16
    assert phantom.labels_ZYX.dtype == np.uint8


@pytest.mark.long
def test_the_spacing_is_chosen_to_show_the_whole_abdomen_in_a_given_shape() -> None:
    phantom = abdomen_phantom(5, shape_ZYX=(32, 48, 64))
    extent_mm = np.multiply(phantom.hu_ZYX.shape, phantom.spacing_mm_ZYX)
    assert np.all(extent_mm >= (219, 259, 339))
    assert np.all(extent_mm <= (301, 301, 401))


def test_the_affine_points_left_posterior_superior() -> None:
    phantom = abdomen_phantom(0, spacing_mm_ZYX=(40.0, 30.0, 20.0))
    step_z, step_y, step_x = phantom.spacing_mm_ZYX
    np.testing.assert_allclose(phantom.affine[:3, :3], np.diag([-step_x, -step_y, step_z]))
    np.testing.assert_array_equal(phantom.affine[3], (0, 0, 0, 1))


@pytest.mark.quick(1)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 40, 40), (20, 2, 60)])
def test_a_tiny_shape_is_drawn_too(shape: tuple[int, int, int]) -> None:
    assert abdomen_phantom(0, spacing_mm_ZYX=(3.0, 2.0, 2.0), shape_ZYX=shape).hu_ZYX.shape == shape


def test_a_meaningless_request_is_refused() -> None:
    with pytest.raises(ValueError, match="spacing > 0"):
        abdomen_phantom(0, spacing_mm_ZYX=(0.0, 1.0, 1.0))
