from __future__ import annotations

import numpy as np
import pytest

from flarekit.phantom import abdomen_phantom
from tests.training.mr import CONTRASTS, abdomen_mr, brain_mr

SMALL = {"shape_ZYX": (32, 40, 40), "spacing_mm": (4.8, 4.8, 4.8)}


def test_a_head_has_four_contrasts_and_a_tumour_of_nested_parts():
    head = brain_mr(3, **SMALL)
    assert head.intensities_CZYX.shape == (len(CONTRASTS), 32, 40, 40)
    assert set(np.unique(head.labels_ZYX)) == {0, 1, 2, 3}
    t1, t1ce, _, flair = (head.intensities_CZYX[channel] for channel in range(4))
    enhancing, edema = head.labels_ZYX == 3, head.labels_ZYX == 2
    assert t1ce[enhancing].mean() > 1.5 * t1[enhancing].mean()
    assert flair[edema].mean() > 1.5 * t1[edema].mean()
    assert not head.intensities_CZYX[:, 0, 0, 0].any()


def test_the_same_seed_gives_the_same_head_and_another_another():
    one, same, other = (brain_mr(seed, **SMALL) for seed in (5, 5, 6))
    assert np.array_equal(one.intensities_CZYX, same.intensities_CZYX)
    assert not np.array_equal(one.labels_ZYX, other.labels_ZYX)


@pytest.mark.long
def test_fat_is_bright_in_an_abdominal_mr_and_vessels_and_air_are_dark():
    phantom = abdomen_phantom(1, shape_ZYX=(24, 48, 48))
    scan = abdomen_mr(phantom, 1)
    fat = (phantom.hu_ZYX > -120) & (phantom.hu_ZYX < -60) & (phantom.labels_ZYX == 0)
    liver, aorta = phantom.labels_ZYX == 1, phantom.labels_ZYX == 5
    assert scan[fat].mean() > scan[liver].mean() > scan[aorta].mean()
    assert not scan[phantom.hu_ZYX < -500].any()
