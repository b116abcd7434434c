"""What people name as input and output: files, several, DICOM, archives, trees; a mask's file."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from typer.testing import CliRunner

import flarekit
from flarekit.cli.main import app
from flarekit.core.errors import InputError, UsageError
from flarekit.segmentation.folder import Options, Report, Resuming, segment_folder
from tests.conventions.dicom.dicom_files import ct_voxels, slice_of

OPTIONS = Options(device="cpu", precision="fp32")


@pytest.fixture
def inputs(tmp_path):
    made = tmp_path / "inputs"
    made.mkdir()
    return made


def write_series(folder, uid="1.2.3"):
    folder.mkdir(exist_ok=True, parents=True)
    for k in range(6):
        image = slice_of(ct_voxels()[k], (0, 0, 4 * k), uid, k)
        image.save_as(folder / f"IM{k}.dcm", enforce_file_format=True)
    return folder


def masks_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def mask_of(path):
    if path.name.endswith((".nii", ".nii.gz")):
        return np.asarray(nibabel.load(path).dataobj).T
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


@pytest.mark.quick(2)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd"])
def test_one_scan_of_any_format_becomes_a_mask_in_its_format(toy, tmp_path, write_scan, ending):
    usual = write_scan(tmp_path / "usual_0000.nii.gz")
    scan = tmp_path / f"scan{ending}"
    if "nii" in ending:
        nibabel.save(nibabel.load(usual), scan)
    else:
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(usual)), str(scan))
    record = segment_folder(toy, scan, tmp_path / "out", OPTIONS)
    assert not record.failed
    name = f"scan{ending}".replace(".mhd", ".mha")
    assert masks_below(tmp_path / "out") == [name]
    image = SimpleITK.ReadImage(str(tmp_path / "out" / name))
    like = SimpleITK.ReadImage(str(scan))
    for facts in ("GetOrigin", "GetSpacing", "GetDirection", "GetSize"):
        assert getattr(image, facts)() == pytest.approx(getattr(like, facts)(), abs=1e-5)
    segment_folder(toy, usual, tmp_path / "usual", OPTIONS)
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(image), mask_of(tmp_path / "usual" / "usual.nii.gz")
    )


@pytest.mark.quick(2)
@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii", "mask.mha", "mask.nrrd"])
def test_the_mask_of_one_scan_goes_into_the_file_that_is_named(toy, tmp_path, write_scan, name):
    scan = write_scan(tmp_path / "scan.nii.gz")
    target = tmp_path / "new" / "folder" / name
    for given in (scan, [scan]):
        record = segment_folder(toy, given, target, OPTIONS)
        assert record.cases[0].mask == target
    assert masks_below(tmp_path / "new") == [f"folder/{name}"]
    report = Report(tmp_path / "new" / "folder" / "report", pictures=False)
    segment_folder(toy, scan, target, OPTIONS, report=report)  # beside the mask, by its name
    segment_folder(toy, scan, tmp_path / "out", OPTIONS)
    np.testing.assert_array_equal(mask_of(target), mask_of(tmp_path / "out" / "scan.nii.gz"))


def test_one_file_for_several_masks_or_for_another_kind_of_mask_is_refused(
    toy, tmp_path, write_scan
):
    scans = [write_scan(tmp_path / f"{name}.nii.gz") for name in "ab"]
    with pytest.raises(UsageError, match="is one file, and there are 2 cases"):
        segment_folder(toy, scans, tmp_path / "mask.nii.gz", OPTIONS)
    with pytest.raises(UsageError, match=r"the mask of 1.2.3 is written as 1.2.3.dcm"):
        segment_folder(toy, write_series(tmp_path / "d"), tmp_path / "mask.nii.gz", OPTIONS)
    assert not (tmp_path / "mask.nii.gz").exists()


def test_several_files_and_folders_are_segmented_together(toy, tmp_path, write_scan):
    for place in ("one/ct.nii.gz", "two/ct.nii.gz", "two/deep/er/ct.nii"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        write_scan(tmp_path / place)
    given = [tmp_path / "one" / "ct.nii.gz", tmp_path / "two"]
    record = segment_folder(toy, given, tmp_path / "out", OPTIONS)
    places = ["one/ct.nii.gz", "two/ct.nii.gz", "two/deep/er/ct.nii"]
    assert masks_below(tmp_path / "out") == places
    assert [case.case_id for case in record.cases] == ["one/ct", "two/ct", "two/deep/er/ct"]
    files = [tmp_path / "one" / "ct.nii.gz", tmp_path / "two" / "deep" / "er" / "ct.nii"]
    segment_folder(toy, files, tmp_path / "flat", OPTIONS)
    assert masks_below(tmp_path / "flat") == ["ct.nii", "ct.nii.gz"]


@pytest.mark.long
def test_a_tree_of_scans_gives_the_same_tree_of_masks(toy, inputs, tmp_path, write_scan):
    for place in ("a.nii.gz", "p/b.nii", "p/q/c_0000.nii.gz", ".hidden/d.nii.gz", "p/._b.nii"):
        (inputs / place).parent.mkdir(parents=True, exist_ok=True)
        write_scan(inputs / place)
    (inputs / "p" / "notes.txt").write_text("no scan")
    report = Report(tmp_path / "report")
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS, report=report)
    assert record.convention == "plain"
    assert masks_below(tmp_path / "out") == ["a.nii.gz", "p/b.nii", "p/q/c.nii.gz"]
    pictures = sorted(path.name for path in (tmp_path / "report").glob("*.png"))
    assert pictures == ["a.png", "p_b.png", "p_q_c.png"]


def test_a_folder_of_dicom_is_recognised_and_said_to_be(toy, tmp_path, caplog):
    caplog.set_level("INFO", "flarekit")
    folder = write_series(tmp_path / "in" / "patient" / "study")
    record = segment_folder(toy, tmp_path / "in", tmp_path / "out", OPTIONS)
    assert (record.convention, masks_below(tmp_path / "out")) == ("dicom", ["1.2.3.dcm"])
    assert "not laid out as flare; taken as --convention dicom" in caplog.text
    slices = sorted(folder.iterdir())
    record = segment_folder(toy, slices, tmp_path / "seg.dcm", OPTIONS)
    assert record.cases[0].mask == tmp_path / "seg.dcm"
    both = [
        pydicom.dcmread(path) for path in (tmp_path / "seg.dcm", tmp_path / "out" / "1.2.3.dcm")
    ]
    assert both[0].PixelData == both[1].PixelData


@pytest.mark.parametrize("kind", ["scans", "dicom", "folders"])
def test_a_zip_is_taken_as_what_it_holds(toy, tmp_path, write_scan, kind):
    packed = tmp_path / "packed"
    packed.mkdir()
    if kind == "dicom":
        write_series(packed / "study")
    else:
        (packed / "x").mkdir()
        write_scan(packed / ("scan.nii.gz" if kind == "scans" else "x/scan.nii.gz"))
    archive = Path(shutil.make_archive(tmp_path / "scans", "zip", packed))
    record = segment_folder(toy, archive, tmp_path / "out", OPTIONS)
    assert not record.failed
    assert len(masks_below(tmp_path / "out")) == 1


def test_the_predictor_s_own_layout_goes_first(toy, inputs, tmp_path, write_scan):
    write_scan(inputs / "a_0000.nii.gz")
    (inputs / "deep").mkdir()
    write_scan(inputs / "deep" / "b.nii.gz")
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    assert (record.convention, [case.case_id for case in record.cases]) == ("flare", ["a"])


def test_a_convention_that_is_named_is_the_only_one_that_is_tried(
    toy, inputs, tmp_path, write_scan
):
    write_scan(inputs / "a.nii.gz")
    named = Options(device="cpu", precision="fp32", convention="flare")
    with pytest.raises(InputError, match="laid out as plain wants it .add --convention plain"):
        segment_folder(toy, inputs, tmp_path / "out", named)
    plain = Options(device="cpu", precision="fp32", convention="plain")
    assert not segment_folder(toy, inputs, tmp_path / "out", plain).failed


def test_a_stack_that_is_broken_is_not_taken_for_a_plain_scan(toy, inputs, tmp_path):
    stack = inputs / "images" / "stacked-3d-ct-lesion-volumes"
    stack.mkdir(parents=True)
    image = SimpleITK.GetImageFromArray(np.zeros((128, 256, 256), np.int8))
    SimpleITK.WriteImage(image, str(stack / "s.mha"), True)
    with pytest.raises(InputError):
        segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    assert not list((tmp_path / "out").rglob("*.mha"))


@pytest.mark.parametrize("where", ["same file", "same folder", "linked"])
def test_a_scan_is_never_replaced_by_its_mask(toy, tmp_path, write_scan, where):
    scan = write_scan(tmp_path / "scan.nii.gz")
    before = scan.read_bytes()
    output = {"same file": scan, "same folder": tmp_path, "linked": tmp_path / "l.nii.gz"}[where]
    if where == "linked":
        output.symlink_to(scan)
    with pytest.raises(UsageError, match="is an input and would be replaced"):
        segment_folder(toy, scan, output, OPTIONS)
    assert scan.read_bytes() == before


def test_what_is_no_scan_or_not_there_is_named(toy, inputs, tmp_path, write_scan):
    with pytest.raises(InputError, match=r"gone.nii.gz: there is no such file or folder"):
        segment_folder(toy, tmp_path / "gone.nii.gz", tmp_path / "out", OPTIONS)
    (inputs / "notes.txt").write_text("no scan")
    with pytest.raises(InputError, match=r"notes.txt: is not a scan that can be read"):
        segment_folder(toy, [inputs / "notes.txt"], tmp_path / "out", OPTIONS)
    write_scan(inputs / "good.nii.gz")
    (inputs / "bad.nii.gz").write_bytes(b"no scan")
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    assert [case.case_id for case in record.failed] == ["bad"]
    assert str(inputs / "bad.nii.gz") in record.failed[0].error
    assert masks_below(tmp_path / "out") == ["good.nii.gz"]  # no empty mask of a damaged scan


def test_channels_are_told_by_their_numbers_or_by_the_order_they_are_named_in(
    make_toy, inputs, tmp_path, write_scan
):
    two = make_toy(channels=2)
    for name in ("p/x_0000.nii", "p/x_0001.nii", "y_0000.nii.gz"):
        (inputs / name).parent.mkdir(exist_ok=True)
        write_scan(inputs / name)
    shutil.move(inputs / "y_0000.nii.gz", inputs / "p" / "y_0000.nii.gz")
    record = segment_folder(two, inputs, tmp_path / "out", OPTIONS)
    assert masks_below(tmp_path / "out") == ["p/x.nii"]
    (sentence,) = record.left_out
    assert "y_0000.nii.gz: has no _0001" in sentence
    named = [inputs / "p" / "x_0001.nii", inputs / "p" / "y_0000.nii.gz"]
    record = segment_folder(two, named, tmp_path / "mask.nii.gz", OPTIONS)
    assert record.cases[0].mask == tmp_path / "mask.nii.gz"
    with pytest.raises(InputError, match="found y_0000.nii.gz") as caught:
        segment_folder(two, inputs / "p" / "y_0000.nii.gz", tmp_path / "out", OPTIONS)
    assert "X_0000.nii.gz (CT), X_0001.nii.gz" in caught.value.fix


def test_channels_beyond_those_of_the_predictor_are_left_out_and_named(
    toy, inputs, tmp_path, write_scan
):
    for name in ("x_0000.nii", "x_0001.nii"):
        write_scan(inputs / name)
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    assert masks_below(tmp_path / "out") == ["x.nii"]
    (sentence,) = record.left_out
    assert "x_0001.nii: is number 2 of a scan's channels, and only 1 is wanted" in sentence


def test_a_shell_s_list_of_files_is_taken_after_i(toy, tmp_path, write_scan):
    scans = [write_scan(tmp_path / f"{name}.nii.gz") for name in "abc"]
    command = ["predict", "-p", toy.folder, "--device", "cpu", "-i", *scans, "-o", tmp_path / "out"]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    assert masks_below(tmp_path / "out") == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]
    none = CliRunner().invoke(app, ["predict", "-o", str(tmp_path / "out")])
    assert "no input is named" in str(none.exception)


def test_the_front_door_takes_files_as_well(toy, tmp_path, write_scan):
    scan = write_scan(tmp_path / "scan.nii")
    record = flarekit.predict(str(scan), tmp_path / "m.nii.gz", toy.folder, device="cpu")
    assert [case.mask.name for case in record.cases] == ["m.nii.gz"]
    record = flarekit.predict([scan, str(scan)], tmp_path / "out", toy.folder, device="cpu")
    assert len(record.cases) == 1


def test_links_to_folders_are_followed_and_one_folder_counts_once(
    toy, tmp_path, inputs, write_scan
):
    real = tmp_path / "real"
    real.mkdir()
    write_scan(real / "b.nii.gz")
    write_scan(inputs / "a.nii.gz")
    (inputs / "patient").symlink_to(real)
    (inputs / "circle").symlink_to(inputs)
    (tmp_path / "again").symlink_to(inputs)
    named = [inputs, tmp_path / "again", inputs / ".." / inputs.name]
    record = segment_folder(toy, named, tmp_path / "out", OPTIONS)
    assert not record.failed
    assert masks_below(tmp_path / "out") == ["a.nii.gz", "patient/b.nii.gz"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "patient").symlink_to(real)
    with pytest.raises(UsageError, match="would be replaced"):  # where a link leads is input, too
        segment_folder(toy, inputs, tmp_path / "other", OPTIONS)


def test_a_series_behind_a_link_is_segmented(toy, tmp_path, inputs):
    write_series(tmp_path / "real")
    (inputs / "series").symlink_to(tmp_path / "real")
    record = segment_folder(toy, inputs, tmp_path / "out", OPTIONS)
    assert not record.failed
    assert masks_below(tmp_path / "out") == ["1.2.3.dcm"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"a\xff\xfe.nii.gz", r"a\xff\xfe"),
        pytest.param(b"a\nERROR.nii.gz", r"a\x0aERROR", marks=pytest.mark.long),
        pytest.param(b"a\x1b[2J.nii.gz", r"a\x1b[2J", marks=pytest.mark.long),
    ],
)
def test_names_that_no_table_takes_are_written_out_and_masks_keep_them(
    toy, tmp_path, inputs, write_scan, name, shown
):
    scan = write_scan(tmp_path / "a.nii.gz")
    os.rename(scan, os.fsencode(inputs) + b"/" + name)  # noqa: PTH104 - bytes
    report = tmp_path / "report"
    for resuming in (Resuming(), Resuming(resume=True)):
        segment_folder(
            toy, inputs, tmp_path / "out", OPTIONS, report=Report(report, resuming=resuming)
        )
    assert os.listdir(os.fsencode(tmp_path / "out")) == [name]
    assert (report / "statistics.csv").read_text().splitlines()[1].startswith(f"{shown},")
    (line,) = (report / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["case_id"] == shown
