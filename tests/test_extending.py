"""A convention, a rule, an engine and an architecture are added in one place each.

Each test puts files into a folder of its own and lets the package look there too, which is what
adding them to the package does; nothing else is told of them.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from flarekit import conventions, engine, models, postprocess
from flarekit.core.errors import InputError
from flarekit.core.nifti import read_nifti
from flarekit.core.spec import read_spec
from flarekit.evaluation.scheme import Settings
from flarekit.images.build import budget_arguments, task_facts
from flarekit.segmentation.folder import Options, segment_folder
from tests.command import run

LAYOUT = '''
"""Scans of the made-up challenge: `scan_X.nii.gz` in, `X/mask.nii.gz` out."""

from pathlib import Path

from flarekit.conventions import Case
from flarekit.core.files import make_folder
from flarekit.core.nifti import read_nifti, write_label_map


def find_cases(input_dir, channel_count):
    scans = sorted(input_dir.glob("scan_*.nii.gz"))
    names = [scan.name.removeprefix("scan_").removesuffix(".nii.gz") for scan in scans]
    return [
        Case(case_id=name, channels=(scan,), mask=Path(name, "mask.nii.gz"))
        for name, scan in zip(names, scans, strict=True)
    ]


def read_case(case):
    return [read_nifti(path) for path in case.channels]


def write_mask(case, label_map_ZYX, geometry, output_dir):
    path = output_dir / case.mask
    make_folder(path.parent)
    write_label_map(path, label_map_ZYX, geometry)
    return path


def write_empty_mask(case, output_dir):
    raise NotImplementedError
'''
FACTS = """
title = "The made-up challenge"
mask_values = [0, 7]
one_label = true

[tree]
input = "scan_X.nii.gz"
output = "X/mask.nii.gz"

[run]
inputs = "/data/in"
outputs = "/data/out"

[budget]
time_s = 33.0

[limits.madeup26]
time_s = 33.0
gpu_mib = 1000.0
ram_mib = 2000.0
source = "made up"
"""
CHECKS = '''
from flarekit.verification.check import PASS, check


def write_sample(folder, task):
    (folder / "scan_a.nii.gz").touch()


@check(fix="smile")
def smiles(image):
    """It smiles."""
    return PASS


CHECKS = (smiles,)
'''
SCORING = """
import numpy as np

from flarekit.evaluation.scheme import Row, Summary, means_of

EDITIONS = ("26",)


def default_labels(edition):
    return {"organ": 1}


def check(settings):
    pass


def score(case_id, truth, predicted, settings):
    found = np.zeros_like(truth.values_ZYX) if predicted is None else predicted.values_ZYX
    inside = truth.values_ZYX > 0
    same = float((truth.values_ZYX == found)[inside].mean())
    return [Row(row_id=case_id, scores={"organ": {"same": same}})]


def summarise(rows, settings):
    return Summary(labels=means_of(rows, np.mean), overall={})
"""
RULE = '''
"""Every component of the labels becomes background."""

import numpy as np

TAKES_VALUE = False
FILLS = False


def apply(regions, labels, value, voxel_ml):
    regions.values[np.isin(regions.values, list(labels))] = 0
'''


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Return a function: a package and files -> they belong to the package from then on."""

    def add(package, files):
        folder = tmp_path / "more" / package.__name__
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])

    yield add
    for name, module in list(sys.modules.items()):  # their files are removed after the test
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def madeup(add):
    """Add the convention `madeup`."""
    files = {"layout": LAYOUT, "checks": CHECKS, "scoring": SCORING, "__init__": ""}
    content = {f"madeup/{name}.py": text for name, text in files.items()}
    add(conventions, {**content, "madeup/facts.toml": FACTS})


