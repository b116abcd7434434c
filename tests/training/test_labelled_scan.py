"""What training reads of a labelled scan: odd voxels and grids are told or refused."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from flarekit.core.channels import Channel, Window
from flarekit.core.errors import InputError
from flarekit.training.first_recipe import first_recipe
from flarekit.training.labelled_scan import read_channel, read_label_map, read_labels
from tests.training.test_own_data import dataset_of

AFFINE = np.diag([-4.0, -4.0, 4.0, 1.0])
CT = Channel(name="CT", intensity=Window(kind="window", low_hu=-100, high_hu=200, mean=0, std=100))
SUV = CT.model_copy(update={"name": "PET"})


def write(path, voxels, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(np.asarray(voxels).T, affine), path)
    return path


@pytest.fixture
def scan(tmp_path):
    return read_channel(write(tmp_path / "scan.nii.gz", np.zeros((4, 5, 6), np.int16)), "MR")


def test_a_label_that_is_no_number_is_refused_as_that_and_not_as_air(tmp_path, scan):
    voxels = np.zeros((4, 5, 6), np.float32)
    voxels[1, 1, 1] = np.nan
    path = write(tmp_path / "label.nii.gz", voxels)
    for read in (lambda: read_labels(path, scan), lambda: read_label_map(path)):
        with pytest.raises(InputError, match=r"label\.nii\.gz: holds nan, and labels are whole"):
            read()


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((4, 5, 7), AFFINE, "it has 7 x 5 x 4 voxels, not 6 x 5 x 4"),
        ((4, 5, 6), AFFINE @ np.diag([-1, 1, 1, 1]), "its axes run to RPS, not to LPS"),
        ((4, 5, 6), AFFINE + 9 * np.eye(4, k=3), "its first voxel lies at"),
    ],
)
def test_labels_of_another_grid_are_refused_with_what_differs(tmp_path, scan, shape, affine, words):
    path = write(tmp_path / "label.nii.gz", np.zeros(shape, np.uint8), affine)
    with pytest.raises(InputError, match=f"lies on another grid than .*scan.nii.gz: {words}"):
        read_labels(path, scan)


@pytest.mark.parametrize(("channel", "air"), [(CT, -1024), (SUV, 0), ("CT", -1024), ("pt", 0)])
def test_voxels_that_are_no_numbers_get_the_air_of_their_channel_and_are_told(
    tmp_path, caplog, channel, air
):
    voxels = np.full((4, 5, 6), 2, np.float32)
    voxels[0] = np.nan
    path = write(tmp_path / "scan.nii.gz", voxels)
    assert (read_channel(path, channel).voxels_ZYX[0] == air).all()
    assert f"{path}: 30 " in caplog.text


def test_a_channel_that_is_not_in_its_unit_is_told(tmp_path, caplog):
    read_channel(write(tmp_path / "scan.nii.gz", np.zeros((4, 5, 6), np.int16)), "CT")
    assert "its values lie between 0 and 0: a CT in HU has air at -1000" in caplog.text


def test_a_first_recipe_names_the_scan_whose_values_cannot_be(tmp_path):
    dataset = dataset_of(tmp_path / "Dataset001_X")
    path = dataset / "imagesTr" / "b_0000.nii.gz"
    voxels = np.asarray(nibabel.load(path).dataobj).T.astype(np.float32)
    voxels[0, 0, 0] = 1e30
    write(path, voxels)
    with pytest.raises(InputError, match=r"b_0000\.nii\.gz: its values reach .* and 1e\+30"):
        first_recipe(dataset, device="cpu")
