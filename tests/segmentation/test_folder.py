from __future__ import annotations

import itertools
import json
import os
import threading
import time
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK

import flarekit
from flarekit.core.budget import Budget
from flarekit.core.errors import (
    DeviceError,
    InputError,
    OutputError,
    PredictorError,
    UsageError,
    WeightsHashError,
)
from flarekit.core.first_pass import Coarse
from flarekit.core.probabilities import read_probabilities
from flarekit.engine import torch as torch_engine
from flarekit.segmentation import case, case_loop, loaded
from flarekit.segmentation.folder import Options, Report, Silent, run_folder, segment_folder
from flarekit.segmentation.memory import Memory, reading_mib
from flarekit.segmentation.options import effective_budget, unlimited
from flarekit.segmentation.predictors import find_predictor
from flarekit.segmentation.segmenter import Segmenter
from flarekit.segmentation.source import Source
from tests.core.broken import broken_files

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
EXACT = Options(device="cpu", precision="fp32")


@pytest.fixture
def inputs(tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    return folder


def mask_of(path):
    return np.asarray(nibabel.load(path).dataobj)


@pytest.mark.parametrize("device", DEVICES)
def test_every_scan_becomes_a_mask_and_nothing_else_is_written(
    toy, inputs, tmp_path, write_scan, device
):
    for name in ("a", "b c", "d_0000"):
        write_scan(inputs / f"{name}_0000.nii.gz")
    (inputs / "notes.txt").write_text("not a scan")
    record = segment_folder(toy, inputs, tmp_path / "out", Options(device=device))
    assert not record.failed
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "b c.nii.gz", "d_0000.nii.gz"]
    assert sorted(os.listdir(inputs)) == [
        "a_0000.nii.gz",
        "b c_0000.nii.gz",
        "d_0000_0000.nii.gz",
        "notes.txt",
    ]
    mask = mask_of(tmp_path / "out" / "a.nii.gz")
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, 1, 4}
    assert mask.any()


@pytest.mark.parametrize("decide", ["network", "scan"])
def test_internal_classes_are_not_in_masks(toy, inputs, tmp_path, write_scan, decide):
    write_scan(inputs / "a_0000.nii.gz")
    path = toy.folder / "predictor.toml"
    facts = path.read_text().replace("step = 0.5", f'step = 0.5\ndecide = "{decide}"')
    path.write_text(facts)
    segment_folder(find_predictor(str(toy.folder)), inputs, tmp_path / "every", EXACT)
    facts = facts.replace("lesion = 4\n", "").replace('"flare"', '"flare"\nauxiliary = ["lesion"]')
    path.write_text(facts.replace("[labels]", '[internal]\nothers = ["lesion"]\n\n[labels]'))
    segment_folder(find_predictor(str(toy.folder)), inputs, tmp_path / "some", EXACT)
    every, some = (mask_of(tmp_path / name / "a.nii.gz") for name in ("every", "some"))
    assert (every == 4).any()
    np.testing.assert_array_equal(some, np.where(every == 4, 0, every))


