from __future__ import annotations

import json
import shutil
import sys

import accuracy
import card
import nibabel
import numpy as np
import pytest
from accuracy_pictures import small_picture
from accuracy_table import read_results, table_text
from PIL import Image

from flarekit.core.errors import InputError, UsageError
from flarekit.core.spec import read_spec

pytestmark = pytest.mark.long


def measure(monkeypatch, predictor, output, *options):
    line = ["accuracy.py", "tiny", "--predictor-folder", str(predictor.folder)]
    line += ["--output", str(output), "--device", "cpu", *map(str, options)]
    monkeypatch.setattr(sys, "argv", line)
    return json.loads(accuracy.measure(accuracy.parse_arguments()).read_text())


@pytest.fixture
def output(tmp_path):
    (tmp_path / "results").mkdir()
    return tmp_path / "results"


@pytest.fixture
def flare_results(monkeypatch, make_predictor, make_dataset, made_once, output, tmp_path):
    """Measure a tiny predictor on scans, and call that phantoms too; return its folder."""

    def make(folder):
        predictor = make_predictor()
        measure(monkeypatch, predictor, output, "--split", "scans", "--dataset", make_dataset())
        scans = (output / "accuracy_tiny_scans.json").read_text()
        phantoms = {key: each for key, each in json.loads(scans).items() if key != "worst"}
        (output / "accuracy_tiny_phantoms.json").write_text(
            json.dumps({**phantoms, "split": "phantoms"})
        )
        shutil.copytree(tmp_path, folder)

    shutil.copytree(made_once("flare_results", make), tmp_path, dirs_exist_ok=True)
    return read_spec(tmp_path / "weights" / "tiny")


def test_held_out_scans_are_measured_with_their_command_and_worst_case(flare_results, output):
    result = json.loads((output / "accuracy_tiny_scans.json").read_text())
    assert list(result["cases"]) == ["case_b", "case_c"]
    assert result["labels"].keys() == {"liver", "spleen"}
    assert result["sha256"] == flare_results.spec.weights.sha256
    assert result["command"] == (
        "python profiling/accuracy.py tiny --split scans --dataset DATASET --device cpu"
    )
    assert result["worst"]["case"] in result["cases"]
    assert (output / result["worst"]["picture"]).stat().st_size < 300_000


@pytest.mark.slow
def test_labels_that_scans_lack_are_scored_on_phantoms_only(
    monkeypatch, make_predictor, make_dataset, output
):
    dataset = make_dataset()

    def save_small(_seed, *, scan, labels):
        scan.symlink_to(dataset / "imagesTr" / "case_a_0000.nii.gz")
        labels.symlink_to(dataset / "labelsTr" / "case_a.nii.gz")

    monkeypatch.setattr("accuracy_cases.save_phantom", save_small)
    training = '[training]\nheld_out = ["case_b"]\nunlabelled = ["spleen"]\ntile_ZYX = [16, 16, 16]'
    predictor = make_predictor(training=training)
    scans = measure(monkeypatch, predictor, output, "--split", "scans", "--dataset", dataset)
    phantoms = measure(monkeypatch, predictor, output, "--split", "phantoms", "--phantoms", 1)
    assert scans["labels"].keys() == {"liver"}
    assert phantoms["labels"].keys() == {"liver", "spleen"}
    assert phantoms["command"].endswith("--split phantoms --phantoms 1 --device cpu")


@pytest.mark.slow
def test_whole_bodies_go_through_autopets_layout(monkeypatch, make_predictor, output, tmp_path):
    from flarekit.synthesis import ORGANS

    material = tmp_path / "maps"
    material.mkdir()
    organs = np.zeros((60, 40, 50), np.uint8)
    heights = {"bladder": (2, 8), "liver": (20, 30), "heart": (31, 38), "lungs": (32, 46)}
    for name, (low, high) in {**heights, "brain": (52, 59)}.items():
        side = 12 if name == "lungs" else 22
        organs[low:high, 14:24, side : side + 10] = ORGANS[name]
    for patient in range(5):
        image = nibabel.Nifti1Image(organs.T, np.diag([-8.0, -8.0, 8.0, 1.0]))
        nibabel.save(image, material / f"fdg_{patient}_x.nii.gz")
    training = "[training]\nheld_out = []\ntile_ZYX = [16, 16, 16]\n"
    training += '[training.synthesis]\nkind = "wholebody_petct"\nseeds = [0, 3]\nshare = 0.5\n'
    predictor = make_predictor("autopet", {"lesion": 1}, 2, training)
    options = ("--split", "wholebody", "--material", material)
    result = measure(monkeypatch, predictor, output, *options, "--bodies", 2)
    assert list(result["cases"]) == ["body_3_fdg_3", "body_4_fdg_4"]
    assert result["false_positives_ml"]["largest"].keys() == {"brain", "heart", "bladder"}
    assert (output / "pictures" / "tiny_wholebody_worst.webp").is_file()


