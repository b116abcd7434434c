from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import nibabel
import numpy as np
import psutil
import pytest
import SimpleITK
import torch

import flarekit
from flarekit import engine
from flarekit.core.errors import (
    BudgetError,
    DeviceError,
    InputError,
    OutputError,
    PredictorError,
    UnreadableVolumeError,
    UsageError,
    WeightsHashError,
)
from flarekit.segmentation import segmenter as segmenter_module
from flarekit.segmentation.folder import Options, segment_folder
from flarekit.segmentation.source import Source

COS, SIN = np.cos(0.1), np.sin(0.1)
OBLIQUE = np.array([[-1, 0, 0, 30], [0, -COS, SIN, -8], [0, SIN, COS, 4], [0, 0, 0, 1]])
OBLIQUE = OBLIQUE @ np.diag([1.9, 1.9, 2.5, 1.0])


def voxels_of(shape=(9, 20, 14), seed=0):
    return np.random.default_rng(seed).integers(-200, 300, shape).astype(np.int16)


@pytest.fixture
def loaded(toy):
    with flarekit.load(toy.folder, device="cpu", precision="fp32") as segmenter:
        yield segmenter


@pytest.fixture
def scan(tmp_path, write_scan):
    return write_scan(tmp_path / "scan.nii.gz", voxels_of(), OBLIQUE)


def test_labels_of_a_path_are_those_of_the_folder_run_and_lie_as_nibabel_loads_them(
    loaded, toy, scan, tmp_path
):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a_0000.nii.gz").symlink_to(scan)
    options = Options(device="cpu", precision="fp32")
    assert not segment_folder(toy, tmp_path / "in", tmp_path / "out", options).failed
    mask = np.asarray(nibabel.load(tmp_path / "out" / "a.nii.gz").dataobj)
    result = loaded.segment(scan)
    assert result.axes == "xyz"
    assert result.labels.dtype == np.uint8
    assert result.labels.any()
    np.testing.assert_array_equal(result.labels, mask)
    np.testing.assert_array_equal(loaded.segment(str(scan)).labels, mask)


def test_every_kind_of_input_gives_the_same_labels_in_its_own_order(loaded, scan, tmp_path):
    from_path = loaded.segment(scan)
    image, sitk = nibabel.load(scan), SimpleITK.ReadImage(str(scan))
    SimpleITK.WriteImage(sitk, str(tmp_path / "scan.mha"))
    in_memory = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    of_one_time = nibabel.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine)
    for given in (image, in_memory, of_one_time, tmp_path / "scan.mha", [scan]):
        result = loaded.segment(given)
        assert result.axes == "xyz"
        np.testing.assert_array_equal(result.labels, from_path.labels)
    array = np.asarray(image.dataobj).T
    for result in (
        loaded.segment(sitk),
        loaded.segment(array, affine=image.affine),
        loaded.segment(array[None], affine=image.affine),
        loaded.segment(torch.from_numpy(array.copy()), affine=image.affine),
    ):
        assert result.axes == "zyx"
        np.testing.assert_array_equal(result.labels.T, from_path.labels)


def test_a_scaled_image_is_computed_as_its_file_is(loaded, tmp_path):
    image = nibabel.Nifti1Image(voxels_of().T, OBLIQUE)
    image.header.set_slope_inter(0.37, -11.3)
    path = tmp_path / "scaled.nii"
    nibabel.save(image, path)
    of_file, of_image = loaded.segment(path), loaded.segment(nibabel.load(path))
    np.testing.assert_array_equal(of_file.labels, of_image.labels)


def test_an_array_with_spacing_points_to_superior_posterior_and_left(loaded):
    voxels = voxels_of()
    result = loaded.segment(voxels, spacing_mm=(2.5, 2.0, 1.5))
    np.testing.assert_array_equal(result.affine, np.diag([-1.5, -2.0, 2.5, 1.0]))
    flipped = loaded.segment(voxels[::-1, :, ::-1], affine=np.diag([1.5, -2.0, -2.5, 1.0]))
    np.testing.assert_array_equal(flipped.labels[::-1, :, ::-1], result.labels)


