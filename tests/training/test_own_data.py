"""From a labelled folder of one's own to a predictor: what docs/training.md types."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import nibabel
import numpy as np
import pytest

from flarekit.core.dataset_json import read_dataset
from flarekit.core.errors import InputError, PredictorError
from flarekit.core.spec import read_spec
from flarekit.training.compact import RunOptions, train
from flarekit.training.export import export_predictor
from flarekit.training.first_recipe import first_recipe
from flarekit.training.fitting import check_fit
from flarekit.training.recipe import read_recipe
from flarekit.training.samples import Pool
from flarekit.training.sources import training_pools
from tests.command import run
from tests.training.conftest import make_case
from tests.training.test_cases import write_dataset

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
LABELS = {"background": 0, "liver": 1, "spleen": 3}
CPU = {"device": "cpu", "precision": "fp32"}


def dataset_of(folder, ids=("a", "b", "c"), *, labels=LABELS, values=(1, 3), **facts):
    """Write cases with a label of each value, and a dataset.json."""
    shape = (20, 24, 16)
    voxels = np.zeros(shape, np.uint8)
    voxels[4:10, 4:10, 4:10] = values[0]
    voxels[12:16, 12:16, 4:10] = values[-1]
    write_dataset(folder, ids, shape=shape, labels=voxels)
    content = {"channel_names": {"0": "CT"}, "labels": labels, **facts}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def recipe_for(dataset, tmp_path, *changes, **wanted):
    text = first_recipe(dataset, device="cpu", **wanted)[0]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return read_recipe(path)


def commands_of(page):
    blocks = re.findall(r"```\n(flarekit .*?)```", page.read_text(), flags=re.DOTALL)
    return [shlex.split(line)[1:] for line in blocks[0].splitlines()]


@pytest.mark.slow
def test_the_page_s_three_commands_make_a_predictor_with_its_own_card(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = ["p1", "p2", "p3", "p4"]
    dataset_of(tmp_path / "Dataset007_Mine", ids, licence="CC0 1.0")
    places = {"DATASET": "Dataset007_Mine", "60": "0.01"}
    commands = commands_of(PAGE)
    assert [words[:2] for words in commands] == [
        ["train", "init"],
        ["train", "compact"],
        ["train", "export"],
    ]
    for words in commands:
        said = run(*(places.get(word, word) for word in words), CUDA_VISIBLE_DEVICES="")
        assert said.returncode == 0, said.stderr
    made = tmp_path / "weights" / "mine"
    spec, card = read_spec(made).spec, (made / "CARD.md").read_text()
    assert spec.labels == {"liver": 1, "spleen": 3}
    assert spec.provenance["cases"] == {"Dataset007_Mine": 3}
    assert spec.provenance["licence"] == "CC0 1.0"
    assert spec.provenance["command"].endswith("Dataset007_Mine RUN_DIR --minutes 0.01")
    assert str(tmp_path) not in (made / "predictor.toml").read_text() + card
    assert "3 labelled cases of Dataset007_Mine" in card
    assert f"{spec.provenance['steps']:,} steps in {spec.provenance['minutes']} minutes" in card
    assert f"{spec.provenance['validation_dice']:.3f}" in card
    assert "| liver |" in card
    header = (tmp_path / "run" / "curve.csv").read_text().splitlines()[0]
    assert header.endswith("validation_dice")
    scan = tmp_path / "scans"
    scan.mkdir()
    (tmp_path / "Dataset007_Mine/imagesTr/p1_0000.nii.gz").rename(scan / "p1_0000.nii.gz")
    said = run("predict", "-p", made, "-i", scan, "-o", tmp_path / "masks", "--device", "cpu")
    assert said.returncode == 0, said.stderr
    assert set(np.unique(nibabel.load(tmp_path / "masks/p1.nii.gz").dataobj)) <= {0, 1, 3}


def test_a_first_recipe_has_the_folder_s_names_values_and_grid(tmp_path):
    dataset = dataset_of(tmp_path / "Dataset003_Some_Organs", list("abcdefghij"))
    recipe = recipe_for(dataset, tmp_path)
    assert recipe.spec.name == "some_organs"
    assert recipe.spec.labels == {"liver": 1, "spleen": 3}
    assert recipe.spec.grid.spacing_mm_ZYX == (4.0, 4.0, 4.0)
    assert len(recipe.training.validation) == 2
    window = recipe.spec.channels[0].intensity
    assert 70 < window.mean < 130  # labelled voxels have 100 HU


@pytest.mark.long
def test_less_memory_makes_smaller_samples(tmp_path):
    folder = tmp_path / "d"
    write_dataset(folder, ["a"], shape=(160, 160, 160))
    (folder / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "CT"}, "labels": LABELS | {"dot": 7}})
    )
    large, small = (recipe_for(folder, tmp_path, memory_mib=mib).training for mib in (16_000, 800))
    assert np.prod(small.tile_ZYX) < np.prod(large.tile_ZYX)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"labels": {"background": 0, "liver": 1}}, "holds 3, which dataset.json does not name"),
        ({"labels": LABELS | {"all": [1, 3]}, "regions_class_order": [1, 3, 2]}, "has regions"),
        ({"labels": LABELS | {"ignore": 4}}, "ignore"),
        ({"channel_names": {"0": "CT", "1": "PET"}}, r"a_0001\.nii\.gz: is not there"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_gets_no_recipe(tmp_path, facts, message):
    dataset = dataset_of(tmp_path / "d", **facts)
    with pytest.raises(InputError, match=message):
        first_recipe(dataset, device="cpu")


def test_what_is_there_instead_of_cases_is_told(tmp_path):
    (tmp_path / "labelsTr").mkdir()
    with pytest.raises(InputError, match="holds no labelled cases to train on "):
        first_recipe(tmp_path, device="cpu")
    (tmp_path / "labelsTr" / "a.mha").touch()
    with pytest.raises(InputError, match=r"labelsTr has a\.mha, and should have CASE\.nii\.gz"):
        first_recipe(tmp_path, device="cpu")
    with pytest.raises(InputError, match="it has no folder labelsTr"):
        first_recipe(tmp_path / "elsewhere", device="cpu")
    dataset = dataset_of(tmp_path / "d", ["a", "b"])
    (dataset / "labelsTr" / "b.nii.gz").unlink()
    _, notes = first_recipe(dataset, device="cpu")
    assert notes == ["scans without labels are left out: 1 (b)"]
    recipe = recipe_for(dataset, tmp_path, ("held_out = []", 'held_out = ["a"]'))
    with pytest.raises(InputError, match="all of its cases are held out"):
        training_pools(recipe, dataset)


def test_channels_of_other_names_places_or_number_are_told(tmp_path, caplog):
    dataset = dataset_of(tmp_path / "d")
    for path in list((dataset / "imagesTr").iterdir()):
        path.with_name(path.name.replace("_0000", "_0001")).write_bytes(path.read_bytes())
    told = "further channels are left out: a_0001.nii.gz and 2 more"
    assert told in first_recipe(dataset, device="cpu")[1]
    dataset_of(dataset, channel_names={"0": "CT", "1": "PET"})
    recipe = recipe_for(dataset, tmp_path)
    dataset_of(dataset, channel_names={"0": "PET", "1": "CT"})
    with pytest.raises(InputError, match="0 is PET, and CT in the recipe, 1 is CT, and PET in"):
        check_fit(recipe, dataset)
    dataset_of(dataset, channel_names={"0": "CT", "1": "uptake", "2": "T1"})
    check_fit(recipe, dataset)
    assert "1 is uptake, and PET in the recipe" in caplog.text


def test_a_folder_of_other_files_is_told_what_it_should_hold(tmp_path):
    dataset = dataset_of(tmp_path / "d")
    recipe = recipe_for(dataset, tmp_path)
    for path in list((dataset / "labelsTr").iterdir()):
        path.rename(path.with_suffix("").with_suffix(".mha"))
    with pytest.raises(InputError, match=r"labelsTr has a\.mha, b\.mha, c\.mha, and should have"):
        check_fit(recipe, dataset)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"labels": {"liver": 1.5}}, "labels.liver: Input should be a valid integer, [^;]*$"),
        ({"labels": {"liver": None}}, "labels.liver: Input should be a valid integer, [^;]*$"),
        ({"labels": {"liver": True}}, "labels.liver: is true or false, [^;]*$"),
        ({"labels": {"liver": []}}, "labels.liver: Input should be a valid integer, [^;]*$"),
        ({"labels": {"liver": [1, "x"]}}, "labels.liver.1: Input should be a valid integer[^;]*$"),
        ({"labels": {"li\nver": 1}}, r"dataset\.json: labels: 'li\\nver' is longer than 120"),
        ({"labels": {"x" * 5000: 1}}, "labels: 'x{40}' is longer than 120 characters"),
        ({"channel_names": {"0": "\x1b[31mCT"}}, "channel_names.0: has characters that cannot be"),
        ({"channel_names": {"0": ""}}, "channel_names.0: String should have at least 1 character"),
    ],
)
def test_what_dataset_json_cannot_say_is_one_sentence_with_file_and_field(tmp_path, facts, words):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"liver": 1}, **facts}))
    with pytest.raises(InputError) as refused:
        read_dataset(path, gaps=True)
    assert refused.value.message.startswith(f"{path}: ")
    assert re.search(words, refused.value.message)


def test_without_names_labels_are_called_by_their_values(tmp_path):
    dataset = dataset_of(tmp_path / "d")
    (dataset / "dataset.json").unlink()
    text, notes = first_recipe(dataset, device="cpu")
    assert "label_1 = 1\nlabel_3 = 3" in text
    assert "no dataset.json" in notes[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("liver = 1", "liver = 2"), "liver is 1, and 2 in the recipe"),
        (("liver = 1", "kidney = 1"), "1 is liver, and kidney in the recipe"),
        (("spleen = 3", "spleen = 3\npancreas = 4"), "names no label pancreas"),
        (("held_out = []", 'held_out = ["patient_9"]'), "held_out: no case patient_9"),
        (("validation = []", 'validation = ["z*"]'), r"validation: no case z\*"),
        (
            ("[provenance]", '[training.labelled]\n"patient*" = ["liver"]\n\n[provenance]'),
            r"labelled: no case patient\*",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_the_data_is_refused(tmp_path, change, message):
    dataset = dataset_of(tmp_path / "d", ["a", "b"])
    changes = [change]
    if "pancreas" in change[1]:
        changes.append(("num_classes = 3", "num_classes = 4"))
    recipe = recipe_for(dataset, tmp_path, *changes)
    with pytest.raises(InputError, match=message):
        check_fit(recipe, dataset)


def test_a_label_that_no_case_has_and_a_value_that_is_no_label_are_refused(tmp_path):
    dataset = dataset_of(tmp_path / "d", ["a", "b"])
    recipe = recipe_for(dataset, tmp_path)
    dataset_of(dataset, ["a", "b"], values=(1, 1))
    with pytest.raises(InputError, match=r"no case that is trained on has spleen \(3\)"):
        check_fit(recipe, dataset)
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    halves = nibabel.Nifti1Image(np.full((20, 24, 16), 0.5, np.float32), affine)
    nibabel.save(halves, dataset / "labelsTr" / "b.nii.gz")
    with pytest.raises(InputError, match=r"b\.nii\.gz: holds 0\.5"):
        check_fit(recipe, dataset)


def test_what_does_not_fit_is_told_on_the_command_line_before_any_work(tmp_path):
    dataset = dataset_of(tmp_path / "d")
    recipe_for(dataset, tmp_path, ("held_out = []", 'held_out = ["nobody"]'))
    words = ["train", "compact", tmp_path / "recipe.toml", dataset, tmp_path / "run"]
    said = run(*words, "--minutes", "0.01")
    assert said.returncode == 3
    assert "no case nobody" in said.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.long
@pytest.mark.parametrize(
    ("pattern", "instead", "start", "message"),
    [
        ('name = "nnunet"', 'name = "nets:Small"', None, "add --trust"),
        (r"tile_ZYX = \[\d+(?=.*\nbatch)", "tile_ZYX = [15", None, "does not take a sample"),
        ("", "", "d", r"predictor\.toml"),
    ],
)
def test_what_would_stop_a_training_is_told_before_a_case_is_prepared(
    tmp_path, pattern, instead, start, message
):
    dataset, run_dir, path = dataset_of(tmp_path / "d"), tmp_path / "run", tmp_path / "recipe.toml"
    recipe_for(dataset, tmp_path)
    path.write_text(re.sub(pattern, instead, path.read_text()))
    (tmp_path / "nets.py").write_text(NETS)
    words = ["train", "compact", path, dataset, run_dir, "--minutes", "0.01"]
    said = run(*words, *(["--start", tmp_path / start] if start else []))
    assert said.returncode in (3, 4)
    assert re.search(message, said.stderr)
    assert not run_dir.exists()


def trained(recipe, run_dir):
    train(recipe, [Pool(cases=[make_case()], share=1.0)], run_dir, RunOptions(minutes=1e-3, **CPU))


@pytest.mark.slow
def test_a_recipe_that_changed_since_the_run_began_is_refused(recipe, make_recipe, tmp_path):
    trained(recipe, tmp_path / "run")
    with pytest.raises(InputError, match="training.learning_rate was 0.01 and is 0.1"):
        trained(make_recipe(("learning_rate = 1e-2", "learning_rate = 1e-1")), tmp_path / "run")
    other = make_recipe(("spacing_mm_ZYX = [8.0, 8.0, 8.0]", "spacing_mm_ZYX = [4.0, 8.0, 8.0]"))
    assert other.spec.name == recipe.spec.name
    with pytest.raises(InputError, match="grid.spacing_mm_ZYX"):
        export_predictor(tmp_path / "run", tmp_path / "made", tmp_path / "recipe.toml")
    trained(make_recipe(('title = "liver and spleen"', 'title = "two organs"')), tmp_path / "run")


def test_a_tile_that_the_network_cannot_halve_is_refused_before_the_first_step(
    make_recipe, tmp_path
):
    odd = make_recipe(("[16, 16, 16]\nbatch", "[15, 16, 16]\nbatch"))
    with pytest.raises(PredictorError, match="does not take a sample of 1 channel.*15 x 16 x 16"):
        trained(odd, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.long
def test_other_cases_than_the_run_began_with_are_refused(tmp_path):
    dataset = dataset_of(tmp_path / "d")
    recipe_for(dataset, tmp_path)
    words = ["train", "compact", tmp_path / "recipe.toml", dataset, tmp_path / "run"]
    words += ["--minutes", "0.001", "--device", "cpu", "--processes", "1"]
    assert run(*words).returncode == 0
    dataset_of(dataset, ["d"])
    said = run(*words)
    assert said.returncode == 3
    assert "other cases: + d/d (training)" in said.stderr


@pytest.mark.slow
def test_a_recipe_of_other_data_does_not_lend_its_data_or_licence(tmp_path):
    dataset = dataset_of(tmp_path / "mine")
    changes = [
        ('dataset = "mine"', 'dataset = "theirs"'),
        ('licence = "not stated"', 'licence = "CC BY 4.0"'),
        ("data = [", 'data = ["900 scans of theirs", '),
    ]
    recipe_for(dataset, tmp_path, *changes)
    run_dir, made = tmp_path / "run", tmp_path / "made"
    words = ["train", "compact", tmp_path / "recipe.toml", dataset, run_dir, "--minutes", "0.001"]
    assert run(*words, "--device", "cpu", "--processes", "1").returncode == 0
    made.mkdir()
    (made / "CARD.md").write_text("# theirs, Dice 0.99")
    export_predictor(run_dir, made)
    written = (made / "CARD.md").read_text() + (made / "predictor.toml").read_text()
    assert "theirs" not in written
    assert "CC BY" not in written
    assert "0.99" in (made / "CARD.before.md").read_text()
    (tmp_path / "recipe.toml").write_text(
        (tmp_path / "recipe.toml").read_text().replace('dataset = "theirs"', 'dataset = "mine"')
    )
    export_predictor(run_dir, made, tmp_path / "recipe.toml")
    assert read_spec(made).spec.provenance["licence"] == "CC BY 4.0"
    assert "0.99" in (made / "CARD.before.md").read_text()


NETS = """
import torch