def test_results_of_an_older_script_are_named(output):
    (output / "accuracy_old_scans.json").write_text('{"predictor": "old", "cases": {}}')
    with pytest.raises(InputError, match=r"accuracy_old_scans\.json: .*older"):
        read_results(output)


def test_a_split_that_the_convention_lacks_is_refused(monkeypatch, make_predictor, output):
    with pytest.raises(UsageError, match="has no split 'wholebody'"):
        measure(monkeypatch, make_predictor(), output, "--split", "wholebody")


def test_a_folder_with_another_predictor_is_refused(monkeypatch, make_predictor):
    predictor = make_predictor()
    line = ["accuracy.py", "other", "--split", "scans", "--predictor-folder", str(predictor.folder)]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(UsageError, match="holds tiny"):
        accuracy.measure(accuracy.parse_arguments())


def test_a_case_that_fails_stops_the_measurement(monkeypatch, make_predictor, make_dataset, output):
    dataset = make_dataset()
    (dataset / "imagesTr" / "case_c_0000.nii.gz").write_bytes(b"no scan")
    with pytest.raises(InputError, match="case_c"):
        measure(monkeypatch, make_predictor(), output, "--split", "scans", "--dataset", dataset)
    assert not (output / "accuracy_tiny_scans.json").exists()


@pytest.mark.usefixtures("flare_results")
def test_the_table_has_every_label_command_and_picture(output):
    text = table_text(read_results(output))
    assert "| tiny | 2 held-out scans |" in text
    assert "| tiny | 2 unseen phantoms |" in text
    assert "\n| liver | " in text
    assert "\n| spleen | " in text
    assert "python profiling/accuracy.py tiny --split scans --dataset DATASET" in text
    assert "(pictures/tiny_worst.webp)" in text


def write_card(monkeypatch, predictor, output):
    line = ["card.py", "tiny", "--predictor-folder", str(predictor.folder), "--results", output]
    monkeypatch.setattr(sys, "argv", list(map(str, line)))
    card.main()


def test_a_card_gets_what_was_measured_and_keeps_what_was_written(
    monkeypatch, flare_results, output
):
    flare_results.card.write_text(f"# tiny\n\n{card.BEGIN}\nold\n{card.END}\n\nNot a device.\n")
    write_card(monkeypatch, flare_results, output)
    text = flare_results.card.read_text()
    assert text.startswith(f"# tiny\n\n{card.BEGIN}\n- File: `model.safetensors`, ")
    assert text.endswith(f"{card.END}\n\nNot a device.\n")
    assert flare_results.spec.weights.sha256 in text
    assert "1,234 steps in 5.02 minutes" in text
    assert "\nold\n" not in text
    write_card(monkeypatch, flare_results, output)
    assert flare_results.card.read_text() == text


def test_a_card_is_not_written_from_other_weights(monkeypatch, flare_results, output):
    path = output / "accuracy_tiny_scans.json"
    path.write_text(path.read_text().replace(flare_results.spec.weights.sha256, "0" * 64))
    with pytest.raises(SystemExit, match="scans: measured on other weights"):
        write_card(monkeypatch, flare_results, output)


def test_a_card_is_not_written_without_every_split(monkeypatch, flare_results, output):
    (output / "accuracy_tiny_phantoms.json").unlink()
    with pytest.raises(SystemExit, match="not measured on phantoms"):
        write_card(monkeypatch, flare_results, output)


def test_a_card_is_not_written_where_its_command_takes_another_time(
    monkeypatch, flare_results, output
):
    path = flare_results.folder / "predictor.toml"
    path.write_text(path.read_text().replace("--minutes 5", "--minutes 80"))
    with pytest.raises(SystemExit, match=r"took 5\.02 minutes"):
        write_card(monkeypatch, flare_results, output)


def test_a_picture_of_many_colours_becomes_a_small_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (500, 600), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size > 250_000
    assert len(small_picture(tmp_path / "noise.png")) <= 14_000
