from __future__ import annotations

import numpy as np
import pytest

from flarekit.synthesis import add_pet_lesions

SPACING = (4.0, 4.0, 4.0)


def body():
    """Return a PET of a cylinder with a hot organ in it, and an empty map of lesions."""
    suv = np.full((50, 60, 60), 0.02, np.float32)
    y, x = np.mgrid[:60, :60]
    suv[:, (y - 30) ** 2 + (x - 30) ** 2 < 25**2] = 0.8
    suv[20:32, 24:36, 24:36] = 9.0
    return suv, np.zeros(suv.shape, np.uint8)


def added(seed, count=5):
    before, lesions = body()
    suv = before.copy()
    add_pet_lesions(suv, lesions, SPACING, count, np.random.default_rng(seed))
    return before, suv, lesions > 0


@pytest.mark.parametrize("seed", range(6))
def test_lesions_are_bright_and_lie_in_the_body_but_not_on_other_uptake(seed):
    before, suv, lesion = added(seed)
    assert lesion.any()
    assert not (lesion & (before > 5)).any()
    assert not (lesion & (before < 0.1)).any()
    assert np.median(suv[lesion]) > 1.6
    assert (suv >= 0).all()


def test_nothing_else_of_the_body_is_changed():
    from scipy.ndimage import distance_transform_edt

    before, suv, lesion = added(1)
    far = distance_transform_edt(~lesion, sampling=SPACING) > 30
    assert np.array_equal(suv[far], before[far])


def test_a_seed_decides_everything():
    first, second, other = added(3)[1], added(3)[1], added(4)[1]
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_pet_without_a_quiet_place_stays_as_it_is():
    suv = np.full((20, 20, 20), 6.0, np.float32)
    lesions = np.zeros(suv.shape, np.uint8)
    add_pet_lesions(suv, lesions, SPACING, 3, np.random.default_rng(0))
    assert not lesions.any()
    assert (suv == 6).all()
