from __future__ import annotations

import json

import numpy as np
import pytest
import SimpleITK
from scipy.ndimage import gaussian_filter

from flarekit import conventions
from flarekit.conventions.autopet.clicks import read_clicks
from flarekit.core.errors import InputError, PredictorError

SHAPE = (7, 9, 11)  # z, y, x: unequal, so that no order of axes is mistaken for another
SPACING = (2.036, 2.036, 3.0)
OLD, NEW = "automated-petct-lesion-segmentation", "tumor-lesion-segmentation"


def write(
    path, voxels_ZYX, origin=(-100.25, 33.3333333333, -700.1), spacing=SPACING, compress=True
):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(np.asarray(voxels_ZYX))
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(path), compress)
    return path


def make_input(
    folder, ct_stem="ct-uuid", pet_stem="pet-uuid", clicks=None, ct_origin=None, pet=None
):
    rng = np.random.default_rng(0)
    ct = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
    pet = rng.uniform(0, 8, SHAPE).astype(np.float32) if pet is None else pet
    write(folder / "images/pet" / f"{pet_stem}.mha", pet)
    moved = {} if ct_origin is None else {"origin": ct_origin}
    write(folder / "images/ct" / f"{ct_stem}.mha", ct, **moved)
    if clicks is not None:
        (folder / "lesion-clicks.json").write_text(clicks)
    return ct, pet


def points(*entries):
    listed = [{"point": list(point), "name": name} for name, point in entries]
    return json.dumps(
        {"version": {"major": 1, "minor": 0}, "type": "Multiple points", "points": listed}
    )


def run(folder, output, channels=2, settings=None, labels=None, paint=None):
    """Do what a run does, with a network that finds `paint`."""
    convention = conventions.get("autopet", settings, labels=labels)
    (case,) = convention.find_cases(folder, channels)
    volumes = convention.read_case(case)
    label_map = np.zeros(SHAPE, np.uint8) if paint is None else paint
    return convention.write_mask(case, label_map, volumes[0].geometry, output), volumes


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("edition", "clicks", "expected"),
    [
        (1, None, [f"images/{OLD}/ct-uuid.mha"]),
        (2, None, [f"images/{OLD}/ct-uuid.mha"]),
        (3, None, ["data-centric-model.json", f"images/{OLD}/ct-uuid.mha"]),
        ("auto", None, ["data-centric-model.json", f"images/{OLD}/ct-uuid.mha"]),
        (4, points(), [f"images/{NEW}/ct-uuid.mha"]),
        (5, points(), [f"images/{NEW}/ct-uuid.mha"]),
        (5, None, [f"images/{NEW}/ct-uuid.mha"]),
        ("auto", points(), [f"images/{NEW}/ct-uuid.mha"]),
    ],
)
def test_each_edition_gets_exactly_its_files_named_after_the_ct(
    tmp_path, edition, clicks, expected
):
    make_input(tmp_path / "in", clicks=clicks)
    run(tmp_path / "in", tmp_path / "out", settings={"edition": edition})
    assert tree(tmp_path / "out") == expected


@pytest.mark.parametrize("answer", [True, False])
def test_the_data_centric_file_is_a_bare_boolean(tmp_path, answer):
    make_input(tmp_path / "in")
    run(tmp_path / "in", tmp_path / "out", settings={"edition": 3, "data_centric": answer})
    assert json.loads((tmp_path / "out/data-centric-model.json").read_text()) is answer
    settings = {"edition": 3, "data_centric": answer}
    convention = conventions.get("autopet", settings)
    known = conventions.outputs_of(convention, convention.find_cases(tmp_path / "in", 2))
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(tmp_path / "out" / path for path in known) == sorted(written)


def test_a_mask_is_zeros_and_ones_on_exactly_the_pet_s_geometry(tmp_path):
    make_input(tmp_path / "in")
    paint = np.random.default_rng(1).integers(0, 2, SHAPE).astype(np.uint8) * 14
    path, _ = run(tmp_path / "in", tmp_path / "out", labels={"liver": 1, "lesion": 14}, paint=paint)
    mask = SimpleITK.ReadImage(str(path))
    pet = SimpleITK.ReadImage(str(tmp_path / "in/images/pet/pet-uuid.mha"))
    assert mask.GetPixelID() == SimpleITK.sitkUInt8
    assert mask.GetOrigin() == pet.GetOrigin()
    assert mask.GetSpacing() == pet.GetSpacing()
    assert mask.GetDirection() == pet.GetDirection()
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(mask), paint > 0)


