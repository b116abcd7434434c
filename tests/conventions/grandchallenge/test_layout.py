from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.core.errors import InputError, PredictorError

SHAPE = (5, 6, 7)
LABELS = {"liver": 1, "lesion": 4}
MASK = {"path": "images/organs", "kind": "Segmentation"}


def write(path, voxels=None, spacing=(2.0, 3.0, 4.0), origin=(1.0, 2.0, 3.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.arange(210, dtype=np.int16).reshape(SHAPE) if voxels is None else voxels
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    SimpleITK.WriteImage(image, str(path))


def list_sockets(folder, *sockets, key="socket"):
    content = [
        {
            "image": {"pk": "1", "name": "original.mha"},
            "value": None,
            key: {"slug": slug, "relative_path": path, "kind": "Image", "super_kind": "Image"},
        }
        for slug, path in sockets
    ]
    (folder / "inputs.json").write_text(json.dumps(content))


def run(folder, output, settings, channels=1, label_map=None):
    convention = conventions.get("grandchallenge", settings, labels=LABELS)
    (case,) = convention.find_cases(folder, channels)
    volumes = convention.read_case(case)
    label_map = np.zeros(SHAPE, np.uint8) if label_map is None else label_map
    return convention.write_mask(case, label_map, volumes[0].geometry, output), volumes


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_only_image_needs_no_mapping_with_and_without_inputs_json(tmp_path):
    write(tmp_path / "in/images/ct-image/uuid.mha")
    for listed in (False, True):
        if listed:
            list_sockets(tmp_path / "in", ("ct", "images/ct-image"), ("age", "age.json"))
        path, volumes = run(tmp_path / "in", tmp_path / "out", {"outputs": [MASK]})
        assert path == tmp_path / "out/images/organs/uuid.mha"
        assert volumes[0].voxels_ZYX.shape == SHAPE
        assert tree(tmp_path / "out") == ["images/organs/uuid.mha"]


@pytest.mark.parametrize("key", ["socket", "interface"])
def test_sockets_are_found_by_slug_by_path_and_by_folder(tmp_path, key):
    write(tmp_path / "in/images/a/x.mha", np.full(SHAPE, 1, np.int16))
    write(tmp_path / "in/images/b/y.mha", np.full(SHAPE, 2, np.int16))
    list_sockets(tmp_path / "in", ("first-slug", "images/a"), ("second", "images/b"), key=key)
    for names in (["second", "first-slug"], ["images/b", "images/a"], ["b", "a"]):
        settings = {"inputs": names, "outputs": [MASK]}
        path, volumes = run(tmp_path / "in", tmp_path / "out", settings, 2)
        assert [int(volume.voxels_ZYX.max()) for volume in volumes] == [2, 1]
        assert path.name == "y.mha"


def test_the_input_may_be_a_symbolic_link(tmp_path):
    write(tmp_path / "real/images/ct/x.mha")
    (tmp_path / "in").symlink_to(tmp_path / "real")
    path, _ = run(tmp_path / "in", tmp_path / "out", {"outputs": [MASK]})
    assert path.is_file()


def test_every_output_is_written_with_its_kind(tmp_path):
    write(tmp_path / "in/images/ct/x.mha")
    settings = {
        "outputs": [
            MASK,
            {"path": "images/lesion", "kind": "Segmentation", "labels": ["lesion"], "binary": True},
            {"path": "volume.json", "kind": "Float", "labels": ["lesion"]},
            {"path": "count.json", "kind": "Integer", "labels": ["lesion"]},
            {"path": "found.json", "kind": "Boolean", "labels": ["lesion"]},
            {"path": "fixed.json", "kind": "Boolean", "value": False},
        ]
    }
    label_map = np.zeros(SHAPE, np.uint8)
    label_map[0, 0, :3] = 4
    label_map[3, 3, 3] = 4
    label_map[4] = 1
    run(tmp_path / "in", tmp_path / "out", settings, label_map=label_map)
    numbers = {
        name: json.loads((tmp_path / f"out/{name}.json").read_text())
        for name in ("volume", "count", "found", "fixed")
    }
    assert numbers.pop("volume") == pytest.approx(4 * 24 / 1000)
    assert numbers == {"count": 2, "found": True, "fixed": False}
    for folder, expected in (("organs", label_map), ("lesion", label_map == 4)):
        mask = SimpleITK.ReadImage(str(tmp_path / f"out/images/{folder}/x.mha"))
        assert mask.GetPixelID() == SimpleITK.sitkUInt8
        assert mask.GetSpacing() == (2, 3, 4)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), expected)
    assert len(tree(tmp_path / "out")) == 6


