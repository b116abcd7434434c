from __future__ import annotations

import csv
import json
import multiprocessing
import os
import time
from importlib.util import find_spec

import numpy as np
import pytest

from flarekit import conventions
from flarekit.cli.console import Console
from flarekit.cli.evaluate import run_evaluate
from flarekit.cli.requests import Scoring
from flarekit.core.errors import UsageError
from flarekit.evaluation import evaluate as module
from flarekit.evaluation.evaluate import evaluate
from flarekit.evaluation.masks import find_pairs
from flarekit.evaluation.picture import Pictures
from flarekit.evaluation.results import as_dict, write_csv, write_json
from flarekit.evaluation.scheme import Settings
from tests.command import run

FLARE = conventions.scheme_of("flare")

AUTOPET = conventions.scheme_of("autopet")

LIVER = Settings(edition="24", labels={"liver": 1})


def box(value=1, start=1):
    values = np.zeros((5, 9, 9), np.uint8)
    values[1:4, start : start + 5, 2:7] = value
    return values


@pytest.fixture
def folders(tmp_path, write_mask):
    """Four cases: one fine, one without a prediction, one broken, one on another grid."""
    for name in ("fine", "gone", "broken", "other"):
        write_mask(tmp_path / "truth" / f"{name}.nii.gz", box())
    write_mask(tmp_path / "pred" / "fine.nii.gz", box(start=2))
    write_mask(tmp_path / "pred" / "other.nii.gz", box()[:4])
    write_mask(tmp_path / "pred" / "extra.nii.gz", box())
    (tmp_path / "pred" / "broken.nii.gz").write_bytes(b"\x1f\x8b nothing")
    return tmp_path


def score_folders(folders, **options):
    pairs, surplus = find_pairs(folders / "pred", folders / "truth")
    return evaluate(pairs, FLARE, LIVER, surplus=surplus, **options)


def test_one_bad_prediction_counts_as_missing_and_takes_no_other_along(folders):
    told = []
    evaluation = score_folders(folders, on_case=told.append)
    assert [(case.case_id, case.state) for case in evaluation.cases] == [
        ("broken", "unreadable"),
        ("fine", "scored"),
        ("gone", "missing"),
        ("other", "unreadable"),
    ]
    assert {case.case_id for case in told} == {"broken", "fine", "gone", "other"}
    scores = {case.case_id: case.rows[0].scores["liver"]["dsc"] for case in evaluation.cases}
    assert scores == {"broken": 0, "fine": 0.8, "gone": 0, "other": 0}
    assert evaluation.summary.overall["dsc"] == 0.2
    errors = {case.case_id: case.error for case in evaluation.faulty}
    assert "broken.nii.gz" in errors["broken"]
    assert errors["gone"] == "no prediction for gone.nii.gz"
    assert "other.nii.gz: has 9 x 9 x 4 voxels, the truth 9 x 9 x 5" in errors["other"]
    assert evaluation.surplus == ("extra.nii.gz",)


def test_a_truth_that_cannot_be_read_stays_out_of_the_means(folders):
    (folders / "truth" / "gone.nii.gz").write_bytes(b"")
    evaluation = score_folders(folders)
    gone = next(case for case in evaluation.cases if case.case_id == "gone")
    assert (gone.state, gone.rows) == ("failed", ())
    assert evaluation.summary.labels["liver"]["dsc"].count == 3


@pytest.mark.long
def test_several_processes_give_what_one_gives(folders):
    one, several = score_folders(folders), score_folders(folders, workers=3)
    assert strip(as_dict(one)) == strip(as_dict(several))


class StopError(Exception):
    """What ends an evaluation early."""


@pytest.mark.long
def test_an_evaluation_that_is_stopped_ends_its_own_processes_and_no_others(folders):
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    other.start()

    def stop(_case):
        raise StopError

    try:
        with pytest.raises(StopError):
            score_folders(folders, workers=2, on_case=stop)
        assert other.is_alive()
        until = time.monotonic() + 120
        while multiprocessing.active_children() != [other] and time.monotonic() < until:
            time.sleep(0.05)
        assert multiprocessing.active_children() == [other]
    finally:
        other.terminate()
        other.join()


def strip(content):
    for case in content["cases"]:
        del case["seconds"]
    return content


def test_a_process_that_dies_is_named_and_the_rest_goes_on(folders, monkeypatch):
    class Dead:
        def result(self):
            raise module.BrokenProcessPool

        def read(self, path):
            raise MemoryError(path)

    (pair, *_), _ = find_pairs(folders / "pred", folders / "truth")
    result = module._result_of(Dead(), pair)
    assert (result.case_id, result.state) == ("broken", "failed")
    assert "--workers" in result.fix
    assert result.seconds == 0  # nobody knows
    monkeypatch.setattr(module, "read_mask", Dead().read)
    result = module._score(pair, scheme="flare", settings=LIVER, pictures=None)
    assert result.error == "not enough memory to score it"