def test_volumes_are_counted_in_ml_and_labels_are_named(loaded):
    result = loaded.segment(voxels_of(), spacing_mm=(2.5, 2.0, 1.5))
    assert result.label_names == loaded.label_names == {1: "organ", 4: "lesion"}
    for value, name in result.label_names.items():
        count = np.count_nonzero(result.labels == value)
        assert result.volumes_ml[name] == pytest.approx(count * 2.5 * 2.0 * 1.5 / 1000)
    assert result.seconds >= sum(result.stage_seconds.values()) * 0.9
    assert (result.traded, result.warnings, result.probabilities) == ((), (), None)


@pytest.mark.parametrize("decide", ["network", "scan"])
def test_probabilities_sum_to_one_and_their_largest_is_the_label(toy, scan, decide):
    path = toy.folder / "predictor.toml"
    facts = path.read_text().replace("step = 0.5", f'step = 0.5\ndecide = "{decide}"')
    path.write_text(facts[: facts.index("[[rules]]")] + facts[facts.index("[weights]") :])
    with flarekit.load(toy.folder, device="cpu", precision="fp32") as segmenter:
        plain = segmenter.segment(scan)
        result = segmenter.segment(scan, probabilities=True)
    np.testing.assert_array_equal(result.labels, plain.labels)
    assert result.probabilities.shape == (3, *result.labels.shape)
    np.testing.assert_allclose(result.probabilities.sum(axis=0), 1, atol=1e-5)
    values = np.array([0, 1, 4])[result.probabilities.argmax(axis=0)]
    assert (values == result.labels).mean() > (0.999 if decide == "scan" else 0.7)


def test_what_was_not_looked_at_is_certainly_background(toy):
    path = toy.folder / "predictor.toml"
    facts = path.read_text().replace("[grid]", "[crop]\nthreshold = 0\nmargin_mm = 2\n\n[grid]")
    path.write_text(facts)
    voxels = np.full((24, 40, 40), -1000, np.int16)
    voxels[8:16, 10:20, 10:20] = 100
    with flarekit.load(toy.folder, device="cpu", precision="fp32") as segmenter:
        probabilities = segmenter.segment(
            voxels, spacing_mm=(2, 2, 2), probabilities=True
        ).probabilities
    assert (probabilities[0, :4] == 1).all()
    assert not probabilities[1:, :4].any()
    assert (probabilities[0, 10:14, 12:18, 12:18] < 1).all()


def test_large_probabilities_lie_in_a_file_that_goes_with_them(loaded, scan, monkeypatch):
    small = loaded.segment(scan, probabilities=True).probabilities
    monkeypatch.setattr("flarekit.segmentation.labelling._MOST_IN_MEMORY", 100)
    large = loaded.segment(scan, probabilities=True).probabilities
    assert isinstance(large, np.memmap)
    assert not isinstance(small, np.memmap)
    np.testing.assert_array_equal(large, small)


def test_a_disk_without_room_for_probabilities_is_said(loaded, scan, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flarekit.segmentation.labelling._MOST_IN_MEMORY", 100)
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OutputError, match="no room for .* MiB of probabilities"):
        loaded.segment(scan, probabilities=True)


@pytest.mark.parametrize(
    ("given", "how", "words"),
    [
        (voxels_of(), {}, "neither spacing_mm nor affine"),
        (voxels_of(), {"spacing_mm": (1, 1, 1), "affine": np.eye(4)}, "both are given"),
        (voxels_of(), {"spacing_mm": (1, 1)}, "not three positive numbers"),
        (voxels_of(), {"spacing_mm": (1, 0, 1)}, "not three positive numbers"),
        (voxels_of(), {"spacing_mm": (1, float("nan"), 1)}, "not three positive numbers"),
        (voxels_of(), {"affine": np.eye(3)}, "shape .3, 3."),
        (voxels_of(), {"affine": np.zeros((4, 4))}, "singular"),
        ("scan.nii.gz", {"spacing_mm": (1, 1, 1)}, "has its own geometry"),
        ([voxels_of(), voxels_of()], {"spacing_mm": (1, 1, 1)}, "2 channels given, toy takes 1"),
        (7, {}, "int is not a scan"),
        ([], {}, "0 channels given"),
    ],
)
def test_what_is_no_scan_or_has_no_geometry_is_refused(loaded, given, how, words):
    with pytest.raises(UsageError, match=words):
        loaded.segment(given, **how)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.zeros((4, 4)), "shape .4, 4."),
        (np.zeros((0, 4, 4)), "shape .0, 4, 4."),
        (np.zeros((4, 4, 4), complex), "complex128"),
        (np.zeros((4, 4, 4), object), "object"),
    ],
)
def test_arrays_that_no_scan_can_be_are_refused(loaded, given, words):
    with pytest.raises(InputError, match=words):
        loaded.segment(given, spacing_mm=(1, 1, 1))


