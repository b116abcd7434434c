from __future__ import annotations

import json
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from flarekit.core.channels import Rescale
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.spec import read_spec
from flarekit.segmentation.fingerprint import predictor_sha256
from flarekit.training.expected import expected_of, training_ids, write_expected
from tests.command import run
from tests.training.conftest import RECIPE


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "Dataset001_Toy"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    labels = {"background": 0, "lesion": 1, "organ": 2, "other": 3}
    facts = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(facts))
    for index in range(8):
        label_map = np.zeros((20, 20, 20), np.uint8)
        label_map[4 : 12 + index % 3, 4:14, 4:14] = 2
        if index < 2:
            label_map[15, 15, 15] = 1
        scan = np.where(label_map == 2, 50 + index, -1000).astype(np.int16)
        for part, voxels in (("imagesTr", scan), ("labelsTr", label_map)):
            name = f"c{index}_0000.nii.gz" if part == "imagesTr" else f"c{index}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([5, 5, 5, 1])), folder / part / name)
    return folder


@pytest.mark.long
def test_labels_are_measured_by_their_names_and_few_cases_tell_nothing(toy, dataset):
    found = expected_of(toy, {dataset: [f"c{index}" for index in range(8)]})
    assert list(found) == ["organ"]
    organ = found["organ"]
    low, high = organ.volume_ml
    assert low < 100 < 125 < high < 400
    assert organ.intensity[0] < 50 < 57 < organ.intensity[1]
    assert (organ.cases, organ.missing, organ.cut, organ.second_part) == (8, 0.0, 0.0, 0.0)


@pytest.mark.long
def test_intensities_without_a_unit_are_not_expected_of_other_scans(toy, dataset):
    channel = toy.spec.channels[0].model_copy(update={"intensity": Rescale(kind="rescale")})
    spec = toy.spec.model_copy(update={"channels": (channel,)})
    found = expected_of(replace(toy, spec=spec), {dataset: [f"c{index}" for index in range(8)]})
    assert found["organ"].intensity is None
    assert found["organ"].volume_ml


def test_what_comes_near_the_edge_is_cut_but_edges_of_crops_tell_nothing(toy, dataset):
    ids = [f"c{index}" for index in range(8)]
    for index, case_id in enumerate(ids):
        label_map = np.zeros((20, 20, 20), np.uint8)
        label_map[2 + index % 2 : 14, 4:14, 4:14] = 2  # 10 or 15 mm from the edge
        path = dataset / "labelsTr" / f"{case_id}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(label_map, np.diag([5, 5, 5, 1])), path)
    assert expected_of(toy, {dataset: ids})["organ"].cut == 0.5
    assert expected_of(toy, {dataset: ids}, crops=True)["organ"].cut is None


def test_what_any_of_several_data_sets_expects_is_expected(toy, dataset, tmp_path):
    ids = [f"c{index}" for index in range(8)]
    other = tmp_path / "other"
    shutil.copytree(dataset, other)
    (other / "dataset.json").unlink()
    value = toy.spec.labels["organ"]
    for index, case_id in enumerate(ids):
        label_map = np.zeros((20, 20, 20), np.uint8)
        label_map[8 : 9 + index % 2, 8:10, 8:10] = value
        scan = np.where(label_map == value, -600 - index, -1000).astype(np.int16)
        for path, voxels in (
            (other / "labelsTr" / f"{case_id}.nii.gz", label_map),
            (other / "imagesTr" / f"{case_id}_0000.nii.gz", scan),
        ):
            nibabel.save(nibabel.Nifti1Image(voxels, np.diag([5, 5, 5, 1])), path)
    alone = expected_of(toy, {dataset: ids})["organ"], expected_of(toy, {other: ids})["organ"]
    both = expected_of(toy, {dataset: ids, other: ids})["organ"]
    large, small = alone
    assert (both.cases, both.missing) == (16, 0.0)
    assert both.volume_ml == (small.volume_ml[0], large.volume_ml[1])
    assert both.intensity == (small.intensity[0], large.intensity[1])
    few = expected_of(toy, {dataset: ids, other: ids[:3]})["organ"]
    assert few == large


def test_cases_that_lack_a_label_tell_nothing_of_it(toy, dataset):
    labels = ", ".join(f"{name} = {value}" for name, value in toy.spec.labels.items())
    names = [name for name in toy.spec.labels if name != "organ"]
    text = RECIPE.replace("liver = 1\nspleen = 3", labels.replace(", ", "\n"))
    text = text.replace("num_classes = 3", f"num_classes = {1 + len(toy.spec.labels)}")
    table = f'[training.labelled]\n"c[01]" = {json.dumps(names)}\n\n[provenance]'
    (toy.folder / "recipe.toml").write_text(text.replace("[provenance]", table))
    for name in ("c0", "c1"):  # where nobody looked for it
        path = dataset / "labelsTr" / f"{name}.nii.gz"
        empty = nibabel.Nifti1Image(np.zeros((20, 20, 20), np.uint8), nibabel.load(path).affine)
        nibabel.save(empty, path)
    organ = expected_of(toy, {dataset: training_ids(toy, dataset)})["organ"]
    assert (organ.cases, organ.missing) == (6, 0.0)
    (toy.folder / "recipe.toml").write_text(text)
    organ = expected_of(toy, {dataset: training_ids(toy, dataset)})["organ"]
    assert (organ.cases, organ.missing) == (6, 0.25)


def test_a_label_map_of_another_size_or_of_no_labels_is_named(toy, dataset):
    for shape, message in (((20, 20, 18), "another grid"), ((20, 20, 20), r"holds 0\.5")):
        odd = nibabel.Nifti1Image(np.full(shape, 0.5, np.float32), np.diag([5, 5, 5, 1]))
        nibabel.save(odd, dataset / "labelsTr" / "c3.nii.gz")
        with pytest.raises(InputError, match=rf"c3\.nii\.gz: .*{message}"):
            expected_of(toy, {dataset: ["c3"]})


def test_they_become_facts_that_masks_do_not_depend_on(toy, dataset):
    before = predictor_sha256(toy.spec)
    assert run("train", "expected", toy.folder, dataset).returncode == 0
    again = read_spec(toy.folder)
    assert again.spec.expected == expected_of(toy, {dataset: training_ids(toy, dataset)})
    assert predictor_sha256(again.spec) == before


def test_a_data_set_without_such_labels_or_cases_is_refused(toy, dataset):
    with pytest.raises(InputError, match="no label of toy"):
        write_expected(toy, {})
    for path in (dataset / "labelsTr").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no training cases"):
        training_ids(toy, dataset)


def test_facts_about_labels_that_are_not_there_are_refused(toy):
    path = toy.folder / "predictor.toml"
    table = "\n[expected.tail]\ncases = 4\nmissing = 0.0\nvolume_ml = [1.0, 2.0]\n"
    path.write_text(
        path.read_text() + table + "intensity = [0.0, 1.0]\ncut = 0.0\nsecond_part = 0.0\n"
    )
    with pytest.raises(PredictorError, match="unknown labels"):
        read_spec(toy.folder)
