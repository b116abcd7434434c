"""Every script of `profiling/` runs with --quick: all of it, small and once."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import accuracy
import accuracy_real_body
import accuracy_recist
import accuracy_validation
import agree_nnunet
import bench_components
import bench_folder
import bench_front_door
import bench_openvino
import bench_page
import bench_peers
import bench_recist
import bench_roofline
import bench_scaling
import bench_scan
import bench_startup
import bounds_scribbles
import fit_scribbles
import half_precision
import load_service
import memory_estimate
import nnunet_folder
import numpy as np
import pathology_pictures
import pytest
import reports
import same_masks

from flarekit.engine._cpu import cpu_runs_bf16
from flarekit.segmentation.predictors import predictor_folders
from tests.processor import AVX2_ONLY, WITH_AVX512, needs_fp16

PROFILING = Path(__file__).parents[2] / "profiling"
PAGE = PROFILING.parent / "flarekit" / "web" / "dist" / "index.html"
# no measurements: what they do, they do in a second
ALWAYS_QUICK = {
    "card.py",
    "commands.py",
    "figures.py",
    "nnunet_folder.py",
    "paper_readings.py",
    "paper_rows.py",
    "peer_nnunet.py",
    "words.py",
}
# stands in for an environment with nnunetv2: says its version, and marks nothing in any scan
PEER = """#!{python}
import json, sys
from pathlib import Path
import nibabel, numpy as np
line = sys.argv[1:]
if line[0] == "-c":
    print("2.8.1")
else:
    scans, masks = (
        (line[line.index("-i") + 1], line[line.index("-o") + 1]) if "-i" in line else line[2:4]
    )
    Path(masks).mkdir(exist_ok=True)
    for scan in Path(scans).iterdir():
        image = nibabel.load(scan)
        mask = nibabel.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine)
        nibabel.save(mask, Path(masks) / scan.name.replace("_0000", ""))
    print(json.dumps({{"import": 0.0}}))