def test_files_that_cannot_be_read_are_named(loaded, tmp_path):
    with pytest.raises(UnreadableVolumeError, match=r"none.nii.gz: cannot be opened"):
        loaded.segment(tmp_path / "none.nii.gz")
    with pytest.raises(InputError, match="is a folder, not one scan"):
        loaded.segment(tmp_path)


def test_voxels_that_are_no_number_count_as_air_and_are_told(loaded):
    voxels = voxels_of().astype(np.float64)
    voxels[3, 4, 5] = np.nan
    result = loaded.segment(voxels, spacing_mm=(2, 2, 2))
    assert "1 voxels are not finite" in result.warnings[0]


def test_a_mask_of_an_image_in_memory_keeps_what_its_header_says(loaded, scan, tmp_path):
    image = nibabel.load(scan)
    image.header["descrip"] = b"of the third visit"
    kept = nibabel.load(loaded.segment(image).save(tmp_path / "a.nii.gz"))
    assert bytes(kept.header["descrip"]).startswith(b"of the third visit")
    other = nibabel.MGHImage(np.asarray(image.dataobj, np.float32), image.affine)
    mask = nibabel.load(loaded.segment(other).save(tmp_path / "b.nii.gz"))
    np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)


def test_a_mask_has_the_scan_s_own_header(loaded, scan, tmp_path):
    result = loaded.segment(scan)
    mask = nibabel.load(result.save(tmp_path / "mask.nii.gz"))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), result.labels)
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, nibabel.load(scan).affine)
    read = SimpleITK.ReadImage(str(result.save(tmp_path / "mask.mha")))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(read).T, result.labels)
    original = SimpleITK.ReadImage(str(scan))
    assert read.GetOrigin() == pytest.approx(original.GetOrigin(), abs=1e-4)
    assert read.GetDirection() == pytest.approx(original.GetDirection(), abs=1e-4)