def test_masks_that_lie_apart_are_compared_as_stored_and_a_warning_says_so(tmp_path, write_mask):
    write_mask(tmp_path / "truth" / "a.nii.gz", box())
    write_mask(tmp_path / "pred" / "a.nii.gz", box(), (1.0, 1.0, 2.5))
    evaluation = score_folders(tmp_path)
    assert evaluation.cases[0].rows[0].scores["liver"]["dsc"] == 1
    (warning,) = evaluation.cases[0].warnings
    assert "lie up to 2.53 mm apart" in warning


def test_files_hold_every_row_the_means_and_the_faults(folders):
    evaluation = score_folders(folders)
    write_json(evaluation, folders / "out.json")
    write_csv(evaluation, folders / "out.csv")
    content = json.loads((folders / "out.json").read_text())
    assert content["convention"] == "flare"
    assert content["means"]["liver"]["dsc"] == {"value": 0.2, "count": 4}
    assert content["cases"][2]["error"] == "no prediction for gone.nii.gz"
    assert content["without_truth"] == ["extra.nii.gz"]
    rows = list(csv.reader((folders / "out.csv").read_text().splitlines()))
    assert rows[0] == ["case", "state", "liver_dsc", "liver_nsd"]
    assert rows[2] == ["fine", "scored", "0.8", "1.0"]
    assert rows[-1][:3] == ["mean", "", "0.2"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\xff\xfe.nii.gz", r"a\xff\xfe"),
        (b"a\nb.nii.gz", r"a\x0ab"),
        (b"a\x1b[2J.nii.gz", r"a\x1b[2J"),
    ],
)
def test_names_that_no_table_takes_are_written_out(tmp_path, write_mask, capsys, name, shown):
    for side in ("truth", "pred"):
        write_mask(tmp_path / side / "a.nii.gz", np.ones((4, 4, 4)))
        folder = os.fsencode(tmp_path / side)
        os.rename(folder + b"/a.nii.gz", folder + b"/" + name)  # noqa: PTH104 - bytes
    scoring = Scoring(
        predicted=tmp_path / "pred",
        truth=tmp_path / "truth",
        labels="a=1",
        csv=tmp_path / "out.csv",
        json=tmp_path / "out.json",
        workers=1,
    )
    assert run_evaluate(scoring, Console()) == 0
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith(f"{shown},scored,1.0")
    assert json.loads((tmp_path / "out.json").read_text())["cases"][0]["case"] == shown
    said = capsys.readouterr()
    assert shown in said.out
    assert "\x1b" not in said.out + said.err


def test_what_is_not_defined_is_null_in_json_and_empty_in_csv(tmp_path, write_mask):
    write_mask(tmp_path / "truth" / "a.nii.gz", np.zeros((4, 4, 4)))
    write_mask(tmp_path / "pred" / "a.nii.gz", np.zeros((4, 4, 4)))
    pairs, _ = find_pairs(tmp_path / "pred", tmp_path / "truth")
    evaluation = evaluate(pairs, AUTOPET, Settings(edition="5", labels={"lesion": 1}))
    write_json(evaluation, tmp_path / "out.json")
    write_csv(evaluation, tmp_path / "out.csv")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["overall"]["dice"] is None
    assert (tmp_path / "out.csv").read_text().splitlines()[1].startswith("a,scored,,0.0,,")


@pytest.mark.long
def test_pictures_show_truth_prediction_and_difference(folders, write_scan):
    pytest.importorskip("matplotlib")
    from matplotlib.image import imread

    (folders / "scans").mkdir()
    (folders / "pictures").mkdir()
    write_scan(folders / "scans" / "fine_0000.nii.gz", np.full((5, 9, 9), 40))
    pictures = Pictures(folder=folders / "pictures", scans=folders / "scans")
    evaluation = score_folders(folders, pictures=pictures)
    assert sorted(os.listdir(folders / "pictures")) == [
        f"{name}.png" for name in ("broken", "fine", "gone", "other")
    ]
    fine, gone = (case for case in evaluation.cases if case.case_id in ("fine", "gone"))
    assert fine.warnings == ()
    assert "no scan gone_0000.nii.gz" in gone.warnings[0]
    drawn = imread(folders / "pictures" / "fine.png")[..., :3]
    bare = imread(folders / "pictures" / "gone.png")[..., :3]
    assert drawn.mean() > bare.mean()  # the scan is behind it
    for colour in ((0.3, 0.85, 0.35), (0.2, 0.5, 1.0), (1.0, 0.3, 0.2)):
        near = np.abs(drawn - np.array(colour)).max(axis=-1) < 0.4
        assert near.sum() > 100


@pytest.mark.long
def test_a_picture_that_cannot_be_written_is_a_fault_of_a_scored_case(folders):
    pytest.importorskip("matplotlib")
    evaluation = score_folders(folders, pictures=Pictures(folder=folders / "nowhere"))
    fine = next(case for case in evaluation.cases if case.case_id == "fine")
    assert fine.state == "scored"
    assert "cannot be written" in fine.error