@pytest.mark.usefixtures("madeup")
def test_a_convention_is_one_folder(toy, tmp_path, write_scan):
    (tmp_path / "in").mkdir()
    scan = write_scan(tmp_path / "in" / "scan_a.nii.gz")
    options = Options(convention="madeup", device="cpu", precision="fp32")
    report = segment_folder(toy, tmp_path / "in", tmp_path / "out", options)
    assert [case.error for case in report.cases] == [None]
    mask = read_nifti(tmp_path / "out" / "a" / "mask.nii.gz")
    assert mask.geometry.shape_ZYX == read_nifti(scan).geometry.shape_ZYX


@pytest.mark.usefixtures("madeup")
def test_what_its_organiser_states_is_asked_for_by_name(toy):
    assert "madeup" in conventions.names()
    assert budget_arguments("madeup")["TIME_BUDGET"] == "33"
    assert conventions.presets()["madeup26"].gpu_mib == 1000
    assert task_facts(toy.spec, "madeup")["values"] == [7]
    checks = conventions.checks_of("madeup")
    assert checks.run_line.inputs == "/data/in"
    assert [(check.name, check.asserts) for check in checks.checks] == [("smiles", "It smiles")]


@pytest.mark.usefixtures("madeup")
def test_its_scores_are_asked_for_by_name_too():
    scheme = conventions.scheme_of("madeup").load()
    mask = SimpleNamespace(values_ZYX=np.ones((2, 3, 4), np.uint8))
    settings = Settings(edition="26", labels={"organ": 1})
    (row,) = scheme.score("a", mask, mask, settings)
    assert row.scores["organ"]["same"] == 1
    assert scheme.summarise([row], settings).labels["organ"]["same"].value == 1


@pytest.mark.usefixtures("madeup")
def test_its_masks_are_scored_and_its_folders_shown_by_the_commands(tmp_path, write_scan):
    for folder in ("truth", "masks"):
        (tmp_path / folder).mkdir()
        write_scan(tmp_path / folder / "a.nii.gz", np.ones((3, 4, 5)))
    arguments = ("--pred", str(tmp_path / "masks"), "--truth", str(tmp_path / "truth"))
    scored = run("evaluate", *arguments, "--convention", "madeup", "--workers", "1")
    assert scored.returncode == 0, scored.stderr
    assert "organ" in scored.stdout
    assert "X/mask.nii.gz" in run("conventions", "madeup").stdout


@pytest.mark.usefixtures("madeup")
def test_a_folder_in_which_it_finds_nothing_is_refused_and_not_taken_for_its_own(tmp_path):
    (tmp_path / "notes.txt").write_text("no scan")
    convention = conventions.get("madeup")
    with pytest.raises(InputError, match="no case in it"):
        conventions.find_in(convention, [tmp_path], 1)
    assert "madeup" not in conventions.fitting(tmp_path, 1, but="flare")


def test_a_rule_is_one_file(add, toy):
    add(postprocess, {"nothing_left.py": RULE})
    text = (toy.folder / "predictor.toml").read_text()
    changed = text.replace('name = "largest_component"', 'name = "nothing_left"')
    (toy.folder / "predictor.toml").write_text(changed)
    rules = read_spec(toy.folder).spec.rules
    postprocess.check_rules(rules)
    label_map = np.ones((3, 4, 5), np.uint8)
    assert not postprocess.apply_rules(label_map, rules, {"organ": 1}, voxel_ml=1.0).any()


def test_an_engine_is_one_file(add):
    add(engine, {"abacus.py": "def create(networks, grid, **options):\n    return options\n"})
    assert "abacus" in engine.names()
    made = engine.create("abacus", None, None, class_count=3, device="cpu")
    assert made["class_count"] == 3


def test_an_engine_whose_library_is_missing_says_so(add):
    add(engine, {"slide_rule.py": "import a_library_that_is_not_there\n"})
    with pytest.raises(engine.UsageError, match="needs a_library_that_is_not_there"):
        engine.create("slide_rule", None, None, class_count=3)


def test_an_architecture_is_one_file(add):
    text = "from torch import nn\n\n\ndef create(width):\n    return nn.Conv3d(1, width, 1)\n"
    add(models, {"one_layer.py": text})
    assert models.create("one_layer", width=5).out_channels == 5
