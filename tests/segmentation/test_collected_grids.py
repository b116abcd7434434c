"""Masks that are brought back have the voxels of the scans that were laid out, or are refused."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import SimpleITK
from typer.testing import CliRunner

from flarekit import conventions
from flarekit.cli.main import app
from flarekit.core.scan_files import read_scan
from flarekit.segmentation.arranging import arrange

SHAPE = (5, 8, 6)
AFFINE = np.array([[0, -2.0, 0, 10], [-2.0, 0, 0, -20], [0, 0.0, 3.0, 5], [0, 0, 0, 1]])


@pytest.fixture
def laid_out(tmp_path, write_scan):
    """Return a function that lays two scans out, and folders for masks and what comes back."""

    def lay_out(convention):
        (tmp_path / "scans").mkdir()
        for name in ("a", "b"):
            for k in range(2 if convention == "autopet" else 1):
                path = tmp_path / "scans" / f"{name}_{k:04d}.nii.gz"
                write_scan(path, np.zeros(SHAPE), AFFINE)
        channels = 2 if convention == "autopet" else 1
        arrange([tmp_path / "scans"], convention, tmp_path / "in", channels)
        return tmp_path / "in", tmp_path / "masks", tmp_path / "back"

    return lay_out


def write_mask(path, shape=SHAPE, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.ones(shape, np.uint8).T, affine)
    if path.suffix != ".mha":
        nibabel.save(image, path)
        return
    nibabel.save(image, path.with_suffix(".nii"))
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(path.with_suffix(".nii"))), str(path))
    path.with_suffix(".nii").unlink()


ODD = [
    ({"shape": (5, 8, 7)}, "it has 7 x 8 x 5 voxels, not 6 x 8 x 5"),
    ({"shape": (8, 5, 6)}, "it has 6 x 5 x 8 voxels, not 6 x 8 x 5"),
    ({"affine": AFFINE @ np.diag([1, 1, 0.5, 1])}, "its spacing is 2 x 2 x 1.5 mm, not 2 x 2 x 3"),
    ({"affine": AFFINE @ np.diag([-1, 1, 1, 1])}, "its axes run to ALS, not to PLS"),
    ({"affine": AFFINE + np.eye(4, k=3)}, "its first voxel lies at (11, -20, 5) mm"),
]


@pytest.mark.parametrize(("odd", "words"), ODD)
def test_a_mask_on_another_grid_is_named_and_the_others_come_back(laid_out, odd, words):
    arranged, masks, back = laid_out("flare")
    write_mask(masks / "a.nii.gz")
    write_mask(masks / "b.nii.gz", **odd)
    done = conventions.collect(masks, arranged, back)
    assert [path.name for path in done.masks] == ["a.nii.gz"]
    (told,) = done.missing
    assert f"{masks / 'b.nii.gz'}: lies on another grid than the scan" in told
    assert words in told
    assert sorted(path.name for path in back.iterdir()) == ["a.nii.gz"]


@pytest.mark.parametrize("convention", ["autopet", "grandchallenge"])
def test_masks_of_jobs_are_compared_with_the_scans_of_their_jobs(laid_out, convention):
    arranged, masks, back = laid_out(convention)
    write_mask(masks / "a" / "images" / "organs" / "a.mha")
    write_mask(masks / "b" / "images" / "organs" / "b.mha", affine=np.diag([2.0, 2, 3, 1]))
    done = conventions.collect(masks, arranged, back)
    assert [path.name for path in done.masks] == ["a.nii.gz"]
    assert "b.mha: lies on another grid" in done.missing[0]
    assert "its axes run to RAS, not to PLS" in done.missing[0]


def test_a_mask_of_a_stack_has_the_voxels_of_the_stack(laid_out, monkeypatch):
    monkeypatch.setattr("flarekit.conventions.uls23.arrange.SHAPE_ZYX", SHAPE)
    arranged, masks, back = laid_out("uls23")
    (stack,) = arranged.rglob("*.mha")
    image = SimpleITK.ReadImage(str(stack))
    mask = SimpleITK.GetImageFromArray(np.ones((15, 8, 6), np.uint8))
    (masks / "images").mkdir(parents=True)
    SimpleITK.WriteImage(mask, str(masks / "images" / "stack.mha"))
    done = conventions.collect(masks, arranged, back)
    assert not back.exists()
    assert len(done.missing) == 2
    assert all("it has 6 x 8 x 15 voxels, not 6 x 8 x 10" in each for each in done.missing)
    whole = SimpleITK.GetImageFromArray(np.ones((10, 8, 6), np.uint8))
    whole.CopyInformation(image)
    SimpleITK.WriteImage(whole, str(masks / "images" / "stack.mha"))
    done = conventions.collect(masks, arranged, back)
    assert len(done.masks) == 2
    np.testing.assert_allclose(read_scan(done.masks[0], air=0).geometry.affine, AFFINE, atol=1e-4)


def test_what_headers_round_is_no_other_grid(laid_out):
    arranged, masks, back = laid_out("flare")
    for name in ("a", "b"):
        write_mask(masks / f"{name}.nii.gz", affine=AFFINE + np.eye(4, k=3) * 0.005)
    assert conventions.collect(masks, arranged, back).missing == ()


def test_a_list_of_an_earlier_version_is_taken_and_what_is_not_compared_is_told(laid_out, caplog):
    arranged, masks, back = laid_out("flare")
    content = json.loads((arranged / "arranged.json").read_text())
    for each in content["scans"]:
        del each["grid"]
        write_mask(masks / f"{each['stem']}.nii.gz", shape=(2, 2, 2))
    (arranged / "arranged.json").write_text(json.dumps(content))
    assert len(conventions.collect(masks, arranged, back).masks) == 2
    assert "a.nii.gz: arranged.json does not say which voxels its scan has" in caplog.text


def test_the_command_ends_with_1_and_says_which_file_and_what_differs(laid_out):
    arranged, masks, back = laid_out("flare")
    write_mask(masks / "a.nii.gz", affine=np.eye(4))
    write_mask(masks / "b.nii.gz")
    line = ["collect", masks, "--arranged", arranged, "-o", back]
    result = CliRunner().invoke(app, list(map(str, line)))
    assert result.exit_code == 1
    assert f"{masks / 'a.nii.gz'}: lies on another grid" in result.output
    assert "its spacing is 1 x 1 x 1 mm, not 2 x 2 x 3" in result.output
    assert ": 1 of 2 scans" in result.output