def test_times_of_every_stage_and_what_computed_are_recorded(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert (record.device, record.precision, record.engine) == ("cpu", "fp32", "torch")
    assert list(record.cases[0].seconds) == [
        "read",
        "prepare",
        "plan",
        "tiles",
        "restore",
        "rules",
        "write",
        "statistics",
    ]
    assert record.seconds["load"] > 0


def test_what_comes_before_the_first_case_counts_in_its_time_and_is_listed(
    toy, inputs, tmp_path, write_scan
):
    for name in "ab":
        write_scan(inputs / f"{name}_0000.nii.gz")
    options = replace(EXACT, began=time.monotonic() - 20.0)
    first, second = segment_folder(toy, inputs, tmp_path / "out", options).cases
    assert list(first.start) == ["import", "load"]
    assert 20.0 <= first.start["import"] <= first.wall_s
    assert second.start == {}


def test_compiling_a_network_is_a_step_of_its_own(toy, inputs, tmp_path, write_scan, monkeypatch):
    write_scan(inputs / "a_0000.nii.gz")
    create = torch_engine.create

    def compiled(*given, **named):
        engine = create(*given, **named)
        engine.one_time_s = 0.001
        return engine

    monkeypatch.setattr(torch_engine, "create", compiled)
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert record.seconds["compile"] == record.cases[0].start["compile"] == 0.001
    assert record.seconds["load"] > 0


def test_a_network_that_was_loaded_before_the_run_is_not_in_the_first_case_s_time(
    toy, inputs, tmp_path, write_scan
):
    write_scan(inputs / "a_0000.nii.gz")
    with Segmenter(Source.of_folder(toy), EXACT) as segmenter:
        record = run_folder(segmenter, [inputs], tmp_path / "out", EXACT)
    assert record.cases[0].start == {}


def test_two_runs_give_the_same_bytes(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    masks = []
    for name in ("one", "two"):
        segment_folder(toy, inputs, tmp_path / name, EXACT)
        masks.append((tmp_path / name / "a.nii.gz").read_bytes())
    assert masks[0] == masks[1]


def test_an_old_mask_is_replaced(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.nii.gz").write_bytes(b"stale")
    segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert mask_of(tmp_path / "out" / "a.nii.gz").shape == (14, 20, 9)


@pytest.mark.long
def test_the_mask_stays_index_aligned_in_all_48_axis_orientations(toy, inputs, tmp_path):
    """One patient stored in 48 ways: the masks, brought back to one way, are all the same."""
    rng = np.random.default_rng(5)
    scan = nibabel.Nifti1Image(
        rng.integers(-200, 300, (14, 20, 9)).astype(np.int16), np.diag([-2.0, -2.0, 2.5, 1])
    )
    stored_as = {}
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            orientation = np.array(list(zip(axes, signs, strict=True)))
            case_id = f"{''.join(map(str, axes))}_{''.join('+' if s > 0 else '-' for s in signs)}"
            stored_as[case_id] = orientation
            nibabel.save(scan.as_reoriented(orientation), inputs / f"{case_id}_0000.nii.gz")
    assert not segment_folder(toy, inputs, tmp_path / "out", EXACT).failed
    masks = []
    for case_id, orientation in stored_as.items():
        back = np.empty((3, 2))
        back[orientation[:, 0]] = np.stack([np.arange(3), orientation[:, 1]], axis=1)
        mask = nibabel.load(tmp_path / "out" / f"{case_id}.nii.gz")
        assert mask.shape == nibabel.load(inputs / f"{case_id}_0000.nii.gz").shape
        masks.append(nibabel.orientations.apply_orientation(np.asarray(mask.dataobj), back))
    assert len(masks) == 48
    assert len(np.unique(masks[0])) > 1
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


@pytest.fixture
def one_bad(inputs, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "c_0000.nii.gz")
    bad = write_scan(
        inputs / "b_0000.nii.gz", np.random.default_rng(1).integers(0, 999, (30, 40, 50))
    )
    bad.write_bytes(bad.read_bytes()[:9000])
    return inputs


def test_a_bad_case_leaves_an_empty_mask_and_a_clear_error_and_the_others_go_on(
    toy, one_bad, tmp_path
):
    record = segment_folder(toy, one_bad, tmp_path / "out", EXACT)
    assert [case.case_id for case in record.failed] == ["b"]
    assert "b_0000.nii.gz" in record.failed[0].error
    assert record.failed[0].fix
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    empty = mask_of(tmp_path / "out" / "b.nii.gz")
    assert empty.shape == (50, 40, 30)
    assert not empty.any()
    assert mask_of(tmp_path / "out" / "c.nii.gz").any()


def test_on_error_skip_leaves_no_mask(toy, one_bad, tmp_path):
    options = Options(device="cpu", on_error="skip")
    record = segment_folder(toy, one_bad, tmp_path / "out", options)
    assert len(record.failed) == 1
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz", "c.nii.gz"]


def test_on_error_stop_ends_the_run_and_says_what_was_not_run(toy, one_bad, tmp_path):
    options = Options(device="cpu", on_error="stop")
    record = segment_folder(toy, one_bad, tmp_path / "out", options)
    assert record.not_run == ("c",)
    assert sorted(os.listdir(tmp_path / "out")) == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (KeyError("a bug"), "KeyError"),
        (MemoryError("Unable to allocate 9 GiB"), "memory of this machine is not enough: Unable"),
    ],
)
def test_a_bug_in_one_case_does_not_take_the_others_along(
    toy, inputs, tmp_path, write_scan, monkeypatch, fault, said
):
    def locate(volumes, spec):
        if volumes[0].path.name.startswith("a"):
            raise fault
        return genuine(volumes, spec)

    genuine = loaded.locate
    monkeypatch.setattr(loaded, "locate", locate)
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "b_0000.nii.gz")
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert [case.case_id for case in record.failed] == ["a"]
    assert said in record.failed[0].error
    assert not mask_of(tmp_path / "out" / "a.nii.gz").any()
    assert mask_of(tmp_path / "out" / "b.nii.gz").any()


