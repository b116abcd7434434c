"""Pictures: which side is which, and one colour per label value for ever."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from flarekit.core.colours import colour_of
from flarekit.core.volume import Geometry, Volume
from flarekit.report.picture import colours_of, mark_sides, shades_of, write_picture
from flarekit.segmentation.folder import Options, Report, segment_folder
from tests.conventions.dicom.dicom_files import write_series


class Axes:
    transAxes = None  # noqa: N815 - matplotlib's name

    def __init__(self):
        self.said = []

    def text(self, x, _y, side, **_):
        self.said.append((side, x))


@pytest.mark.parametrize(("axis", "sides"), [(0, "RL"), (1, "RL"), (2, "")])
def test_the_patient_s_right_is_marked_on_the_left_where_a_slice_shows_it(axis, sides):
    axes = Axes()
    mark_sides(axes, axis)
    assert "".join(side for side, _ in sorted(axes.said, key=lambda each: each[1])) == sides


def shares_of(path, colour):
    """Return, per column of the axial picture, how many pixels have a blended colour."""
    picture = imread(path)[..., :3]
    blended = 0.55 * np.array(colour) / 255
    near = np.abs(picture - blended).max(axis=-1) < 0.02
    return near[:, : picture.shape[1] // 3].sum(axis=0)


@pytest.mark.long
@pytest.mark.parametrize("x_points_left", [True, False])
def test_what_lies_on_the_right_of_the_patient_is_drawn_where_r_stands(tmp_path, x_points_left):
    label_map = np.zeros((20, 40, 40), np.uint8)
    label_map[5:15, 10:30, 4:12] = 7
    voxels = np.full(label_map.shape, -1000, np.int16)
    affine = np.diag([-2.0 if x_points_left else 2.0, -2.0, 2.0, 1.0])
    geometry = Geometry(shape_ZYX=(20, 40, 40), affine=affine, header=None)
    volume = Volume(voxels_ZYX=voxels, geometry=geometry, path=tmp_path / "scan")
    write_picture(tmp_path / "a.png", volume, label_map, {"organ": 7})
    columns = np.flatnonzero(shares_of(tmp_path / "a.png", colour_of(7)))
    middle = imread(tmp_path / "a.png").shape[1] / 7  # of the first of three planes and a legend
    assert len(columns)
    assert (columns.mean() < middle) == x_points_left


def test_a_value_has_its_colour_whatever_other_labels_there_are():
    alone, among = shades_of({"x": 7}), shades_of({"a": 1, "b": 3, "x": 7})
    assert alone[7] == among[7] == tuple(part / 255 for part in colour_of(7))
    assert colours_of({"x": 7}) == {7: "#e377c2"}


def test_the_colours_of_all_values_are_valid_and_those_of_the_first_differ():
    colours = [colour_of(value) for value in range(1, 256)]
    assert all(0 <= part <= 255 for colour in colours for part in colour)
    assert len(set(colours[:120])) == 120


@pytest.mark.long
def test_a_dicom_case_has_a_picture(toy, tmp_path):
    write_series(tmp_path / "in", np.random.default_rng(0).integers(-900, 300, (8, 40, 40)))
    report = Report(tmp_path / "report")
    options = Options(device="cpu", precision="fp32")
    record = segment_folder(toy, tmp_path / "in", tmp_path / "out", options, report=report)
    assert record.convention == "dicom"
    assert len(list((tmp_path / "report").glob("*.png"))) == 1
