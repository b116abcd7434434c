"""Every predictor's masks of small inputs are those that were stored."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

import flarekit
from flarekit.segmentation.predictors import find_predictor
from tests.segmentation.stored_masks import CASES, WEIGHTS, mask_of, scans, weights_of

QUICK = ("att_umamba_petct", "fast")


@pytest.mark.long
@pytest.mark.parametrize(
    ("predictor", "mode"),
    [pytest.param(*case, marks=() if case == QUICK else (pytest.mark.slow,)) for case in CASES],
)
def test_masks_in_fp32_are_the_stored_ones(predictor, mode, tmp_path):
    made_with = json.loads(WEIGHTS.read_text())[predictor]
    if made_with != weights_of(find_predictor(predictor)):
        pytest.skip("other weights: run python -m tests.segmentation.stored_masks to store theirs")
    with flarekit.load(
        predictor, mode=mode, engine="torch", device="cpu", precision="fp32"
    ) as segmenter:
        labels = segmenter.segment(scans(predictor, tmp_path)).labels
    stored = np.asarray(nibabel.load(mask_of(predictor, mode)).dataobj)
    assert stored.any()
    assert labels.shape == stored.shape
    assert (labels == stored).mean() >= 0.9999
