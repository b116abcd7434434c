"""The default predictor against truth, on phantoms and real scans that it never saw."""

from __future__ import annotations

import time

import nibabel
import numpy as np
import pytest

from flarekit.core.nifti import read_nifti
from flarekit.evaluation.confusion import dice_per_label
from flarekit.phantom import abdomen_phantom, save_phantom
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.predictors import find_predictor
from flarekit.training.recipe import read_recipe
from tests.processor import needs_bf16

LARGE = ("liver", "right_kidney", "left_kidney", "spleen")


@pytest.fixture
def predictor():
    return find_predictor("abdomen_ct")


def read_labels(path):
    return read_nifti(path).voxels_ZYX.astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_large_organs_of_an_unseen_phantom_are_found(predictor, tmp_path, seed):
    assert seed not in range(*read_recipe(predictor.folder / "recipe.toml").training.phantom_seeds)
    phantom = abdomen_phantom(seed, spacing_mm_ZYX=(4.0, 2.2, 2.2), shape_ZYX=(36, 120, 160))
    (tmp_path / "in").mkdir()
    image = nibabel.Nifti1Image(phantom.hu_ZYX.T, phantom.affine)
    nibabel.save(image, tmp_path / "in" / "p_0000.nii.gz")
    segment_folder(
        predictor, tmp_path / "in", tmp_path / "out", Options(device="cpu", time_budget_s=0)
    )
    mask_ZYX = read_labels(tmp_path / "out" / "p.nii.gz")
    scores = dice_per_label(mask_ZYX, phantom.labels_ZYX, predictor.spec.labels)
    for name in LARGE:
        assert scores[name] >= 0.85, scores


@pytest.mark.parametrize(
    ("device", "half"),
    [
        pytest.param("cpu", "bf16", marks=[pytest.mark.slow, needs_bf16]),
        pytest.param("cuda", "fp16", marks=pytest.mark.gpu),
    ],
)
def test_half_precision_keeps_nearly_every_voxel(predictor, tmp_path, device, half):
    (tmp_path / "in").mkdir()
    save_phantom(3, scan=tmp_path / "in" / "p_0000.nii.gz", labels=tmp_path / "truth.nii.gz")
    masks = []
    for precision in ("fp32", half):
        options = Options(device=device, precision=precision, time_budget_s=0)
        segment_folder(predictor, tmp_path / "in", tmp_path / precision, options)
        masks.append(read_labels(tmp_path / precision / "p.nii.gz"))
    assert (masks[0] == masks[1]).mean() >= 0.995


@pytest.mark.data
@pytest.mark.usefixtures("openvino_by_default")
def test_organs_of_held_out_scans_are_found(predictor, shared, tmp_path):
    dataset = shared / "data" / "Dataset001_Abdomen"
    facts = read_recipe(predictor.folder / "recipe.toml").training
    (tmp_path / "in").mkdir()
    for case_id in facts.held_out:
        name = f"{case_id}_0000.nii.gz"
        (tmp_path / "in" / name).symlink_to(dataset / "imagesTr" / name)
    segment_folder(
        predictor, tmp_path / "in", tmp_path / "out", Options(device="cpu", time_budget_s=0)
    )
    labels = {name: v for name, v in predictor.spec.labels.items() if name not in facts.unlabelled}
    scores = [
        dice_per_label(
            read_labels(tmp_path / "out" / f"{case_id}.nii.gz"),
            read_labels(dataset / "labelsTr" / f"{case_id}.nii.gz"),
            labels,
        )
        for case_id in facts.held_out
    ]
    mean = {name: float(np.mean([score[name] for score in scores])) for name in labels}
    assert np.mean([mean[name] for name in (*LARGE, "aorta")]) >= 0.92, mean
    assert np.mean(list(mean.values())) >= 0.77, mean


@pytest.mark.data
@pytest.mark.usefixtures("openvino_by_default")
def test_a_512_scan_takes_less_than_a_minute_and_its_liver_lies_on_the_right(
    predictor, shared, tmp_path
):
    (tmp_path / "in").mkdir()
    scan = shared / "data" / "cases" / "CRLM1004_0000.nii.gz"
    (tmp_path / "in" / scan.name).symlink_to(scan)
    began = time.perf_counter()
    segment_folder(
        predictor, tmp_path / "in", tmp_path / "out", Options(device="cpu", time_budget_s=0)
    )
    assert time.perf_counter() - began < 60
    mask = nibabel.load(tmp_path / "out" / "CRLM1004.nii.gz")
    label_map = np.asarray(mask.dataobj)
    ml = {
        name: (label_map == value).sum() * np.abs(np.linalg.det(mask.affine[:3, :3])) / 1000
        for name, value in predictor.spec.labels.items()
    }
    assert 600 < ml["liver"] < 4000, ml
    centre = {
        name: (mask.affine @ [*np.argwhere(label_map == value).mean(axis=0), 1])[0]
        for name, value in predictor.spec.labels.items()
        if ml[name] > 0
    }
    assert centre["liver"] > centre["aorta"] > centre["spleen"]  # RAS: x grows to the right