def test_pictures_without_matplotlib_are_refused(folders, monkeypatch):
    installed = lambda name: None if name == "matplotlib" else find_spec(name)  # noqa: E731
    monkeypatch.setattr("flarekit.core.extras.find_spec", installed)
    with pytest.raises(UsageError, match="pictures need matplotlib"):
        score_folders(folders, pictures=Pictures(folder=folders / "pictures"))


@pytest.mark.long
def test_the_command_prints_tables_and_its_last_line_names_every_fault(folders):
    result = run(
        "evaluate",
        *("--pred", folders / "pred", "--truth", folders / "truth", "--labels", "liver=1"),
        *("--json", folders / "o.json", "--csv", folders / "o.csv", "--workers", 2),
    )
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["case", "dsc", "nsd"]
    assert lines[2].split() == ["fine", "0.8000", "1.0000"]
    assert ["liver", *["0.2000", "of", "4"], *["0.2500", "of", "4"]] in map(str.split, lines)
    assert "scores of flare; labels of --labels: liver" in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert "3 of 4 cases have faults" in last
    assert "no prediction, scored as missing: gone" in last
    assert "prediction unusable, scored as missing: broken, other" in last
    assert "extra.nii.gz" in result.stderr
    assert "Traceback" not in result.stderr
    assert (folders / "o.json").is_file()
    assert (folders / "o.csv").is_file()


def score_as_asked(folder, **options):
    request = Scoring(
        **{
            "predicted": folder / "pred",
            "truth": folder / "truth",
            "convention": "flare",
            "workers": 1,
            **options,
        }
    )
    return run_evaluate(request, Console(quiet=True))


def test_labels_come_from_the_convention_or_a_predictor_less_those_ignored(
    tmp_path, write_mask, capsys
):
    write_mask(tmp_path / "truth" / "a.nii.gz", box())
    write_mask(tmp_path / "pred" / "a.nii.gz", box())

    def labels(**options):
        assert score_as_asked(tmp_path, **options) == 0
        printed = capsys.readouterr().out.split("mean of label")[1].split("overall")[0]
        return [line.split()[0] for line in printed.strip().splitlines()[1:]]

    organs = labels()
    assert len(organs) == 13
    assert labels(ignore="left_kidney,2, duodenum") == [
        name for name in organs if name not in ("left_kidney", "right_kidney", "duodenum")
    ]
    assert labels(predictor="abdomen_ct", convention="papers") == organs
    assert labels(labels="liver=1,heart=9", tolerances=("heart=3",)) == ["liver", "heart"]


@pytest.mark.parametrize("options", [{}, {"predictor": "mamba_ahnet_lesion"}])
def test_numbered_lesions_in_npz_are_scored_one_by_one_whatever_the_predictor(
    tmp_path, capsys, options
):
    truth = box()
    truth[:2, :, 8] = 2
    for folder, name, values in (("truth", "gts", truth), ("pred", "segs", box())):
        (tmp_path / folder).mkdir()
        spacing = np.array([1.0, 1.0, 2.0])
        np.savez_compressed(tmp_path / folder / "a.npz", **{name: values, "spacing": spacing})
    assert score_as_asked(tmp_path, convention="flare_recist", **options) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:3]}
    assert rows == {"a[1]": ["1.0000", "1.0000"], "a[2]": ["0.0000", "0.0000"]}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"convention": "flair"}, "did you mean 'flare'"),
        ({"edition": "20"}, "no edition '20'"),
        ({"labels": "liver"}, "'liver' is not a label"),
        ({"labels": "liver=0"}, "'liver=0' is not a label"),
        ({"labels": "a=1,b=1"}, "have the same values"),
        ({"labels": "heart=1"}, "add --tolerance heart=MM"),
        ({"labels": "liver=1", "predictor": "x"}, "give one of them"),
        ({"ignore": "livr"}, "did you mean 'liver'"),
        ({"labels": "liver=1", "ignore": "1"}, "no label to score"),
        ({"tolerances": ("liver",)}, "'liver' is not a tolerance"),
        ({"tolerances": ("heart=3",)}, "heart, which is not scored"),
        ({"predictor": "no_such"}, "no predictor 'no_such'"),
    ],
)
def test_wrong_options_are_refused_with_a_remedy(folders, options, words):
    with pytest.raises(UsageError) as raised:
        score_as_asked(folders, **options)
    assert words in str(raised.value)


def test_a_folder_that_is_not_there_is_exit_code_three(tmp_path):
    result = run(
        "evaluate", "--pred", tmp_path, "--truth", tmp_path / "nowhere"
    )  # before labels are missed
    assert result.returncode == 3
    assert "nowhere: is not a folder" in result.stderr
    assert result.stderr.count("\n") == 1