"""


@pytest.fixture
def peer(tmp_path):
    path = tmp_path / "peer"
    path.write_text(PEER.format(python=sys.executable))
    path.chmod(0o755)
    return path


@pytest.fixture
def run(tmp_path):
    """Return a function that runs a script in this process, and returns what it wrote."""

    def run(script, *arguments):
        output = tmp_path / "results"
        script.main([*map(str, arguments), "--quick", "--output", str(output)])
        (path,) = output.glob("*.json")
        return json.loads(path.read_text())

    return run


def test_every_script_has_a_quick_run():
    scripts = {path for path in PROFILING.glob("*.py") if "__main__" in path.read_text()}
    slow = {path.name for path in scripts if "--quick" not in path.read_text()}
    assert slow == ALWAYS_QUICK


def test_a_quick_run_never_replaces_what_was_measured(capsys):
    with pytest.raises(SystemExit):
        bench_scan.main(["--quick"])
    assert "--output" in capsys.readouterr().err


@pytest.mark.quick(1)
@pytest.mark.parametrize("processor", [AVX2_ONLY, WITH_AVX512], ids=["AVX2", "AVX-512"])
def test_tiles_are_timed_beside_products(run, make_predictor, monkeypatch, capsys, processor):
    monkeypatch.setattr("flarekit.engine._cpu._cpu_info", lambda: processor)
    result = run(bench_roofline, make_predictor().folder)
    measured = ["fp32"] if processor == AVX2_ONLY else ["bf16", "fp32"]
    assert [key for key in ("bf16", "fp32") if key in result] == measured
    for precision in measured:
        (tile,) = result[precision]["tiles"].values()
        assert tile["gflop"] > 0
        assert tile["of_peak"] > 0
    assert ("bf16" in result.get("left_out", {})) == (processor == AVX2_ONLY)
    assert ("bf16 is left out" in capsys.readouterr().err) == (processor == AVX2_ONLY)


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted(predictor_folders()), ids=lambda folder: folder.name)
def test_tiles_of_every_predictor_are_timed(run, folder):
    result = run(bench_roofline, folder)
    for precision in ("bf16", "fp32") if cpu_runs_bf16() else ("fp32",):
        assert result[precision]["tiles"][str(folder)]["gflops"] > 0


@pytest.mark.long
def test_components(run):
    assert set(run(bench_components)["maps"]) == {"clean", "speckled"}


def test_scans_by_every_backend(run):
    (row,) = run(bench_scan)["rows"]
    assert "reference" in row["seconds"]


@pytest.mark.slow
def test_the_front_door(run, make_predictor, monkeypatch):
    monkeypatch.delenv("FLAREKIT_ENGINE")  # which the API does not look at
    folder = make_predictor().folder
    result = run(bench_front_door, "--predictor", folder, "--of-memory", folder)
    assert result["scans"]["rounds"]
    assert all(row["same_masks"] for row in result["scans"]["rounds"])


@pytest.mark.slow
def test_a_service_under_load_that_is_killed_in_the_middle(run, make_predictor):
    result = run(load_service, "--predictor", make_predictor().folder)
    assert result["became"]["lost"] == result["became"]["masks_that_changed"] == 0
    assert set(result["became"]["states"]) <= {"done"}


@pytest.mark.browser
@pytest.mark.slow
def test_from_the_drop_of_a_scan_on_the_page_to_its_organs(run, make_predictor):
    if shutil.which("chromium") is None or not PAGE.is_file():
        pytest.skip("needs Debian's chromium and make web")
    pytest.importorskip("playwright")
    result = run(bench_page, "--predictor", make_predictor().folder, "--repeats", "1")
    assert result["median_drop_to_organs_s"] > result["later"][0]["segmented_s"] > 0


@pytest.mark.slow
def test_networks_in_openvino(run):
    row = run(bench_openvino)["networks"]["nnunet"]
    assert row["classes_equal_fp32"] > 0.99


@pytest.mark.slow
def test_a_folder_of_scans_beside_nnunetv2(run, peer, make_predictor, make_dataset):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    shutil.copy(peer, peer.parent / "nnUNetv2_predict_from_modelfolder")
    scans = make_dataset() / "imagesTr"
    folder = make_predictor(labels={"liver": 1, "spleen": 2}).folder
    ways = run(bench_folder, scans, "--nnunet", peer, "--predictor", folder)["ways"]
    assert len(ways) == 5
    assert all(way["seconds"] > 0 for way in ways.values())


@pytest.mark.slow
def test_peers(run, peer, make_predictor, make_dataset):
    scans = make_dataset() / "imagesTr"
    folder = make_predictor(labels={"liver": 1, "spleen": 2}).folder
    result = run(bench_peers, scans, "--nnunet", peer, "--predictor", folder)
    (case,) = result["cases"].values()
    ours = {way for way in bench_peers.OURS if cpu_runs_bf16() or way != "exact_bf16"}
    assert set(case) == {"shape", "nnunetv2", *ours}


@pytest.mark.slow
def test_agreement_with_nnunet(run, peer, make_predictor, make_dataset):
    scans = make_dataset() / "imagesTr"
    folder = make_predictor(labels={"liver": 1, "spleen": 2}).folder
    result = run(agree_nnunet, scans, "--nnunet", peer, "--predictor", folder)
    assert len(result["flarekit_fp32_against_nnunetv2"]) == 1


def test_a_predictor_becomes_an_nnunet_result(make_predictor, tmp_path):
    nnunet_folder.main(str(make_predictor().folder), tmp_path / "result")
    plans = json.loads((tmp_path / "result" / "plans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["patch_size"] == [16, 16, 16]


@pytest.mark.slow
def test_scaling(run, make_predictor):
    (row,) = run(bench_scaling, "--predictor", make_predictor().folder)["rows"]
    assert row["unlimited"]["tiles"] > 0


@pytest.mark.slow
def test_the_start(run, make_predictor):
    result = run(bench_startup, "--predictor", make_predictor().folder)
    until = result["bare"]["seconds_until"]
    assert until["python"] < until["first tile"]


def test_half_precision_is_not_measured_where_the_processor_has_none(run, monkeypatch, capsys):
    monkeypatch.setattr("measured._computes_in", lambda precision: precision == "fp32")
    with pytest.raises(SystemExit):
        run(half_precision)
    said = capsys.readouterr().err
    assert "fp16 is left out" in said
    assert "bf16 is left out" in said
    assert "nothing to measure on this processor" in said


@needs_fp16
def test_half_precision(run, make_predictor):
    (row,) = run(half_precision, make_predictor().folder)["networks"].values()
    for half in ("fp16", "bf16"):
        assert row[half]["finite_tiles"] == 1
        assert row[half]["equal_voxels"] > 0.9


@pytest.mark.long
def test_memory_is_estimated_beside_what_is_counted(run, make_predictor):
    (row,) = run(memory_estimate, make_predictor().folder)["networks"].values()
    assert ("bf16" in row) == cpu_runs_bf16()
    for precision in row.keys() & {"bf16", "fp32"}:
        assert row[precision]["counted_mib"] > 0
        assert row[precision]["ratio"] == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_accuracy(run, make_predictor):
    folder = make_predictor().folder
    line = ["tiny", "--predictor-folder", folder, "--split", "phantoms", "--device", "cpu"]
    result = run(accuracy, *line)
    assert len(result["cases"]) == 1


@pytest.mark.slow
def test_one_body(make_predictor, write_scan, tmp_path, capsys):
    suv = np.zeros((48, 64, 64), np.float32)
    suv[8:40, 16:48, 16:48] = 1
    write_scan(tmp_path / "x_suv.nii.gz", suv)
    folder = make_predictor("autopet", {"lesion": 1}, channels=2).folder
    line = [str(folder), "--pets", str(tmp_path), "--case", "x", "--device", "cpu", "--quick"]
    path = tmp_path / "found.json"
    assert accuracy_real_body.main([*line, "--output", str(path)]) == 0
    assert "x, CT flat, 20 HU: no outlined lesion" in capsys.readouterr().out
    assert [body["case"] for body in json.loads(path.read_text())["bodies"]] == ["x"]


@pytest.mark.slow
def test_one_validation_case(make_predictor, make_dataset, tmp_path, capsys):
    folder, path = make_predictor("uls23", {"lesion": 1}).folder, tmp_path / "new" / "dice.json"
    line = [str(folder), "--data", str(make_dataset()), "--split", "held_out", "--quick"]
    assert accuracy_validation.main([*line, "--device", "cpu", "--output", str(path)]) == 0
    assert ": 1 cases, mean" in capsys.readouterr().out
    assert [len(cases) for cases in json.loads(path.read_text()).values()] == [1]


@pytest.mark.slow
def test_files_with_lines(run, make_predictor):
    result = run(bench_recist, make_predictor("uls23", {"lesion": 1}).folder)
    assert [each["lines"] for each in result["files"]] == [1]
    assert result["files"][0]["cpu_s"] > 0


@pytest.mark.slow
def test_a_line_across_a_lesion(make_predictor, make_dataset, tmp_path, capsys):
    folder, path = make_predictor("uls23", {"lesion": 1}).folder, tmp_path / "new" / "dice.json"
    line = [str(folder), "--data", str(make_dataset()), "--split", "held_out", "--quick"]
    assert accuracy_recist.main([*line, "--output", str(path)]) == 0
    assert set(json.loads(path.read_text())) == {"with the line", "without"}
    said = capsys.readouterr().out
    assert "with the line" in said
    assert ": 1 lesions, Dice mean" in said


def crop_with_a_moved_mask():
    truth = np.zeros((10, 24, 24), bool)
    truth[2:8, 6:18, 6:18] = True
    mask = np.roll(truth, 3, axis=2)
    return fit_scribbles.Crop(
        case_id="a",
        mask_ZYX=mask,
        truth_ZYX=truth,
        uptake_ZYX=np.where(truth, 5.0, 1.0),
        spacing_mm=(3.0, 4.0, 4.0),
        probability_ZYX=np.where(mask, 0.9, 0.1),
    )


@pytest.mark.long
def test_how_far_scribbles_could_bring_a_mask():
    found = bounds_scribbles.bounds([crop_with_a_moved_mask()])
    steps, lesion = found["steps"], found["of a whole lesion"]
    assert {curve[0] for curve in steps.values()} == {0.75}
    assert steps["whole component"][2:] == [1.0] * 4
    reached = [curve[-1] for name, curve in steps.items() if name.startswith("within")]
    assert reached == sorted(reached)
    assert reached[0] > 0.75
    assert lesion["no scribble"] == lesion["best probability"] == 0.75
    assert lesion["best logistic function"] > 0.95  # uptake shows this lesion


@pytest.mark.slow
def test_a_network_that_moves_borders():
    crop = crop_with_a_moved_mask()
    network, rounds = fit_scribbles.fit([crop], rounds=1, folds=0)
    assert [len(weights) for weights, _ in network.layers[1:]] == list(fit_scribbles.HIDDEN)
    assert rounds[0]["calls"] >= 20
    assert rounds[0]["dice"][-1] > rounds[0]["dice"][0] == 0.75
    found = fit_scribbles.by_the_rule([crop])
    assert found["dice"]
    assert all(own["a"][-1] > own["a"][0] for own in found["dice"].values())


@pytest.mark.slow
def test_the_same_masks_of_two_checkouts(make_predictor, make_dataset, tmp_path):
    checkout = tmp_path / "checkout"
    (checkout / "weights").mkdir(parents=True)
    (checkout / "flarekit").symlink_to(PROFILING.parent / "flarekit")
    shutil.copytree(make_predictor().folder, checkout / "weights" / "abdomen_ct")
    make_dataset().rename(tmp_path / "Dataset001_Abdomen")
    results = [tmp_path / "old" / "masks.json", tmp_path / "new" / "masks.json"]
    for path in results:
        line = ["--checkout", checkout, "--data", tmp_path, "--output", path, "--quick"]
        same_masks.main(["run", *map(str, line)])
    compared = tmp_path / "compared" / "same.json"
    same_masks.main(["compare", *map(str, results), "--output", str(compared)])
    run = json.loads(compared.read_text())["abdomen_ct fast"]
    assert (run["masks"], run["different"]) == (1, [])


@pytest.mark.slow
def test_a_report(make_predictor, tmp_path):
    folder = make_predictor().folder
    with pytest.raises(SystemExit) as end:
        reports.main([str(folder), "--quick", "--output", str(tmp_path / "results")])
    assert end.value.code == 0
    assert (tmp_path / "results" / "reports" / "tiny" / "efficiency.html").is_file()


@pytest.mark.slow
@pytest.mark.data
def test_a_picture_of_a_change(shared, tmp_path):
    picture = tmp_path / "new" / "pathology.webp"
    pathology_pictures.main([str(shared / "data" / "Dataset001_Abdomen"), str(picture), "--quick"])
    assert picture.stat().st_size > 10_000
