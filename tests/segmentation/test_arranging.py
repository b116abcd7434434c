"""Scans go to a platform's layout, a run there gives masks, and these come back by name."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from typer.testing import CliRunner

from flarekit import conventions
from flarekit.cli.main import app
from flarekit.conventions import ScanToPlace
from flarekit.core.errors import InputError, OutputError, UsageError
from flarekit.core.scan_files import read_scan
from flarekit.segmentation.arranging import arrange, predictor_for
from flarekit.segmentation.folder import Options, segment_folder
from tests.conventions.dicom.dicom_files import ct_voxels, slice_of

OBLIQUE = np.array([[0, -2.0, 0, 10], [-2.0, 0, 0, -20], [0, 0.0, 3.0, 5], [0, 0, 0, 1]])


def options_of(convention):
    return Options(device="cpu", precision="fp32", convention=convention)


@pytest.fixture
def tree(tmp_path, write_scan):
    """A tree of scans of several formats, two of one name, one oblique."""
    made = tmp_path / "tree"
    (made / "p q").mkdir(parents=True)
    write_scan(made / "a.nii.gz")
    write_scan(made / "p q" / "a.nii", affine=OBLIQUE)
    image = SimpleITK.ReadImage(str(made / "a.nii.gz"))
    SimpleITK.WriteImage(image, str(made / "b.mha"))
    return made


@pytest.fixture
def pairs(tmp_path, write_scan):
    made = tmp_path / "pairs"
    made.mkdir()
    for name in ("STS_008", "STS_009"):
        for k in range(2):
            write_scan(made / f"{name}_{k:04d}.nii.gz", affine=OBLIQUE)
    return made


def files_below(folder):
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def assert_like(mask, scan):
    """The mask lies where the scan does, voxel by voxel."""
    one, other = read_scan(mask, air=0.0), read_scan(scan, air=0.0)
    assert one.voxels_ZYX.shape == other.voxels_ZYX.shape
    np.testing.assert_allclose(one.geometry.affine, other.geometry.affine, atol=1e-4)


def test_scans_of_any_kind_are_laid_out_for_flare_and_their_masks_come_back(toy, tree, tmp_path):
    done = arrange([tree], "flare", tmp_path / "in")
    assert len(done.placed) == 3
    names = files_below(tmp_path / "in")
    assert names[0] == "a_0000.nii.gz"
    assert all(name.endswith("_0000.nii.gz") for name in names if name != "arranged.json")
    assert (tmp_path / "in" / "a_0000.nii.gz").read_bytes() == (tree / "a.nii.gz").read_bytes()
    record = segment_folder(toy, tmp_path / "in", tmp_path / "masks", options_of("flare"))
    assert not record.failed
    back = conventions.collect(tmp_path / "masks", tmp_path / "in", tmp_path / "back")
    assert back.missing == ()
    places = ["a.nii.gz", "b.mha", "p q/a.nii"]
    assert files_below(tmp_path / "back") == places
    segment_folder(toy, tree, tmp_path / "plain", options_of("plain"))
    for place in places:
        assert_like(tmp_path / "back" / place, tree / place)
        one, other = (read_scan(tmp_path / way / place, air=0) for way in ("back", "plain"))
        np.testing.assert_array_equal(one.voxels_ZYX, other.voxels_ZYX)


def test_several_pet_cts_are_jobs_a_folder_each_which_run_together(make_toy, pairs, tmp_path):
    two = make_toy(channels=2)
    arrange([pairs], "autopet", tmp_path / "in")
    assert files_below(tmp_path / "in")[:2] == [
        "STS_008/images/ct/STS_008.mha",
        "STS_008/images/pet/STS_008.mha",
    ]
    record = segment_folder(two, tmp_path / "in", tmp_path / "masks", options_of("autopet"))
    assert [case.case_id for case in record.cases] == ["STS_008", "STS_009"]
    assert not record.failed
    assert "STS_009/data-centric-model.json" in files_below(tmp_path / "masks")
    back = conventions.collect(tmp_path / "masks", tmp_path / "in", tmp_path / "back")
    assert back.missing == ()
    assert files_below(tmp_path / "back") == ["STS_008.nii.gz", "STS_009.nii.gz"]
    assert_like(tmp_path / "back" / "STS_008.nii.gz", pairs / "STS_008_0001.nii.gz")


def test_one_pet_ct_is_laid_out_as_the_platform_s_input_itself(pairs, tmp_path):
    scans = [pairs / "STS_008_0000.nii.gz", pairs / "STS_008_0001.nii.gz"]
    arrange(scans, "autopet", tmp_path / "in")
    assert files_below(tmp_path / "in") == [
        "arranged.json",
        "images/ct/STS_008.mha",
        "images/pet/STS_008.mha",
    ]
    image = SimpleITK.ReadImage(str(tmp_path / "in" / "images" / "ct" / "STS_008.mha"))
    like = SimpleITK.ReadImage(str(scans[0]))
    assert image.GetOrigin() == pytest.approx(like.GetOrigin(), abs=1e-4)
    assert image.GetDirection() == pytest.approx(like.GetDirection(), abs=1e-6)
    np.testing.assert_array_equal(*map(SimpleITK.GetArrayFromImage, (image, like)))


def test_volumes_of_interest_become_a_stack_with_spacings_and_masks_of_their_own(
    toy, tmp_path, monkeypatch, write_scan
):
    for module in ("layout", "arrange"):
        monkeypatch.setattr(f"flarekit.conventions.uls23.{module}.SHAPE_ZYX", (4, 8, 8))
    (tmp_path / "vois").mkdir()
    for k, name in enumerate(("b", "a")):
        affine = OBLIQUE @ np.diag([1 + k, 1, 1, 1])
        write_scan(tmp_path / "vois" / f"{name}.nii.gz", np.full((4, 8, 8), 40 + k), affine)
    arrange([tmp_path / "vois"], "uls23", tmp_path / "in")
    spacings = json.loads((tmp_path / "in" / "stacked-3d-volumetric-spacings.json").read_text())
    assert spacings == [[4.0, 2.0, 3.0], [2.0, 2.0, 3.0]]  # a, then b; x, y, z
    stack = tmp_path / "in" / "images" / "stacked-3d-ct-lesion-volumes" / "stack.mha"
    voxels = read_scan(stack, air=0).voxels_ZYX
    assert voxels.dtype == np.int16
    assert voxels[:, 0, 0].tolist() == [41] * 4 + [40] * 4
    record = segment_folder(toy, tmp_path / "in", tmp_path / "masks", options_of("uls23"))
    assert not record.failed
    conventions.collect(tmp_path / "masks", tmp_path / "in", tmp_path / "back")
    masks = read_scan(tmp_path / "masks" / record.cases[0].mask, air=0).voxels_ZYX
    for k, name in enumerate("ab"):
        mask = tmp_path / "back" / f"{name}.nii.gz"
        assert_like(mask, tmp_path / "vois" / f"{name}.nii.gz")
        np.testing.assert_array_equal(read_scan(mask, air=0).voxels_ZYX, masks[4 * k : 4 * k + 4])


def test_a_scan_of_another_size_is_no_volume_of_interest(tree, tmp_path):
    with pytest.raises(InputError, match="256 x 256 x 128, with the lesion in its middle"):
        arrange([tree], "uls23", tmp_path / "in")


def test_scans_are_laid_out_with_the_sockets_of_an_algorithm(tree, tmp_path):
    arrange([tree / "b.mha"], "grandchallenge", tmp_path / "in", sockets=["venous-ct"])
    assert files_below(tmp_path / "in") == [
        "arranged.json",
        "images/venous-ct/b.mha",
        "inputs.json",
    ]
    outputs = [{"path": "images/organs", "kind": "Segmentation"}]
    settings = {"inputs": ["venous-ct"], "outputs": outputs}
    convention = conventions.get("grandchallenge", settings, labels={"organ": 1})
    (case,) = convention.find_cases(tmp_path / "in", 1)
    assert case.channels == (tmp_path / "in" / "images" / "venous-ct" / "b.mha",)


@pytest.mark.parametrize(("sockets", "words"), [(["ct", "ct"], "twice"), (["../x"], "not a slug")])
def test_a_socket_that_would_take_another_s_place_is_refused(tree, tmp_path, sockets, words):
    with pytest.raises(UsageError, match=words):
        arrange([tree / "b.mha"], "grandchallenge", tmp_path / "in", sockets=sockets)
    assert not (tmp_path / "in" / "inputs.json").exists()


def laid_out_once_more(tree, tmp_path, change):
    """Return folders of masks and of a list that somebody has changed."""
    arrange([tree / "a.nii.gz", tree / "b.mha"], "flare", tmp_path / "in")
    path = tmp_path / "in" / "arranged.json"
    content = json.loads(path.read_text())
    change(content["scans"])
    path.write_text(json.dumps(content))
    (tmp_path / "masks").mkdir()
    labels = nibabel.Nifti1Image(np.zeros((6, 8, 4), np.uint8), np.eye(4))
    nibabel.save(labels, tmp_path / "masks" / "a.nii.gz")
    return tmp_path / "masks", tmp_path / "in"


def test_a_list_that_gives_two_scans_one_mask_is_refused(tree, tmp_path):
    places = laid_out_once_more(tree, tmp_path, lambda s: s[1].update(mask=s[0]["mask"]))
    with pytest.raises(InputError, match=r"arranged\.json: two scans name the same mask"):
        conventions.collect(*places, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_an_affine_of_no_scan_costs_its_own_mask_alone(tree, tmp_path):
    flat = {"grid": None, "first_slice": 0, "shape_ZYX": [4, 8, 6], "affine": [[0.0] * 4] * 4}
    places = laid_out_once_more(tree, tmp_path, lambda s: s[0].update(flat))
    done = conventions.collect(*places, tmp_path / "back")
    assert any("the affine of a.nii.gz is not one of a scan" in each for each in done.missing)


def test_a_dicom_series_is_laid_out_in_hu_where_it_lies(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    for k in range(6):
        image = slice_of(ct_voxels()[k], (0, 0, 4 * k), "1.2.3", k)
        image.save_as(series / f"IM{k}.dcm", enforce_file_format=True)
    arrange([series], "flare", tmp_path / "in")
    dicom = conventions.get("dicom")
    (volume,) = dicom.read_case(dicom.find_cases(series, 1)[0])
    laid_out = read_scan(tmp_path / "in" / "1.2.3_0000.nii.gz", air=0)
    np.testing.assert_array_equal(laid_out.voxels_ZYX, volume.voxels_ZYX)
    np.testing.assert_allclose(laid_out.geometry.affine, volume.geometry.affine, atol=1e-4)


@pytest.mark.parametrize(
    "place", ["../evil.nii.gz", "/tmp/evil.nii.gz", "evil.sh", "a/../../b.nii"]
)
def test_a_list_that_was_tampered_with_writes_nowhere_else(tree, tmp_path, place):
    arrange([tree / "a.nii.gz"], "flare", tmp_path / "in")
    path = tmp_path / "in" / "arranged.json"
    content = json.loads(path.read_text())
    content["scans"][0]["mask"] = place
    path.write_text(json.dumps(content))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.nii.gz").write_bytes((tree / "a.nii.gz").read_bytes())
    before = files_below(tmp_path)
    with pytest.raises(InputError):
        conventions.collect(tmp_path / "masks", tmp_path / "in", tmp_path / "back")
    assert files_below(tmp_path) == before


def test_masks_that_are_missing_are_named_and_the_others_come_back(toy, tree, tmp_path):
    arrange([tree], "flare", tmp_path / "in")
    segment_folder(toy, tmp_path / "in", tmp_path / "masks", options_of("flare"))
    (tmp_path / "masks" / "a.nii.gz").unlink()
    command = [
        "collect",
        tmp_path / "masks",
        "--arranged",
        tmp_path / "in",
        "-o",
        tmp_path / "back",
    ]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 1
    assert "a.nii.gz: " in result.output
    assert "holds no masks named a" in result.output
    assert ": 2 of 3 scans" in result.output


def test_channels_that_are_no_files_are_all_laid_out_for_flare(tree, tmp_path):
    volume = read_scan(tree / "a.nii.gz", air=0)
    scan = ScanToPlace(name="x", mask=Path("x.nii.gz"), read=lambda: [volume, volume])
    conventions.arranging("flare").arrange([scan], tmp_path)
    assert (tmp_path / "x_0000.nii.gz").is_file()
    assert_like(tmp_path / "x_0001.nii.gz", tree / "a.nii.gz")


@pytest.mark.parametrize(
    ("value", "words"), [(300, "holds 0 to 300"), (-1, "holds -1 to 0"), (0.6, "holds fractions")]
)
def test_a_mask_of_something_else_than_labels_is_named_and_not_rounded(
    value, words, tree, tmp_path
):
    arrange([tree], "flare", tmp_path / "in")
    (tmp_path / "masks").mkdir()
    for name in ("a", "b"):
        voxels = nibabel.load(tree / "a.nii.gz").get_fdata().astype(np.float32) * 0
        voxels[2, 2, 2] = value if name == "b" else 3
        image = nibabel.Nifti1Image(voxels, nibabel.load(tree / "a.nii.gz").affine)
        nibabel.save(image, tmp_path / "masks" / f"{name}.nii.gz")
    back = conventions.collect(tmp_path / "masks", tmp_path / "in", tmp_path / "back")
    assert [path.name for path in back.masks] == ["a.nii.gz"]
    assert read_scan(back.masks[0], air=0).voxels_ZYX.max() == 3
    assert any(words in sentence and "b.nii.gz" in sentence for sentence in back.missing)


def test_only_an_empty_folder_is_filled_and_only_for_those_who_have_a_layout(tree, tmp_path):
    with pytest.raises(OutputError, match="is not empty"):
        arrange([tree / "a.nii.gz"], "flare", tree / "p q")
    with pytest.raises(UsageError, match="dicom takes scans as they are"):
        arrange([tree], "dicom", tmp_path / "in")
    with pytest.raises(UsageError, match="did you mean 'flare'"):
        arrange([tree], "flair", tmp_path / "in")


def test_the_command_says_what_comes_next_and_that_works(toy, tree, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    result = runner.invoke(app, ["arrange", str(tree), "--convention", "flare", "-o", "input"])
    assert result.exit_code == 0, result.output
    commands = [line.split()[1:] for line in result.output.splitlines() if "  flarekit" in line]
    assert [command[0] for command in commands] == ["predict", "collect"]
    for command in commands:
        own = ["-p", str(toy.folder), "--device", "cpu"] if command[0] == "predict" else []
        assert runner.invoke(app, [*command, *own]).exit_code == 0
    assert files_below(Path("collected")) == ["a.nii.gz", "b.mha", "p q/a.nii"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("autopet", "found STS_008_0000.nii.gz.*the PET .in SUV. into images/pet, as .mha"),
        ("uls23", "found STS_008_0000.nii.gz.*stacked along Z"),
        ("grandchallenge", "found STS_008_0000.nii.gz.*--convention grandchallenge"),
    ],
)
def test_an_error_names_what_was_found_and_what_lays_it_out(pairs, name, told):
    settings = {"outputs": [{"path": "images/x", "kind": "Segmentation"}]}
    convention = conventions.get(
        name, settings if name == "grandchallenge" else None, labels={"lesion": 1}
    )
    with pytest.raises(InputError, match=f"(?s){told}") as caught:
        convention.find_cases(pairs, 2 if name == "autopet" else 1)
    assert f"flarekit arrange FILES --convention {name}" in caught.value.fix


def test_nibabel_reads_what_was_laid_out(tree, tmp_path):
    arrange([tree / "b.mha"], "flare", tmp_path / "in")
    image = nibabel.load(tmp_path / "in" / "b_0000.nii.gz")
    assert image.get_data_dtype() == read_scan(tree / "b.mha", air=0).voxels_ZYX.dtype


@pytest.mark.parametrize(
    ("convention", "channels", "name"),
    [
        ("flare", 1, "abdomen_ct"),
        ("flare", 2, None),
        ("autopet", 1, "att_umamba_petct"),
        ("uls23", 1, "mamba_ahnet_lesion"),
        ("grandchallenge", 1, None),
    ],
)
def test_the_predictor_that_comes_next_is_one_that_takes_what_was_laid_out(
    convention, channels, name, monkeypatch
):
    monkeypatch.delenv("FLAREKIT_WEIGHTS", raising=False)
    assert predictor_for(convention, channels) == name


def test_masks_are_brought_back_only_from_a_folder_to_scans_that_were_laid_out(tree, tmp_path):
    arrange([tree / "a.nii.gz"], "flare", tmp_path / "in")
    with pytest.raises(InputError, match="absent: is not a folder") as caught:
        conventions.collect(tmp_path / "absent", tmp_path / "in", tmp_path / "back")
    assert caught.value.fix == "name the output folder of the run"
    with pytest.raises(InputError, match="holds no arranged.json") as caught:
        conventions.collect(tmp_path / "in", tree, tmp_path / "back")
    assert caught.value.fix == "name the folder that flarekit arrange made"