def test_two_channels_are_read_in_order(make_toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "a_0001.nii.gz")
    write_scan(inputs / "b_0000.nii.gz")
    record = segment_folder(make_toy(channels=2), inputs, tmp_path / "out", EXACT)
    assert [case.case_id for case in record.failed] == ["b"]
    assert "b_0001.nii.gz" in record.failed[0].error


def test_channels_on_two_grids_are_an_error(make_toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    write_scan(inputs / "a_0001.nii.gz", np.zeros((9, 20, 15)))
    record = segment_folder(make_toy(channels=2), inputs, tmp_path / "out", EXACT)
    assert "another grid" in record.failed[0].error


def test_no_cases_is_an_error_before_anything_is_loaded(toy, inputs, tmp_path):
    with pytest.raises(InputError):
        segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_right_stop_the_run(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    toy.weights.write_bytes(b"something else")
    with pytest.raises(WeightsHashError):
        segment_folder(toy, inputs, tmp_path / "out", EXACT)


def test_a_device_that_is_not_there_stops_the_run(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    with pytest.raises(DeviceError):
        segment_folder(toy, inputs, tmp_path / "out", Options(device="cuda:99"))


def test_an_output_folder_that_is_a_file_is_an_error(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(OutputError):
        segment_folder(toy, inputs, tmp_path / "out", EXACT)


def test_every_kind_of_broken_file_gets_its_own_error_and_the_other_masks_are_all_there(
    toy, inputs, tmp_path, write_scan
):
    broken = broken_files(inputs)
    write_scan(inputs / "good_0000.nii.gz")
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT)
    assert sorted(failed.case_id for failed in record.failed) == sorted(broken)
    for failed in record.failed:
        file = broken[failed.case_id]
        said = f"{failed.error} {failed.fix}"
        assert str(file.path) in said
        assert all(words in said for words in file.words)
        mask = nibabel.load(failed.mask)
        assert mask.get_data_dtype() == np.uint8
        assert not np.asarray(mask.dataobj).any()
        assert mask.shape == (file.shape_ZYX[::-1] if file.geometry_known else (1, 1, 1))
    assert mask_of(tmp_path / "out" / "good.nii.gz").any()
    assert len(os.listdir(tmp_path / "out")) == len(broken) + 1


def with_facts(predictor, **changes):
    return replace(predictor, spec=predictor.spec.model_copy(update=changes))


@pytest.mark.long
def test_a_first_pass_tells_where_to_look(make_toy, inputs, tmp_path, write_scan, monkeypatch):
    write_scan(inputs / "a_0000.nii.gz", np.zeros((60, 20, 20)))
    toy = make_toy()
    monkeypatch.setenv("FLAREKIT_WEIGHTS", str(toy.folder.parent))
    both = with_facts(toy, coarse=Coarse(predictor="toy", margin_mm=2.0))
    found = np.zeros((60, 20, 20), bool)
    found[:5] = True

    def first_pass(placement, volumes, coarse, _memory):
        assert coarse.spec.name == "toy"
        assert volumes[0].voxels_ZYX.shape == found.shape
        return placement.restricted_to(found, coarse.margin_mm)

    genuine = case.restrict_to_coarse
    everywhere = segment_folder(both, inputs, tmp_path / "one", EXACT).cases[0]
    assert "coarse" in everywhere.seconds
    monkeypatch.setattr(case, "restrict_to_coarse", first_pass)
    near = segment_folder(both, inputs, tmp_path / "two", EXACT).cases[0]
    assert genuine is not first_pass
    assert near.tiles.done < everywhere.tiles.done
    assert near.tiles.empty > 0
    assert not mask_of(tmp_path / "two" / "a.nii.gz")[..., 40:].any()


def stand_in(monkeypatch, predictor):
    """Let a predictor be found whatever the name of the first pass."""
    for module in ("starting", "source"):
        found = f"flarekit.segmentation.{module}.find_predictor"
        monkeypatch.setattr(found, lambda *_, **__: predictor)


def test_a_first_pass_looks_near_its_labels_not_near_its_internal_classes(
    toy, inputs, tmp_path, write_scan, monkeypatch
):
    write_scan(inputs / "a_0000.nii.gz")
    looked_at = []

    def noted(placement, mask, _margin_mm):
        looked_at.append(mask)
        return placement

    monkeypatch.setattr("flarekit.preprocess.Placement.restricted_to", noted)
    grouped = with_facts(
        toy, labels={"organ": 1}, auxiliary=("lesion",), internal={"others": ("lesion",)}
    )
    for number, first in enumerate((toy, grouped)):
        stand_in(monkeypatch, first)
        one = with_facts(toy, coarse=Coarse(predictor="first"))
        segment_folder(one, inputs, tmp_path / str(number), EXACT)
    labelled, organ = looked_at
    assert organ.any()
    assert not (organ & ~labelled).any()
    assert organ.sum() < labelled.sum()


def test_a_first_pass_of_other_channels_is_refused(toy, inputs, tmp_path, write_scan, monkeypatch):
    write_scan(inputs / "a_0000.nii.gz")
    other = with_facts(toy, channels=toy.spec.channels * 2)
    stand_in(monkeypatch, other)
    one = with_facts(toy, coarse=Coarse(predictor="other"))
    with pytest.raises(PredictorError, match="takes 2 channels, not 1"):
        segment_folder(one, inputs, tmp_path / "out", EXACT)


def test_exact_makes_no_first_pass(toy):
    facts = with_facts(toy, coarse=Coarse(predictor="none")).spec
    assert facts.for_mode("exact").coarse is None


def test_what_a_case_was_spared_for_its_time_stands_in_the_record(
    toy, inputs, tmp_path, write_scan, monkeypatch
):
    monkeypatch.setattr("flarekit.segmentation.everywhere.fits", lambda *_: False)
    write_scan(inputs / "a_0000.nii.gz", np.zeros((40, 40, 40)))
    options = Options(device="cpu", precision="fp32", time_budget_s=60)
    record = segment_folder(toy, inputs, tmp_path / "out", options)
    assert "tiles 1 of a tile apart" in record.cases[0].traded[-1]
    assert record.budget.time_s == 60
    assert mask_of(tmp_path / "out" / "a.nii.gz").shape == (40, 40, 40)


def test_a_mask_is_there_in_time_whatever_it_takes(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz", np.zeros((40, 200, 200)))
    options = Options(device="cpu", precision="fp32", time_budget_s=0.01)
    record = segment_folder(toy, inputs, tmp_path / "out", options).cases[0]
    assert record.tiles.done == 1  # without a locator, a late mask is better than an empty one
    assert record.tiles.dropped > 0
    assert "one tile although its time was up" in record.traded
    assert "background" in record.traded[-1]
    assert mask_of(tmp_path / "out" / "a.nii.gz").shape == (200, 200, 40)


def test_budgets_are_only_where_they_are_meant():
    assert effective_budget("flare", Options()) == Budget()
    assert effective_budget("flare", Options(mode="exact")) == Budget()
    tolerated = Options(time_budget_s="convention", gpu_memory_budget_mib="convention")
    assert effective_budget("flare", tolerated) == Budget(time_s=15, gpu_memory_mib=4096)
    assert effective_budget("autopet", tolerated) == Budget(time_s=270)
    assert effective_budget("flare", Options(mode="exact", time_budget_s=60)).time_s == 60
    assert effective_budget("flare", Options(time_budget_s=0)).time_s is None


def test_the_container_s_memory_is_a_limit_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr("flarekit.segmentation.options.container_memory_mib", lambda: 2048.0)
    assert effective_budget("flare", Options()).ram_mib is None
    assert effective_budget("flare", Options(ram_budget_mib="container")).ram_mib == 2048


def test_a_word_that_stands_for_no_limit_is_told(
    toy, inputs, tmp_path, write_scan, caplog, monkeypatch
):
    monkeypatch.setattr("flarekit.segmentation.options.container_memory_mib", lambda: None)
    options = replace(EXACT, convention="plain", time_budget_s="convention")
    assert unlimited("flare", options) == unlimited("plain", EXACT) == ()
    assert unlimited("plain", options) == (
        "a case has no limit of time: the convention plain states none",
    )
    other = replace(EXACT, gpu_memory_budget_mib="convention", ram_budget_mib="container")
    assert unlimited("autopet", other) == (
        "a case has no limit of GPU memory: the convention autopet states none",
        "a case has no limit of memory: no container around it has one",
    )
    caplog.set_level("INFO")
    write_scan(inputs / "a_0000.nii.gz")
    segment_folder(toy, inputs, tmp_path / "out", options)
    assert "no limit of time: the convention plain states none" in caplog.text


def test_a_small_next_case_is_read_ahead_and_a_large_one_is_not(
    toy, inputs, tmp_path, write_scan, monkeypatch
):
    for name in "abc":
        write_scan(inputs / f"{name}_0000.nii.gz")
    reading, ended = [], []
    genuine = case_loop.load_case

    def noted(*how):
        reading.append(threading.current_thread() is not threading.main_thread())
        return genuine(*how)

    monkeypatch.setattr(case_loop, "load_case", noted)

    class Watching(Silent):
        def end_case(self, record):
            ended.append((record.case_id, len(reading)))

    assert not segment_folder(toy, inputs, tmp_path / "one", EXACT, Watching()).failed
    assert reading == [True, True, True]
    reading.clear()
    twice_mib = 2 * reading_mib([inputs / "a_0000.nii.gz"])
    with monkeypatch.context() as tight:
        left_mib = {True: twice_mib, False: 1e6}  # ahead, or not
        tight.setattr(Memory, "usable_mib", lambda _memory, *, ahead=False: left_mib[ahead])
        assert not segment_folder(toy, inputs, tmp_path / "tight", EXACT).failed
    assert reading == [False, False, False]
    reading.clear()
    ended.clear()
    monkeypatch.setattr(case_loop, "_AHEAD_MIB", 0.0)
    assert not segment_folder(toy, inputs, tmp_path / "two", EXACT, Watching()).failed
    assert reading == [False, False, False]
    assert ended == [("a", 1), ("b", 2), ("c", 3)]


def ledger_of(folder):
    lines = (folder / "ledger.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.long
def test_the_ledger_has_a_line_for_every_case_that_is_over_also_while_the_run_goes_on(
    toy, one_bad, tmp_path
):
    seen = []

    class Watching(Silent):
        def end_case(self, _record):
            seen.append([line["case_id"] for line in ledger_of(tmp_path / "report")])

    report = Report(tmp_path / "report")
    segment_folder(toy, one_bad, tmp_path / "out", EXACT, Watching(), report)
    assert seen == [["a"], ["a", "b"], ["a", "b", "c"]]
    record = json.loads((tmp_path / "report" / "run.json").read_text())
    assert (record["cases"], record["failed"], record["not_run"]) == (3, ["b"], [])
    assert record["versions"]["numpy"] == np.__version__
    assert "b_0000.nii.gz" in ledger_of(tmp_path / "report")[1]["error"]
    pictures = sorted(path.name for path in (tmp_path / "report").glob("*.png"))
    assert pictures == ["a.png", "c.png"]


def test_a_second_run_begins_a_new_ledger(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    for _ in range(2):
        report = Report(tmp_path / "report", pictures=False)
        segment_folder(toy, inputs, tmp_path / "out", EXACT, report=report)
    assert len(ledger_of(tmp_path / "report")) == 1


def test_no_picture_that_fails_ends_a_run(toy, inputs, tmp_path, write_scan, monkeypatch, caplog):
    def fails(*_):
        raise MemoryError("no room to draw")

    monkeypatch.setattr("flarekit.segmentation.report.write_picture", fails)
    write_scan(inputs / "a_0000.nii.gz")
    report = Report(tmp_path / "report")
    record = segment_folder(toy, inputs, tmp_path / "out", EXACT, report=report)
    assert not record.failed
    assert (tmp_path / "report" / "run.json").is_file()
    assert "no picture of a: MemoryError: no room to draw" in caplog.text
    assert record.cases[0].warnings == ("no picture of a: MemoryError: no room to draw",)


def test_a_picture_that_does_not_fit_into_memory_is_left_out_and_named(
    toy, inputs, tmp_path, write_scan, monkeypatch, caplog
):
    monkeypatch.setattr("flarekit.segmentation.memory._DRAWING_MIB", 1e9)
    write_scan(inputs / "a_0000.nii.gz")
    options = Options(device="cpu", precision="fp32", ram_budget_mib=1e6)
    report = Report(tmp_path / "report")
    record = segment_folder(toy, inputs, tmp_path / "out", options, report=report)
    assert not record.failed
    assert "no picture of a: it takes 1000000000 MiB" in caplog.text
    assert record.cases[0].warnings == ("no picture of a: it takes 1000000000 MiB",)
    assert not list((tmp_path / "report").glob("*.png"))


def test_a_report_that_cannot_be_written_ends_the_run_before_it_computes(
    toy, inputs, tmp_path, write_scan
):
    write_scan(inputs / "a_0000.nii.gz")
    (tmp_path / "report").write_text("in the way")
    with pytest.raises(OutputError):
        segment_folder(toy, inputs, tmp_path / "out", EXACT, report=Report(tmp_path / "report"))
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.long
def test_a_stack_of_volumes_with_padding_has_a_picture_of_each(toy, inputs, tmp_path):
    voxels = np.full((256, 256, 256), -3000, np.int16)  # two of ULS23's; most of it is padding
    voxels[40:90, 60:200, 100:180] = 40
    voxels[150:230, 90:160, 60:200] = 40
    stack = inputs / "images" / "stacked-3d-ct-lesion-volumes"
    stack.mkdir(parents=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), str(stack / "s.mha"), True)
    spacings = json.dumps([[1, 1, 1], [1, 1, 2]])
    (inputs / "stacked-3d-volumetric-spacings.json").write_text(spacings)
    path = toy.folder / "predictor.toml"
    path.write_text(path.read_text().replace("[2.0, 2.0, 2.0]", "[8.0, 8.0, 8.0]"))
    options = Options(convention="uls23", device="cpu", precision="fp32")
    report = Report(tmp_path / "report")
    predictor = find_predictor(str(toy.folder))
    record = segment_folder(predictor, inputs, tmp_path / "out", options, report=report)
    assert not record.failed
    pictures = sorted(path.name for path in (tmp_path / "report").glob("*.png"))
    assert pictures == ["s-0000.png", "s-0001.png"]


def test_probabilities_of_every_class_are_stored_beside_the_masks(
    toy, inputs, tmp_path, write_scan
):
    write_scan(inputs / "a_0000.nii.gz")
    options = replace(EXACT, probabilities=tmp_path / "q")
    record = segment_folder(toy, inputs, tmp_path / "out", options)
    assert not record.failed
    mask = mask_of(tmp_path / "out" / "a.nii.gz").transpose()
    probabilities, values = read_probabilities(tmp_path / "q" / "a.npz", mask.shape)
    assert tuple(values) == toy.spec.class_values
    np.testing.assert_allclose(probabilities.sum(axis=0, dtype=np.float32), 1, atol=3e-3)
    with flarekit.load(toy.folder, device="cpu", precision="fp32") as segmenter:
        result = segmenter.segment(inputs / "a_0000.nii.gz", probabilities=True)
    expected = result.probabilities.transpose(0, 3, 2, 1).astype(np.float16)
    np.testing.assert_array_equal(probabilities, expected)


def test_probabilities_among_the_masks_are_refused(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    options = replace(EXACT, probabilities=tmp_path / "out" / "q")
    with pytest.raises(UsageError, match="holds masks and nothing else"):
        segment_folder(toy, inputs, tmp_path / "out", options)
