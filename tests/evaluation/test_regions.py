"""Labels that are several values together, and the area under the ROC curve of both."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest

from flarekit.cli.console import Console
from flarekit.cli.evaluate import run_evaluate
from flarekit.cli.requests import Scoring
from flarekit.core.errors import UsageError
from flarekit.core.probabilities import probabilities_path, write_probabilities

BRAIN = "WT=1+2+3,TC=1+3,ET=3"


def save(path, mask_XYZ):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask_XYZ, np.diag([-1.0, -1.0, 2.0, 1.0])), path)


def tumour():
    mask = np.zeros((24, 24, 12), np.uint8)
    mask[4:20, 4:20, 2:10] = 2
    mask[8:16, 8:16, 4:8] = 3
    mask[10:14, 10:14, 5:7] = 1
    return mask


@pytest.fixture
def folders(tmp_path):
    truth = tumour()
    predicted = truth.copy()
    predicted[truth == 3] = 1  # right as core and as the whole, wrong as enhancing
    save(tmp_path / "t" / "a.nii.gz", truth)
    save(tmp_path / "p" / "a.nii.gz", predicted)
    return tmp_path


def scored(folder, **options):
    request = Scoring(
        predicted=folder / "p", truth=folder / "t", workers=1, csv=folder / "s.csv",
        json=folder / "s.json", **options,
    )  # fmt: skip
    code = run_evaluate(request, Console())
    return code, json.loads((folder / "s.json").read_text())


def test_regions_of_brain_tumours_are_made_of_exclusive_labels(folders, capsys):
    code, record = scored(folders, labels=BRAIN)
    assert code == 0
    assert "papers" in capsys.readouterr().err
    dice = {name: means["dice"]["value"] for name, means in record["means"].items()}
    assert dice == {"WT": 1.0, "TC": 1.0, "ET": 0.0}
    assert record["regions"] == {"WT": [1, 2, 3], "TC": [1, 3]}
    assert record["labels"] == {"ET": 3}
    assert record["values_of_no_label"] == {}
    assert record["lacking"]["ET"]["cases"] == {"a": "empty"}
    assert set(record["lacking"]) == {"ET"}
    header = (folders / "s.csv").read_text().splitlines()[0]
    assert all(name in header for name in ("WT", "TC", "ET"))


def test_a_region_may_be_left_out_and_its_values_are_not_strange_then(folders):
    _, record = scored(folders, labels="WT=1+2+3,ET=3", ignore="WT")
    assert set(record["means"]) == {"ET"}
    assert record["values_of_no_label"] == {}


@pytest.mark.parametrize(
    "labels", ["WT=1+", "WT=1+1", "WT=0+1", "WT=1+256", "A=1+2,B=2+1", "WT=a+b", "=1+2"]
)
def test_what_is_no_region_is_refused(folders, labels):
    with pytest.raises(UsageError, match="--labels"):
        scored(folders, labels=labels)


def test_organisers_that_score_single_values_say_so(folders):
    with pytest.raises(UsageError, match="does not score the region WT"):
        scored(folders, labels=BRAIN, convention="flare")
    with pytest.raises(UsageError, match="does not score probabilities"):
        scored(folders, labels="ET=3", convention="autopet", probabilities=folders)


def test_balanced_accuracy_is_of_the_mask_and_auc_of_the_probabilities(folders):
    truth = tumour().transpose()
    probabilities = np.zeros((4, *truth.shape), np.float32)
    for value in range(4):
        probabilities[value] = np.where(truth == value, 0.7, 0.1)
    write_probabilities(probabilities_path(folders / "q", "a"), probabilities, [0, 1, 2, 3])
    _, without = scored(folders, labels=BRAIN)
    assert "auc" not in without["means"]["ET"]
    assert without["means"]["ET"]["balanced_accuracy"]["value"] == pytest.approx(0.5)
    _, record = scored(folders, labels=BRAIN, probabilities=folders / "q")
    assert {name: means["auc"]["value"] for name, means in record["means"].items()} == {
        "WT": 1.0, "TC": 1.0, "ET": 1.0,
    }  # fmt: skip


def test_probabilities_that_are_missing_fail_their_case_and_name_the_file(folders, capsys):
    code, record = scored(folders, labels=BRAIN, probabilities=folders / "q")
    assert code == 1
    assert record["cases"][0]["state"] == "failed"
    assert "a.npz" in capsys.readouterr().err