def test_the_fields_of_a_nifti_file_do_not_leak_into_the_mask(tmp_path):
    make_input(tmp_path / "in")
    for modality in ("ct", "pet"):
        path = tmp_path / f"in/images/{modality}/{modality}-uuid.mha"
        image = SimpleITK.ReadImage(str(path))
        image.SetMetaData("qform_code_name", "NIFTI_XFORM_SCANNER_ANAT")
        image.SetMetaData("PatientName", "somebody")
        SimpleITK.WriteImage(image, str(path), True)
    path, _ = run(tmp_path / "in", tmp_path / "out")
    assert b"qform" not in path.read_bytes()
    assert b"somebody" not in path.read_bytes()


def test_channels_are_ct_then_pet_as_stored(tmp_path):
    ct, pet = make_input(tmp_path / "in")
    _, volumes = run(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(volumes[0].voxels_ZYX, ct)
    np.testing.assert_array_equal(volumes[1].voxels_ZYX, pet)
    assert volumes[0].warnings == volumes[1].warnings == ()


def test_a_predictor_may_order_them_otherwise(tmp_path):
    ct, pet = make_input(tmp_path / "in")
    _, volumes = run(tmp_path / "in", tmp_path / "out", settings={"channels": ["PET", "CT"]})
    np.testing.assert_array_equal(volumes[0].voxels_ZYX, pet)
    _, volumes = run(tmp_path / "in", tmp_path / "out", 1, settings={"channels": ["PET"]})
    np.testing.assert_array_equal(volumes[0].voxels_ZYX, pet)
    with pytest.raises(PredictorError, match="which 1 channels"):
        conventions.get("autopet").find_cases(tmp_path / "in", 1)


def test_a_ct_off_by_rounding_is_taken_as_it_is(tmp_path):
    ct, _ = make_input(tmp_path / "in", ct_origin=(-100.25 + 1e-5, 33.3333333333, -700.1))
    _, volumes = run(tmp_path / "in", tmp_path / "out")
    np.testing.assert_array_equal(volumes[0].voxels_ZYX, ct)
    np.testing.assert_array_equal(volumes[0].geometry.affine, volumes[1].geometry.affine)
    assert volumes[0].warnings == ()


def test_a_ct_on_another_grid_is_resampled_and_says_so(tmp_path):
    x, y, z = SPACING
    ct, _ = make_input(tmp_path / "in", ct_origin=(-100.25 + 2 * x, 33.3333333333 - y, -700.1))
    _, volumes = run(tmp_path / "in", tmp_path / "out")
    voxels = volumes[0].voxels_ZYX
    np.testing.assert_allclose(voxels[:, :-1, 2:], ct[:, 1:, :-2], atol=0.01)
    assert (voxels[:, :, :2] == -1024).all()
    assert (voxels[:, -1] == -1024).all()
    assert "resampled" in volumes[0].warnings[0]


def test_resampling_agrees_with_simpleitk_on_an_oblique_grid(tmp_path):
    make_input(tmp_path / "in")
    path = tmp_path / "in/images/ct/ct-uuid.mha"
    angle = 0.3
    turned = [np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1]
    voxels = np.random.default_rng(2).normal(size=(12, 13, 14)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(voxels)
    image.SetDirection(turned)
    image.SetSpacing((1.1, 1.7, 2.3))
    image.SetOrigin((-98.0, 30.0, -702.0))
    SimpleITK.WriteImage(image, str(path))
    _, volumes = run(tmp_path / "in", tmp_path / "out")
    pet = SimpleITK.ReadImage(str(tmp_path / "in/images/pet/pet-uuid.mha"))
    theirs = SimpleITK.Resample(image, pet, SimpleITK.Transform(), SimpleITK.sitkLinear, -1024.0)
    inside = SimpleITK.GetArrayFromImage(theirs) > -1000
    assert inside.any()
    np.testing.assert_allclose(
        volumes[0].voxels_ZYX[inside], SimpleITK.GetArrayFromImage(theirs)[inside], atol=1e-3
    )


def test_clicks_are_indices_x_first_drawn_as_the_baseline_draws_them(tmp_path):
    clicks = points(("tumor", (10, 1, 2)), ("tumor", (10, 1, 2)), ("background", (0, 8, 6)))
    make_input(tmp_path / "in", clicks=clicks)
    _, volumes = run(tmp_path / "in", tmp_path / "out", 4)
    for volume, (z, y, x) in zip(volumes[2:], ((2, 1, 10), (6, 8, 0)), strict=True):
        marked = np.zeros(SHAPE, np.float32)
        marked[z, y, x] = 1
        np.testing.assert_allclose(volume.voxels_ZYX, gaussian_filter(marked, 3), atol=1e-7)
        assert volume.voxels_ZYX.dtype == np.float32
        assert volume.geometry is volumes[1].geometry


def test_a_row_of_points_is_a_scribble_and_each_voxel_counts_once(tmp_path):
    row = [(x, 4, 3) for x in range(2, 9)]
    make_input(tmp_path / "in", clicks=points(*(("background", at) for at in [*row, *row])))
    settings = {"edition": 5, "click_sigma_voxels": 0}
    _, volumes = run(tmp_path / "in", tmp_path / "out", 4, settings)
    assert np.argwhere(volumes[3].voxels_ZYX).tolist() == [[3, 4, x] for x in range(2, 9)]
    assert not volumes[2].voxels_ZYX.any()


def test_odd_clicks_are_rounded_or_left_out_and_counted(tmp_path):
    clicks = json.loads(
        points(("tumor", (2.4, 3.5, 1)), ("tumor", (11, 0, 0)), ("tumor", (-1, 0, 0)))
    )
    clicks["points"] += [{"point": [1, 2]}, {"name": "tumor"}, None, {"point": ["a", 1, 2]}]
    make_input(tmp_path / "in", clicks=json.dumps(clicks))
    convention = conventions.get("autopet")
    (case,) = convention.find_cases(tmp_path / "in", 2)
    volumes = convention.read_case(case)
    found = conventions.points_of(convention, case, volumes)
    assert {name: places.tolist() for name, places in found.items()} == {"tumor": [[1, 4, 2]]}
    notes = " ".join(volumes[0].warnings)
    assert "2 of 7 points lie outside" in notes
    assert "4 of 7 points are malformed" in notes


def test_clicks_of_a_name_that_no_network_knows_are_counted_and_not_just_dropped(tmp_path):
    clicks = points((" Tumor ", (1, 1, 1)), ("lesion", (2, 1, 1)), ("", (3, 1, 1)))
    make_input(tmp_path / "in", clicks=clicks)
    convention = conventions.get("autopet")
    (case,) = convention.find_cases(tmp_path / "in", 2)
    volumes = convention.read_case(case)
    found = conventions.points_of(convention, case, volumes)
    assert {name: places.tolist() for name, places in found.items()} == {"tumor": [[1, 1, 1]]}
    assert "2 points are named neither tumor nor background ('lesion')" in " ".join(
        volumes[0].warnings
    )


def test_clicks_are_read_wherever_a_large_volume_has_them(tmp_path):
    path = tmp_path / "clicks.json"
    odd = [{"point": at, "name": "tumor"} for at in ([2**31, 0, 0], [True, 0, 0], [0, 0, None])]
    content = json.loads(points(("tumor", (0, 0, 0)), ("tumor", (511, 511, 999))))
    path.write_text(json.dumps({**content, "points": content["points"] + odd}))
    found, notes = read_clicks(path, (1000, 512, 512))
    assert found["tumor"].tolist() == [[0, 0, 0], [999, 511, 511]]
    assert notes == ("3 of 5 points are malformed and are left out",)


def test_two_images_of_one_name_are_refused(tmp_path):
    make_input(tmp_path)
    ct = tmp_path / "images" / "ct" / "ct-uuid.mha"
    ct.with_suffix(".MHA").write_bytes(ct.read_bytes())
    with pytest.raises(InputError, match="two images have one name"):
        conventions.get("autopet").find_cases(tmp_path, 2)


def test_a_ct_that_is_not_in_hu_is_named_also_where_it_is_resampled(tmp_path):
    make_input(tmp_path, ct_origin=(5.0, 0.0, 0.0))
    path = tmp_path / "images" / "ct" / "ct-uuid.mha"
    image = SimpleITK.ReadImage(str(path))
    shifted = SimpleITK.Cast(image, SimpleITK.sitkFloat32) * 0 + 0.5
    SimpleITK.WriteImage(shifted, str(path))
    _, volumes = run(tmp_path, tmp_path / "out")
    notes = " ".join(volumes[0].warnings)
    assert "resampled" in notes
    assert "its values lie between 0.5 and 0.5" in notes


def test_no_clicks_at_step_zero_and_a_missing_file_are_fine(tmp_path):
    make_input(tmp_path / "in", clicks=points())
    _, volumes = run(tmp_path / "in", tmp_path / "out", 4)
    assert not volumes[2].voxels_ZYX.any()
    assert volumes[0].warnings == ()
    (tmp_path / "in/lesion-clicks.json").unlink()
    _, volumes = run(tmp_path / "in", tmp_path / "out", 4, {"edition": 5})
    assert not volumes[3].voxels_ZYX.any()
    assert "without lesion-clicks.json" in volumes[0].warnings[0]


@pytest.mark.parametrize(("text", "words"), [("{", "is not JSON"), ("[]", "no list"), ("", "JSON")])
def test_a_file_that_is_no_list_of_clicks_is_an_error(tmp_path, text, words):
    make_input(tmp_path / "in", clicks=text)
    convention = conventions.get("autopet")
    (case,) = convention.find_cases(tmp_path / "in", 2)
    with pytest.raises(InputError, match=words):
        convention.read_case(case)


def test_a_pet_without_uptake_gives_an_empty_mask_whatever_was_found(tmp_path):
    make_input(tmp_path / "in", pet=np.zeros(SHAPE, np.float32))
    path, _ = run(tmp_path / "in", tmp_path / "out", paint=np.ones(SHAPE, np.uint8))
    assert not SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).any()


@pytest.mark.parametrize("damaged", ["pet", "ct"])
def test_a_damaged_image_gives_an_error_and_an_empty_mask_in_the_pet_s_geometry(tmp_path, damaged):
    make_input(tmp_path / "in")
    path = tmp_path / f"in/images/{damaged}/{damaged}-uuid.mha"
    path.write_bytes(path.read_bytes()[:-200])
    convention = conventions.get("autopet")
    (case,) = convention.find_cases(tmp_path / "in", 2)
    with pytest.raises(InputError, match=f"{damaged}-uuid.mha: .*(ends before|zlib)"):
        convention.read_case(case)
    mask = SimpleITK.ReadImage(str(convention.write_empty_mask(case, tmp_path / "out")))
    assert mask.GetSize() == SHAPE[::-1]
    assert mask.GetOrigin()[0] == -100.25
    assert not SimpleITK.GetArrayFromImage(mask).any()
    assert tree(tmp_path / "out") == ["data-centric-model.json", f"images/{OLD}/ct-uuid.mha"]


def test_of_unreadable_images_the_empty_mask_has_one_voxel(tmp_path):
    for modality in ("ct", "pet"):
        make_input(tmp_path / "in")
        (tmp_path / f"in/images/{modality}/{modality}-uuid.mha").write_bytes(b"<html>")
    (tmp_path / "in/images/ct/ct-uuid.mha").write_bytes(b"")
    convention = conventions.get("autopet")
    (case,) = convention.find_cases(tmp_path / "in", 2)
    path = convention.write_empty_mask(case, tmp_path / "out")
    assert SimpleITK.ReadImage(str(path)).GetSize() == (1, 1, 1)


def test_several_pairs_go_by_name_and_otherwise_are_refused(tmp_path):
    make_input(tmp_path / "in", "b", "b")
    make_input(tmp_path / "in", "a", "a")
    convention = conventions.get("autopet")
    assert [case.case_id for case in convention.find_cases(tmp_path / "in", 2)] == ["a", "b"]
    make_input(tmp_path / "in", "c", "d")
    with pytest.raises(InputError, match="which PET belongs to which CT"):
        convention.find_cases(tmp_path / "in", 2)


def test_a_missing_image_or_folder_is_named(tmp_path):
    convention = conventions.get("autopet")
    with pytest.raises(InputError, match="not a folder"):
        convention.find_cases(tmp_path / "none", 2)
    write(tmp_path / "in/images/ct/a.mha", np.zeros(SHAPE, np.int16))
    with pytest.raises(InputError, match="images/pet: no file named"):
        convention.find_cases(tmp_path / "in", 2)


@pytest.mark.parametrize(
    ("settings", "labels", "words"),
    [
        ({"editon": 3}, {}, "editon"),
        ({"edition": 6}, {}, "edition"),
        ({"edition": 3, "task": 2}, {}, "only edition 4"),
        ({"lesion": "bone"}, {"liver": 1}, "no label 'bone'"),
        ({}, {"liver": 1, "spleen": 2}, "one label, the lesion, and the predictor has 2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, labels, words):
    with pytest.raises(PredictorError, match=words):
        conventions.get("autopet", settings, labels=labels)


def follow_up_input(folder, roles=("primary",), baselines=("primary",)):
    rng = np.random.default_rng(5)
    seen = {}
    for role in roles:
        seen[role] = rng.integers(-1000, 1000, SHAPE).astype(np.int16)
        write(folder / f"images/{role}-followup-ct/{role}-fu.mha", seen[role])
        (folder / f"{role}-followup-lesion-clicks.json").write_text(
            points(("1", (8.2, 4.9, 3.1)), ("2", (2, 2, 2)))
        )
    for role in baselines:
        x, _, z = SPACING
        origin = (-100.25 + 50 * x, 33.3333333333, -700.1 - 20 * z)
        lesions = np.zeros(SHAPE, np.uint8)
        lesions[3, 5, 7] = 4
        write(folder / f"images/{role}-baseline-ct/{role}-bl.mha", np.full(SHAPE, 7), origin)
        write(folder / f"images/{role}-baseline-ct-tumor-lesion-seg/x.mha", lesions, origin)
        (folder / f"{role}-baseline-lesion-clicks.json").write_text(points(("1", (7, 5, 3))))
    return seen


@pytest.mark.parametrize(
    ("roles", "baselines"),
    [
        (("primary",), ("primary",)),
        (("primary", "secondary"), ("primary", "secondary")),
        (("primary",), ("primary", "secondary")),
        (("primary", "secondary"), ("primary",)),
    ],
)
def test_task_two_writes_one_mask_per_follow_up_in_each_of_its_four_interfaces(
    tmp_path, roles, baselines
):
    seen = follow_up_input(tmp_path / "in", roles, baselines)
    convention = conventions.get("autopet", labels={"lesion": 1})
    cases = convention.find_cases(tmp_path / "in", 3)
    for case, role in zip(cases, roles, strict=True):
        volumes = convention.read_case(case)
        np.testing.assert_array_equal(volumes[0].voxels_ZYX, seen[role])
        convention.write_mask(case, np.ones(SHAPE, np.uint8), volumes[0].geometry, tmp_path / "out")
    assert tree(tmp_path / "out") == [
        f"images/{role}-followup-ct-tumor-lesion-seg/{role}-fu.mha" for role in roles
    ]


def test_the_baseline_is_moved_by_lesions_that_both_name(tmp_path):
    follow_up_input(tmp_path / "in")
    convention = conventions.get("autopet", {"edition": 4, "task": 2})
    (case,) = convention.find_cases(tmp_path / "in", 4)
    volumes = convention.read_case(case)
    # the lesion named 1 is voxel (3, 5, 7) of the baseline and (3, 5, 8) of the follow-up
    assert np.argwhere(volumes[2].voxels_ZYX).tolist() == [[3, 5, 8]]
    assert volumes[2].voxels_ZYX.max() == 1
    found = conventions.points_of(convention, case, volumes)
    assert found["tumor"].tolist() == [[3, 5, 8], [2, 2, 2]]
    marked = np.zeros(SHAPE, np.float32)
    marked[3, 5, 8] = marked[2, 2, 2] = 1
    np.testing.assert_allclose(volumes[3].voxels_ZYX, gaussian_filter(marked, 3), atol=1e-7)


def test_task_two_names_what_is_missing(tmp_path):
    follow_up_input(tmp_path / "in", baselines=())
    convention = conventions.get("autopet")
    assert len(convention.find_cases(tmp_path / "in", 2)) == 1
    with pytest.raises(InputError, match="primary-baseline-ct: no file"):
        convention.find_cases(tmp_path / "in", 3)
    with pytest.raises(PredictorError, match="no usual order of 7 channels"):
        convention.find_cases(tmp_path / "in", 7)
    with pytest.raises(InputError, match="primary-followup-ct"):
        conventions.get("autopet", {"task": 2}).find_cases(tmp_path, 1)


def test_a_failed_follow_up_leaves_an_empty_mask_on_its_grid(tmp_path):
    follow_up_input(tmp_path / "in")
    convention = conventions.get("autopet")
    (case,) = convention.find_cases(tmp_path / "in", 1)
    mask = SimpleITK.ReadImage(str(convention.write_empty_mask(case, tmp_path / "out")))
    assert mask.GetSize() == SHAPE[::-1]