@pytest.mark.parametrize("kind", ["array", "sitk", "mha", "nibabel", "path"])
def test_results_become_images_that_lie_where_the_scan_lies(loaded, scan, tmp_path, kind):
    image, sitk = nibabel.load(scan), SimpleITK.ReadImage(str(scan))
    SimpleITK.WriteImage(sitk, str(tmp_path / "scan.mha"))
    given = {"sitk": sitk, "mha": tmp_path / "scan.mha", "nibabel": image, "path": scan}
    if kind == "array":
        result = loaded.segment(np.asarray(image.dataobj).T, affine=image.affine)
    else:
        result = loaded.segment(given[kind])
    labels_XYZ = result.labels if result.axes == "xyz" else result.labels.T
    as_nibabel, as_sitk = result.to_nibabel(), result.to_sitk()
    np.testing.assert_array_equal(np.asarray(as_nibabel.dataobj), labels_XYZ)
    np.testing.assert_allclose(as_nibabel.affine, image.affine, atol=1e-4)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(as_sitk).T, labels_XYZ)
    np.testing.assert_allclose(as_sitk.GetOrigin(), sitk.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(as_sitk.GetSpacing(), sitk.GetSpacing(), atol=1e-4)
    saved = nibabel.load(result.save(tmp_path / "saved.nii"))
    np.testing.assert_array_equal(np.asarray(saved.dataobj), labels_XYZ)
    np.testing.assert_allclose(saved.affine, image.affine, atol=1e-4)


def test_a_scan_is_never_replaced_by_its_mask(loaded, scan, tmp_path):
    before = scan.read_bytes()
    (tmp_path / "link.nii.gz").symlink_to(scan)
    result = loaded.segment(scan)
    for path in (scan, tmp_path / "link.nii.gz", tmp_path / "x" / ".." / "scan.nii.gz"):
        with pytest.raises(OutputError):
            result.save(path)
    assert scan.read_bytes() == before
    with pytest.raises(UsageError, match="written as"):
        result.save(tmp_path / "mask.png")
    with pytest.raises(OutputError):
        result.save(tmp_path / "no_such_folder" / "mask.nii.gz")


def test_several_channels_come_as_a_list_or_as_one_array(make_toy, tmp_path, write_scan):
    toy = make_toy(channels=2)
    paths = [write_scan(tmp_path / f"{k}.nii.gz", voxels_of(seed=k)) for k in range(2)]
    with flarekit.load(toy.folder, device="cpu", precision="fp32") as segmenter:
        expected = segmenter.segment(paths)
        images = segmenter.segment([nibabel.load(path) for path in paths])
        array = np.stack([np.asarray(nibabel.load(path).dataobj).T for path in paths])
        affine = nibabel.load(paths[0]).affine
        np.testing.assert_array_equal(images.labels, expected.labels)
        for given in (array, list(array)):
            result = segmenter.segment(given, affine=affine)
            np.testing.assert_array_equal(result.labels.T, expected.labels)
        with pytest.raises(UsageError, match="several kinds"):
            segmenter.segment([paths[0], array[1]])
        with pytest.raises(UsageError, match="1 channels given, toy takes 2"):
            segmenter.segment(paths[0])


def test_a_ct_is_brought_onto_the_voxels_of_its_pet_and_that_is_told(
    make_toy, tmp_path, write_scan
):
    toy = make_toy(channels=2)
    path = toy.folder / "predictor.toml"
    first, second = path.read_text().split('name = "CT"', 1)
    path.write_text(first + 'name = "CT"' + second.replace('name = "CT"', 'name = "PET"', 1))
    ct = write_scan(tmp_path / "ct.nii.gz", voxels_of((18, 40, 28)), np.diag([1.0, 1.0, 1.0, 1]))
    pet = write_scan(tmp_path / "pet.nii.gz", voxels_of(seed=1), np.diag([2.0, 2.0, 2.0, 1]))
    with flarekit.load(toy.folder, device="cpu") as segmenter:
        result = segmenter.segment([ct, pet])
    assert result.labels.shape == (14, 20, 9)
    assert "another grid" in " ".join(result.warnings)


@pytest.mark.long
def test_threads_that_share_a_segmenter_get_what_one_alone_gets(loaded):
    scans = [voxels_of((9 + k, 20, 14), seed=k) for k in range(4)]

    def labels_of(voxels):
        return loaded.segment(voxels, spacing_mm=(2, 2, 2)).labels

    alone = [labels_of(voxels) for voxels in scans]
    with ThreadPoolExecutor(max_workers=4) as threads:
        together = list(threads.map(labels_of, scans * 3))
    for index, labels in enumerate(together):
        np.testing.assert_array_equal(labels, alone[index % 4])


def test_the_engine_starts_once_however_many_threads_ask(toy, monkeypatch):
    starts = []
    genuine = engine.create
    monkeypatch.setattr(engine, "create", lambda *a, **k: starts.append(1) or genuine(*a, **k))
    segmenter = segmenter_module.Segmenter(Source.of_folder(toy))
    threads = [threading.Thread(target=segmenter.start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    segmenter.segment(voxels_of(), spacing_mm=(2, 2, 2))
    assert starts == [1]


def test_a_segmenter_can_be_closed_and_opened_again(toy):
    segmenter = flarekit.load(toy.folder, device="cpu", precision="fp32")
    before = segmenter.segment(voxels_of(), spacing_mm=(2, 2, 2)).labels
    with segmenter:
        assert not segmenter.closed
    assert segmenter.closed
    with pytest.raises(UsageError, match="this segmenter is closed"):
        segmenter.segment(voxels_of(), spacing_mm=(2, 2, 2))
    segmenter.close()
    with segmenter:
        again = segmenter.segment(voxels_of(), spacing_mm=(2, 2, 2)).labels
    np.testing.assert_array_equal(again, before)
    assert not segmenter.reopen().closed


def test_nothing_of_a_scan_is_kept_once_its_result_is_gone(loaded, monkeypatch):
    kept = []
    genuine = segmenter_module.compute_case

    def noted(ready, *how):
        kept.extend(map(weakref.ref, (ready.plan, ready.tensor_CZYX)))
        return genuine(ready, *how)

    monkeypatch.setattr(segmenter_module, "compute_case", noted)
    gc.disable()  # they go by themselves, not when somebody collects garbage
    try:
        result = loaded.segment(voxels_of(), spacing_mm=(2, 2, 2), probabilities=True)
        kept += [weakref.ref(result.labels), weakref.ref(result.probabilities)]
        del result
        assert [ref() for ref in kept] == [None] * 4
    finally:
        gc.enable()


@pytest.mark.long
def test_memory_after_many_scans_is_that_after_two(loaded):
    process, resident = psutil.Process(), []
    for number in range(25):
        voxels = np.full((20, 100 + number % 3, 100), number, np.int16)
        loaded.segment(voxels, spacing_mm=(0.8, 0.4, 0.4), probabilities=True)
        resident.append(process.memory_info().rss / 2**20)
    # one scan's probabilities are 2.3 MiB
    assert min(resident[-5:]) - max(resident[1:3]) < 10


def test_a_module_of_one_s_own_is_segmented_with_and_stays_as_it_is():
    module = torch.nn.Conv3d(1, 3, 3, padding=1)
    module.train()
    facts = {
        "channels": [{"name": "MR", "intensity": {"kind": "z_score"}}],
        "grid": {"spacing_mm_ZYX": [2.0, 2.0, 2.0], "tile_ZYX": [8, 16, 16]},
        "labels": {"a": 1, "b": 2},
    }
    with flarekit.load(module=module, facts=facts, device="cpu", precision="fp32") as segmenter:
        result = segmenter.segment(voxels_of(), spacing_mm=(2, 2, 2), probabilities=True)
        assert segmenter.facts.engine == "torch"
    assert set(np.unique(result.labels)) <= {0, 1, 2}
    assert result.volumes_ml.keys() == {"a", "b"}
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, "channels is missing"),
        ({"labels": {"a": 0}}, "labels.a"),
    ],
)
def test_facts_of_a_module_that_do_not_hold_together_are_refused(facts, words):
    module = torch.nn.Conv3d(1, 2, 1)
    with pytest.raises(PredictorError, match=words):
        flarekit.load(module=module, facts=facts)


