from __future__ import annotations

import json
from pathlib import Path

import pytest

from flarekit.core.errors import InputError, OutputError
from flarekit.core.readings import Unsupported
from flarekit.profiler.compare import compare
from flarekit.profiler.environment import environment
from flarekit.profiler.folder import ReportFolder, samples_of
from flarekit.profiler.load_report import load_report
from flarekit.profiler.official import record_of
from flarekit.profiler.records import Tolerances, read_report_json, write_report_json
from flarekit.profiler.reference import references
from flarekit.profiler.step_times import read_step_times
from flarekit.profiler.stream import SampleFile
from tests.profiler.made import made_case, made_report, made_samples

GONE = Unsupported(not_supported="no driver")
INSIDE = {
    "predictor": "abdomen_ct",
    "engine": "openvino",
    "device": "cpu",
    "seconds": {"load": 2.0},
    "wall_s": 5.0,
    "cases": [
        {"case_id": "a", "seconds": {"read": 0.5, "rules": 0.25, "tiles": 1.0}, "wall_s": 4.0},
        {"case_id": "b", "seconds": {"read": 0.25, "new": 1.0}, "wall_s": 1.0, "error": "bad"},
    ],
}


def on_disk(root, *cases):
    """Write a report with its samples."""
    report, folder = made_report(*cases), ReportFolder(root, "team")
    folder.make()
    for case in cases:
        samples = made_samples([100.0, 5000.0, 100.0])
        folder.record(case.name).write_bytes(record_of(samples, case.wall_s).content())
        stream = SampleFile(folder.samples(case.name), {"case_id": case.case_id})
        for sample in samples:
            stream.write(sample)
        stream.close()
    folder.write(report)
    return report, folder


def test_a_report_is_read_back_as_it_was(tmp_path):
    report = made_report(made_case(), made_case("b_0000", gpu=(GONE,), failures=("exit code 1",)))
    write_report_json(report, tmp_path / "efficiency.json")
    assert read_report_json(tmp_path / "efficiency.json") == report


def test_not_supported_is_a_value_of_its_own_on_disk(tmp_path):
    write_report_json(made_report(made_case(gpu=(GONE,))), tmp_path / "efficiency.json")
    case = json.loads((tmp_path / "efficiency.json").read_text())["cases"][0]
    assert case["measured"]["gpu_used_mib"] == {"not_supported": "no driver"}
    assert "not_supported" in case["official"]["max_gpu_mib"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is not JSON"), (json.dumps(INSIDE), "predict --report"), (None, "cannot be read")],
)
def test_another_file_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "efficiency.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_report_json(path)