def test_a_failed_case_leaves_every_output_as_if_nothing_was_found(tmp_path):
    write(tmp_path / "in/images/ct/x.mha")
    path = tmp_path / "in/images/ct/x.mha"
    path.write_bytes(path.read_bytes()[:-9])
    settings = {"outputs": [MASK, {"path": "volume.json", "kind": "Float"}]}
    convention = conventions.get("grandchallenge", settings, labels=LABELS)
    (case,) = convention.find_cases(tmp_path / "in", 1)
    with pytest.raises(InputError, match="x.mha"):
        convention.read_case(case)
    mask = SimpleITK.ReadImage(str(convention.write_empty_mask(case, tmp_path / "out")))
    assert mask.GetSize() == SHAPE[::-1]
    assert json.loads((tmp_path / "out/volume.json").read_text()) == 0.0


def test_a_channel_on_another_grid_is_resampled_onto_the_first(tmp_path):
    write(tmp_path / "in/images/a/x.mha")
    write(tmp_path / "in/images/b/x.mha", origin=(3.0, 2.0, 3.0))
    settings = {"inputs": ["a", "b"], "outputs": [MASK]}
    _, volumes = run(tmp_path / "in", tmp_path / "out", settings, 2)
    np.testing.assert_allclose(volumes[1].voxels_ZYX[..., 1:], volumes[0].voxels_ZYX[..., :-1])
    assert "resampled" in volumes[1].warnings[0]


def test_a_tiff_is_read_and_its_mask_is_mha(tmp_path):
    voxels = np.arange(210, dtype=np.uint16).reshape(SHAPE)
    write(tmp_path / "in/images/ct/x.tif", voxels)
    path, volumes = run(tmp_path / "in", tmp_path / "out", {"outputs": [MASK]})
    np.testing.assert_array_equal(volumes[0].voxels_ZYX, voxels)
    x_mm, y_mm, z_mm = SimpleITK.ReadImage(str(tmp_path / "in/images/ct/x.tif")).GetSpacing()
    np.testing.assert_array_equal(volumes[0].geometry.affine, np.diag([-x_mm, -y_mm, z_mm, 1]))
    assert path.name == "x.mha"
    assert SimpleITK.ReadImage(str(path)).GetSize() == SHAPE[::-1]


