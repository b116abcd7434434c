import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import SimpleNamespace

import gpu_train
import nibabel
import numpy as np
import pytest
from gpu import cases, pack, table, untrained
from gpu.inputs import _between, folder_of
from gpu.predicting import agreement
from gpu.supervise import Settings, Step, Supervisor
from gpu.tiles import busy_s
from gpu.trace import summary
from gpu.worker import Record
from gpu_check import STEPS, chosen_steps

from flarekit.segmentation.predictors import find_predictor, hash_state, predictor_folders

ROOT = Path(__file__).parents[2]
WORKER = """
import json, os, sys, time
name, settings, result = sys.argv[1:4]
told = json.load(open(settings))
def tell(**values):
    open(result + ".new", "w").write(json.dumps(values))
    os.replace(result + ".new", result)
if name == "fine":  # not before one that hangs beside it
    beside = settings.replace("fine.settings", "hangs.")
    while os.path.exists(beside + "settings") and not os.path.exists(beside + "json"):
        time.sleep(0.02)
tell(first=1, deadline=told["deadline"], path=os.environ["PATH"])
if name == "hangs":
    time.sleep(600)
if name == "crashes":
    sys.exit("the card is on fire")
"""


@pytest.fixture
def now(tmp_path, monkeypatch):
    """Let time stand still for the supervisor until the step that hangs has told something."""
    result, moments = tmp_path / "steps" / "hangs.json", [5000.0]

    def look():
        if result.exists() and len(moments) == 1:
            moments.append(moments[0] + 10.0)
        return moments[-1]

    monkeypatch.setattr("gpu.supervise.time", SimpleNamespace(time=look, sleep=time.sleep))
    return look


@pytest.fixture
def supervise(tmp_path, now):
    """Return a function that runs steps by a small worker for so many seconds."""
    del now
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    settings = Settings(
        device="cpu", quick=True, work=str(tmp_path), out=str(tmp_path), predictors=()
    )

    def run(steps, seconds=60.0):
        supervisor = Supervisor(
            settings,
            tmp_path / "result.json",
            environment=os.environ,
            seconds=seconds,
            facts={"format": "test"},
            say=lambda _: None,
            worker=(sys.executable, str(worker)),
        )
        supervisor.run(steps)
        return json.loads((tmp_path / "result.json").read_text())["steps"]

    return run


@pytest.mark.long
def test_a_step_that_hangs_is_killed_and_keeps_what_it_told(supervise):
    steps = supervise([Step(name="hangs", most_s=0.5), Step(name="fine", most_s=5)])
    assert steps["hangs"]["state"] == "cut"
    assert steps["hangs"]["first"] == 1
    assert steps["fine"]["state"] == "done"


def test_a_step_that_crashes_takes_none_along_and_its_words_are_kept(supervise):
    steps = supervise([Step(name="crashes", most_s=5), Step(name="fine", most_s=5)])
    assert steps["crashes"]["state"] == "failed"
    assert "on fire" in steps["crashes"]["log"]
    assert steps["fine"]["state"] == "done"


@pytest.mark.long
def test_steps_without_time_are_skipped_and_said_so(supervise):
    steps = supervise([Step(name="hangs", most_s=60), Step(name="fine", most_s=5)], seconds=4.5)
    assert steps["hangs"]["state"] == "cut"
    assert steps["fine"] == {"state": "skipped", "why": "0 s were left"}


def test_a_step_is_told_how_long_it_has(supervise, now):
    told = supervise([Step(name="fine", most_s=7)], seconds=30)["fine"]
    assert told["deadline"] == now() + 7


def test_a_step_in_the_background_ends_with_the_last_step(supervise):
    beside = Step(name="hangs", most_s=60, background=True)
    steps = supervise([beside, Step(name="fine", most_s=60)])
    assert (steps["hangs"]["state"], steps["hangs"]["first"]) == ("cut", 1)
    assert steps["fine"]["state"] == "done"


def test_without_a_compiler_nothing_is_on_the_path(supervise, tmp_path):
    steps = supervise([Step(name="fine", most_s=5, without_compiler=True)])
    assert steps["fine"]["path"] == str(tmp_path / "nothing")
    assert not list((tmp_path / "nothing").iterdir())


def test_both_commands_know_every_predictor_that_is_shipped():
    shipped = {folder.name for folder in predictor_folders()}
    assert set(pack.PREDICTORS) == shipped
    assert shipped <= set(gpu_train.DATASETS)


def test_steps_bring_along_what_they_need():
    names = [step.name for step in chosen_steps(["cases"], untrained=True)]
    assert names == ["inputs", "untrained", "cases"]
    assert [step.name for step in chosen_steps(["facts"], untrained=False)] == ["facts"]
    assert len(chosen_steps(None, untrained=True)) == len(STEPS)


# with what these need themselves; without the last two torch runs, and NIfTI and .mha are read
THERE = ("torch", "numpy", "scipy", "psutil", "nvidia-ml-py", "safetensors", "pytest", "hypothesis")
NOT_NEEDED = ("openvino", "simpleitk")