class Small(torch.nn.Sequential):
    def __init__(self, classes):
        super().__init__(
            torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(4, classes, 1)
        )
"""


@pytest.mark.long
def test_a_class_of_one_s_own_trains_where_it_is_trusted(tmp_path):
    dataset = dataset_of(tmp_path / "d", ["a", "b"])
    recipe_for(dataset, tmp_path)
    text = (tmp_path / "recipe.toml").read_text()
    start, end = text.index("[predictor.architecture]"), text.index("[[predictor.channels]]")
    own = '[predictor.architecture]\nname = "nets:Small"\narguments = { classes = 3 }\n\n'
    (tmp_path / "recipe.toml").write_text(text[:start] + own + text[end:])
    (tmp_path / "nets.py").write_text(NETS)
    words = ["train", "compact", tmp_path / "recipe.toml", dataset, tmp_path / "run"]
    words += ["--minutes", "0.001", "--device", "cpu", "--processes", "1"]
    said = run(*words)
    assert said.returncode == 4
    assert "nets.py" in said.stderr
    assert run(*words, "--trust").returncode == 0
    said = run("train", "export", tmp_path / "run", tmp_path / "made", "--trust")
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "made" / "nets.py").read_text() == NETS
    assert run("weights", "verify", tmp_path / "made", "--trust").returncode == 0
    (tmp_path / "nets.py").write_text(
        NETS.replace("Conv3d(1, 4", "Conv3d(1, 5").replace("(4,", "(5,")
    )
    said = run(*words, "--trust")
    assert said.returncode == 3
    assert "nets.py is another file" in said.stderr
    wrong = (tmp_path / "recipe.toml").read_text().replace("classes = 3", "classes = 4")
    (tmp_path / "recipe.toml").write_text(wrong)
    said = run(*words[:4], tmp_path / "other", *words[5:], "--trust")
    assert said.returncode == 4
    assert "gives 4 classes, the recipe has 3" in said.stderr