@pytest.mark.parametrize(
    ("settings", "channels", "error", "words"),
    [
        ({}, 1, PredictorError, "no outputs are stated"),
        ({"outputs": [MASK]}, 2, PredictorError, "which images are the 2 channels"),
        ({"inputs": ["a"], "outputs": [MASK]}, 2, PredictorError, "1 inputs for 2 channels"),
        ({"inputs": ["pet"], "outputs": [MASK]}, 1, InputError, "no input 'pet'"),
    ],
)
def test_what_is_not_clear_is_asked_for(tmp_path, settings, channels, error, words):
    write(tmp_path / "images/a/x.mha")
    write(tmp_path / "images/b/x.mha")
    with pytest.raises(error, match=words):
        conventions.get("grandchallenge", settings).find_cases(tmp_path, channels)


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([MASK, MASK], "two outputs have one path"),
        ([{"path": "a.json", "kind": "Segmentation"}], "masks go to a folder"),
        ([{"path": "images/a", "kind": "Float"}], "masks go to a folder"),
        ([{"path": "../a", "kind": "Segmentation"}], "must be a path below"),
        ([{"path": "/a", "kind": "Segmentation"}], "must be a path below"),
        ([{"path": "a", "kind": "Chart"}], "kind"),
        ([{**MASK, "labels": ["bone"]}], "unknown labels"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(outputs, words):
    with pytest.raises(PredictorError, match=words):
        conventions.get("grandchallenge", {"outputs": outputs}, labels=LABELS)


def test_a_socket_holds_exactly_one_image(tmp_path):
    convention = conventions.get("grandchallenge", {"outputs": [MASK]})
    (tmp_path / "images/ct").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no file named \*.mha or \*.tif"):
        convention.find_cases(tmp_path, 1)
    write(tmp_path / "images/ct/a.mha")
    write(tmp_path / "images/ct/b.mha")
    with pytest.raises(InputError, match="holds 2 images"):
        convention.find_cases(tmp_path, 1)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"a": 1}',
        '[{"socket": {"slug": 1}}]',
        "[3]",
        '[{"socket": {"slug": "ct"}}]',
        '[{"socket": {"slug": 3, "relative_path": "x"}}]',
        '[{"socket": {"slug": "a", "slug": "b", "relative_path": "x"}}]',
        '[{"socket": {"slug": "a", "relative_path": "x"}}, '
        '{"socket": {"slug": "a", "relative_path": "y"}}]',
        '[{"socket": {"slug": "a", "relative_path": "x"}}, '
        '{"socket": {"slug": "b", "relative_path": "x"}}]',
    ],
)
def test_a_damaged_inputs_json_is_an_error(tmp_path, content):
    write(tmp_path / "images/ct/a.mha")
    (tmp_path / "inputs.json").write_text(content)
    with pytest.raises(InputError, match="inputs.json"):
        conventions.get("grandchallenge", {"outputs": [MASK]}).find_cases(tmp_path, 1)


@pytest.mark.parametrize("place", ["../secret", "/etc", "images/../../x", "", "images/a\u0000b"])
def test_a_socket_s_path_stays_in_the_input_folder(tmp_path, place):
    listed = [{"interface": {"slug": "ct-image", "relative_path": place}}]
    (tmp_path / "inputs.json").write_text(json.dumps(listed))
    outputs = {"outputs": [{"path": "images/organs", "kind": "Segmentation"}]}
    with pytest.raises(InputError, match=r"inputs.json, socket 'ct-image': the path"):
        conventions.get("grandchallenge", outputs, labels={"organ": 1}).find_cases(tmp_path, 1)


def test_every_file_that_is_written_is_known_before(tmp_path):
    write(tmp_path / "in/images/ct-image/uuid.mha")
    outputs = [
        MASK,
        {"path": "images/lesions", "kind": "Segmentation", "labels": ["lesion"]},
        {"path": "volume.json", "kind": "Float", "labels": ["lesion"]},
        {"path": "found.json", "kind": "Boolean", "labels": ["lesion"]},
    ]
    settings = {"outputs": outputs}
    convention = conventions.get("grandchallenge", settings, labels=LABELS)
    cases = convention.find_cases(tmp_path / "in", 1)
    run(tmp_path / "in", tmp_path / "out", settings)
    known = {str(path) for path in conventions.outputs_of(convention, cases)}
    assert sorted(known) == tree(tmp_path / "out")
    assert len(known) == 4


def test_an_input_that_is_not_there_is_told_beside_those_that_are(tmp_path):
    write(tmp_path / "images/ct/a.mha")
    convention = conventions.get("grandchallenge", {"inputs": ["pet"], "outputs": [MASK]})
    with pytest.raises(InputError, match=r"no input 'pet' \(no inputs.json\)"):
        convention.find_cases(tmp_path, 1)
    list_sockets(tmp_path, ("ct", "images/ct"), ("age", "age.json"))
    with pytest.raises(InputError, match=r"no input 'pet' \(ct, age\)"):
        convention.find_cases(tmp_path, 1)