def test_a_module_with_other_classes_than_its_labels_is_refused():
    facts = {
        "channels": [{"name": "MR", "intensity": {"kind": "z_score"}}],
        "grid": {"spacing_mm_ZYX": [2.0, 2.0, 2.0], "tile_ZYX": [8, 16, 16]},
        "labels": {"a": 1, "b": 2},
    }
    module = torch.nn.Conv3d(1, 2, 1)
    with (
        flarekit.load(module=module, facts=facts, device="cpu", precision="fp32") as segmenter,
        pytest.raises(PredictorError, match="2 classes, the labels need 3"),
    ):
        segmenter.segment(voxels_of(), spacing_mm=(2, 2, 2))


def test_what_to_load_has_to_be_clear(toy):
    for how in ({}, {"facts": {}}, {"module": torch.nn.Conv3d(1, 2, 1)}):
        with pytest.raises(UsageError, match="what to load is not clear"):
            flarekit.load(**how)
    with pytest.raises(UsageError, match="no predictor 'no_such'"):
        flarekit.load("no_such")
    with pytest.raises(DeviceError):
        flarekit.load(toy.folder, device="cuda:99")
    toy.weights.write_bytes(b"something else")
    with pytest.raises(WeightsHashError):
        flarekit.load(toy.folder)


def test_a_time_budget_is_kept_and_what_was_given_up_is_told(toy):
    with flarekit.load(toy.folder, device="cpu", precision="fp32", time_budget_s=0.01) as segmenter:
        result = segmenter.segment(np.zeros((40, 200, 200), np.int16), spacing_mm=(2, 2, 2))
    assert "background" in result.traded[-1]


def test_a_scan_that_does_not_fit_into_memory_is_refused_before_it_is_read(toy, scan):
    with (
        flarekit.load(toy.folder, device="cpu", ram_budget_mib=100) as segmenter,
        pytest.raises(BudgetError, match=r"reading .*scan.nii.gz takes up to"),
    ):
        segmenter.segment(scan)


@pytest.mark.long
def test_a_folder_runs_with_a_segmenter_that_is_loaded(loaded, scan, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a_0000.nii.gz").symlink_to(scan)
    record = flarekit.predict(tmp_path / "in", tmp_path / "out", loaded, report=tmp_path / "r")
    assert [case.case_id for case in record.cases] == ["a"]
    mask = nibabel.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), loaded.segment(scan).labels)
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "a.png",
        "ledger.jsonl",
        "run.json",
        "statistics.csv",
    ]
    with pytest.raises(UsageError, match="its own mode, device and budgets"):
        flarekit.predict(tmp_path / "in", tmp_path / "out", loaded, mode="exact")
