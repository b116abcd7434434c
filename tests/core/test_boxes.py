from __future__ import annotations

import numpy as np
import pytest

from flarekit.core.boxes import box_of


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8])
def test_the_box_of_a_mask_is_that_of_its_voxels(seed, dtype):
    rng = np.random.default_rng(seed)
    mask = np.zeros((7, 8, 9), dtype)
    for place in rng.integers(0, (7, 8, 9), (3, 3)):
        mask[tuple(place)] = 1
    places = np.argwhere(mask)
    box = box_of(mask)
    assert [side.start for side in box] == places.min(axis=0).tolist()
    assert [side.stop for side in box] == (places.max(axis=0) + 1).tolist()


def test_an_empty_mask_has_no_box():
    assert box_of(np.zeros((3, 4, 5), np.bool_)) is None