def needs_of(name, found):
    """Collect the names of what an installed package needs, and of what that needs."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in found:
        return
    found.add(name)
    try:
        needs = requires(name) or []
    except PackageNotFoundError:
        return
    for each in needs:
        if "extra ==" not in each:
            needs_of(re.match(r"[\w.-]+", each)[0], found)


def test_what_the_package_needs_is_packed_or_there():
    needed, there = set(NOT_NEEDED), set()
    for name in THERE:
        needs_of(name, there)
    needs_of("flarekit", needed)
    packed = set(pack.PACKAGES)
    assert needed - packed - there - set(NOT_NEEDED) == {"flarekit"}


@pytest.fixture
def weights(tmp_path):
    """Return a folder of three predictors with weights of 20 KiB of fp16 noise each."""
    rng = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        folder = tmp_path / "weights" / name
        folder.mkdir(parents=True)
        noise = rng.normal(size=10_240).astype(np.float16)
        (folder / "model.safetensors").write_bytes(noise.tobytes())
        (folder / "predictor.toml").write_text(f'name = "{name}"')
    return tmp_path / "weights"


def test_a_pack_keeps_to_its_size_and_says_what_it_left_out(tmp_path, weights):
    made = pack.make_pack(
        tmp_path / "pack",
        max_mib=0.04,
        predictors=("one", "two", "three"),
        packages=(),
        weights=weights,
    )
    size = sum(path.stat().st_size for path in (tmp_path / "pack").rglob("*.xz"))
    assert size <= 0.04 * 2**20
    assert made.total_mib == pytest.approx(size / 2**20, abs=0.002)
    assert [name.split(" ")[0] for name in made.left_out] == ["weights/three.xz"]


def test_packed_weights_come_out_as_they_went_in(tmp_path, weights):
    pack.make_pack(
        tmp_path / "pack", max_mib=1, predictors=("one", "two"), packages=(), weights=weights
    )
    names = pack.unpack(tmp_path / "pack", tmp_path / "work", weights)
    assert names == ["one", "two"]
    for name in names:
        for file in ("model.safetensors", "predictor.toml"):
            there = tmp_path / "work" / "weights" / name / file
            assert there.read_bytes() == (weights / name / file).read_bytes()


@pytest.mark.parametrize("packed", [True, False])
def test_a_locator_comes_along_with_its_predictors_once(tmp_path, weights, packed):
    for name in ("one", "two"):
        locator = weights / name / "locator"
        locator.mkdir()
        (locator / "model.safetensors").write_bytes(b"weights of the locator")
        (locator / "predictor.toml").write_text('name = "locator"')
        facts = f'name = "{name}"\n[locator]\nsha256 = "{"0f" * 32}"'
        (weights / name / "predictor.toml").write_text(facts)
    names, folder = ("one", "two"), tmp_path / "pack"
    made = pack.make_pack(folder, max_mib=1, predictors=names, packages=(), weights=weights)
    assert sorted(made.mib) == [f"locators/{'0f' * 32}.xz", "weights/one.xz", "weights/two.xz"]
    if not packed:  # it did not fit, or a pack of an earlier version: the tree may have it
        shutil.rmtree(folder / "locators")
    pack.unpack(folder, tmp_path / "work", weights)
    for name in names:
        for file in ("model.safetensors", "predictor.toml"):
            there = tmp_path / "work" / "weights" / name / "locator" / file
            assert there.read_bytes() == (weights / name / "locator" / file).read_bytes()


@pytest.mark.long
def test_a_predictor_with_random_weights_is_one_without_a_locator(tmp_path):
    facts = (ROOT / "weights" / "mpu_net_liver" / "predictor.toml").read_text()
    assert "[locator]" in facts
    untrained.write(tmp_path / "mpu_net_liver", facts)
    made = find_predictor(str(tmp_path / "mpu_net_liver"))
    assert made.locator is None
    assert made.spec.labels == {"liver": 1}
    assert hash_state(made) == "ok"


def test_where_nothing_was_packed_nothing_is_unpacked(tmp_path):
    assert pack.unpack(tmp_path / "missing", tmp_path / "work") == []


@pytest.mark.parametrize(("dtype", "slope", "intercept"), [(np.int16, 1, 0), (np.uint8, 2, -210)])
def test_a_scan_in_eight_bits_is_within_1_hu_of_what_windows_show(
    tmp_path, dtype, slope, intercept
):
    stored = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(dtype)
    image = nibabel.Nifti1Image(stored, np.diag([1.5, 2.0, 3.0, 1.0]))
    image.header.set_slope_inter(slope, intercept)
    nibabel.save(image, tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(pack.in_eight_bits((tmp_path / "a.nii.gz").read_bytes()))
    before, after = nibabel.load(tmp_path / "a.nii.gz"), nibabel.load(tmp_path / "b.nii.gz")
    assert after.get_data_dtype() == np.uint8
    assert np.array_equal(before.affine, after.affine)
    shown = np.clip(np.asarray(before.dataobj, float), -210, 300)
    assert np.abs(shown - np.asarray(after.dataobj, float)).max() <= 1


def test_slices_beyond_the_end_go_back_as_in_a_mirror():
    base = np.arange(4, dtype=np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    seen = [float(_between(base, place)[0, 0]) for place in (0, 1.5, 3, 4, 6, 7.5)]
    assert seen == [0, 1.5, 3, 2, 0, 1.5]


def test_time_of_overlapping_spans_counts_once():
    assert busy_s([(0.0, 2.0, "a"), (1.0, 3.0, "b"), (5.0, 6.0, "c")]) == 4.0


def test_a_trace_tells_busy_idle_and_copied_time():
    spans = [(0.0, 1.0, "kernel"), (1.5, 2.0, "Memcpy DtoH"), (2.0, 3.0, "kernel")]
    told = summary(spans)
    assert (told["busy_s"], told["idle_s"], told["from_first_to_last_s"]) == (2.5, 0.5, 3.0)
    assert told["copies_s"] == {"Memcpy DtoH": 0.5}
    assert told["longest"][0] == {"what": "kernel", "s": 2.0, "times": 2}


def test_agreement_counts_voxels_and_labels_of_all_masks():
    first = {"a": np.array([[[0, 1, 1, 2]]]), "b": np.array([[[0, 0, 0, 2]]])}
    second = {"a": np.array([[[0, 1, 0, 2]]]), "b": np.array([[[0, 0, 0, 2]]])}
    found = agreement(first, second)
    assert (found["voxels"], found["equal"]) == (8, 0.875)
    assert found["dice"] == {"1": pytest.approx(2 / 3, abs=1e-6), "2": 1.0}


def test_the_table_says_what_is_over_empty_failed_or_missing():
    case = {
        "predictor": "abdomen_ct", "size": 554, "time_s": 16.0, "max_gpu_mib": 5000.0,
        "gpu_area_mib_s": 9000.0, "failures": [], "voxels": {"ct.nii.gz": {}}, "stages": {},
    }  # fmt: skip
    skipped = {"predictor": "abdomen_ct", "size": 55, "skipped": "no time left"}
    result = {
        "steps": {
            "cases": {"state": "cut", "why": "killed", "log": "x\nlast words",
                      "cases": [case, skipped], "errors": {"abdomen_ct 215": "boom"}}
        }
    }  # fmt: skip
    lines = "\n".join(table.lines(result))
    for words in ("OVER", "EMPTY MASK", "no time left", "boom", "last words"):
        assert words in lines


def test_the_table_needs_no_step():
    assert table.lines({}) != []


PREDICTING = """
import sys
from pathlib import Path
Path(sys.argv[sys.argv.index("--output") + 1]).mkdir(parents=True)
"""


@pytest.mark.long
def test_cases_are_measured_by_the_profiler_and_their_reports_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("gpu.cases.PROGRAM", (sys.executable, "-c", PREDICTING))
    settings = Settings(
        device="cpu",
        quick=True,
        work=str(tmp_path),
        out=str(tmp_path / "out"),
        predictors=("abdomen_ct",),
        deadline=time.time() + 600,
    )
    (tmp_path / "out").mkdir()
    for size in (55, 215):
        folder = folder_of(settings, "flare", size)
        folder.mkdir(parents=True)
        scan = nibabel.Nifti1Image(np.zeros((3, 4, size), np.int16), np.eye(4))
        nibabel.save(scan, folder / f"ct{size}_0000.nii.gz")
    record = Record(tmp_path / "told.json")
    for which in ("three", "eight"):
        cases.run(settings, record, which)
    told = json.loads((tmp_path / "told.json").read_text())
    assert "errors" not in told
    assert [(row["size"], row["exit_code"]) for row in told["cases"]] == [(55, 0), (215, 0)]
    assert told["all_in_one"]["exit_code"] == 0
    assert told["cases"][0]["time_s"] > 0
    with tarfile.open(tmp_path / "out" / "reports.tar.gz") as kept:
        names = {Path(name).name for name in kept.getnames()}
    assert {"abdomen_ct", "abdomen_ct_eight", "abdomen_ct_all", "efficiency.json"} <= names


@pytest.mark.slow
def test_a_quick_check_on_the_cpu_runs_all_of_it(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = ["profiling/gpu_check.py", "--device", "cpu", "--quick", "--minutes", "10"]
    done = subprocess.run(
        [sys.executable, *command, "--out", str(tmp_path), "--pack", str(tmp_path / "none")],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu_check.json").read_text())
    states = {name: step["state"] for name, step in result["steps"].items()}
    assert set(states.values()) == {"done"}, done.stdout
    assert not [step for step in result["steps"].values() if "errors" in step], done.stdout
    for row in result["steps"]["cases"]["cases"]:
        assert row["exit_code"] == 0
        assert row["stages"]["tiles"] > 0
    assert result["steps"]["memory"]["rows"][0]["no_limit"]["told"]["cases"][0]["error"] is None
    assert (tmp_path / "reports.tar.gz").is_file()