def test_a_profile_with_a_field_missing_names_it(tmp_path):
    write_report_json(made_report(made_case()), tmp_path / "e.json")
    content = json.loads((tmp_path / "e.json").read_text())
    del content["cases"][0]["wall_s"]
    (tmp_path / "e.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"cases\.0\.wall_s"):
        read_report_json(tmp_path / "e.json")


def test_a_crash_loses_the_running_case_s_end_only(tmp_path):
    report, folder = on_disk(tmp_path, made_case())
    stream = SampleFile(
        folder.samples("b_0000"), {"case_id": "b", "shape_XYZ": [5, 6, 7], "began": "now"}
    )
    for sample in made_samples([100.0, 200.0, 300.0]):
        stream.write(sample)
    stream.close()
    found, _ = load_report(tmp_path)
    assert found.cases[0] == report.cases[0]
    lost = found.cases[1]
    assert (lost.name, lost.case_id, lost.slices) == ("b_0000", "b", 7)
    assert lost.failures == ("the profile was interrupted 0.2 s after the start",)
    assert lost.maximum("gpu_used_mib") == 300


def test_other_tolerances_change_what_exceeds_them(tmp_path):
    on_disk(tmp_path, made_case())
    found, _ = load_report(tmp_path, Tolerances(time_s=5, gpu_mib=2048))
    excess = found.cases[0].excess
    assert excess.gpu_max_mib == 5000 - 2048
    assert excess.gpu_area_mib_s == pytest.approx((5000 - 2048) * 0.1)
    assert excess.time_s == 4.0


def test_a_new_profile_in_the_folder_leaves_nothing_of_the_old_one(tmp_path):
    _, folder = on_disk(tmp_path, made_case())
    folder.make()
    assert not folder.samples("a_0000").exists()
    assert not folder.record("a_0000").exists()


def test_a_folder_that_is_no_report_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no efficiency\.json"):
        load_report(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_report(tmp_path / "none")


def test_samples_are_read_for_drawing(tmp_path):
    report, folder = on_disk(tmp_path, made_case())
    assert len(samples_of(report.cases[0], folder)) == 3


def test_two_reports_are_compared_case_by_case():
    first = made_report(made_case(time_s=10.0), made_case("b_0000"))
    second = made_report(made_case(time_s=5.0, gpu=(GONE,)), made_case("c_0000"))
    result = compare(first, second)
    ratios = {pair.figure: pair.ratio for pair in result.pairs}
    assert ratios["time (s)"] == 0.5
    assert isinstance(ratios["max GPU (MiB)"], Unsupported)
    assert (result.only_first, result.only_second) == (("b_0000",), ("c_0000",))


def test_what_was_nothing_has_no_ratio():
    first = made_report(made_case(time_s=1.0, gpu=(0.0, 0.0)))
    second = made_report(made_case(time_s=2.0, gpu=(10.0, 10.0)))
    ratios = {pair.figure: pair.ratio for pair in compare(first, second).pairs}
    assert ratios["time (s)"] == 2.0
    nothing = Unsupported(not_supported="nothing to divide by")
    assert ratios["max GPU (MiB)"] == nothing


def test_stages_from_inside_are_seen_from_outside(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**INSIDE, "cases": 2}))
    lines = [json.dumps(case) + "\n" for case in INSIDE["cases"]]
    path.with_name("ledger.jsonl").write_text("".join(lines))
    inside = read_step_times(path)
    assert inside.stages(wall_s=6.0, started_s=0.75) == {
        "start": 0.75,
        "load": 2.0,
        "read": 0.75,
        "tiles": 1.0,
        "components": 0.25,
        "exit": 0.25,
        "new": 1.0,
    }
    assert inside.traits == {"predictor": "abdomen_ct", "engine": "openvino", "device": "cpu"}
    assert inside.cases[1].error == "bad"
    assert "start" not in inside.stages(wall_s=6.0, started_s=None)


def test_a_record_without_stages_is_refused(tmp_path):
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(InputError, match="has no times of steps"):
        read_step_times(tmp_path / "e.json")


def test_references_are_the_paper_s_and_marked_as_other_hardware():
    known = references()
    assert len(known.cases) == 8
    assert (known.cases[0].shape_XYZ, known.cases[0].time_s) == ((512, 512, 55), 39.59)
    assert known.cases[-1].gpu_area_mib_s == 762258
    assert len(known.anchors) == 10


def test_files_that_no_profile_left_are_never_removed(tmp_path):
    note = tmp_path / "logs" / "my notes.txt"
    note.parent.mkdir()
    note.write_text("precious")
    folder = ReportFolder(tmp_path, "team")
    with pytest.raises(OutputError, match="my notes.txt: would be removed"):
        folder.make()
    assert note.read_text() == "precious"
    folder.json.write_text("{}")  # a profile's own folder is emptied
    folder.make()
    assert not note.exists()


def test_the_processor_is_called_as_the_kernel_calls_it():
    known = Path("/proc/cpuinfo").read_text().splitlines()
    models = {line.partition(":")[2].strip() for line in known if line.startswith("model name")}
    if not models:
        pytest.skip("the kernel has no name for it")
    assert environment("0")["cpu"] in models
