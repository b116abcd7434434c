from __future__ import annotations

import json
import threading
import tracemalloc

import numpy as np
import pytest
import SimpleITK
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from flarekit import conventions
from flarekit.conventions.uls23 import stack as _stack
from flarekit.core.errors import InputError, OutputError, PredictorError
from flarekit.core.metaheader import geometry_from

REAL = (128, 256, 256)
SHAPE = (48, 96, 96)  # the same code on smaller volumes, but where their size is what is tested
CENTRE = (24, 48, 48)
STACK, SPACINGS = "images/stacked-3d-ct-lesion-volumes", "stacked-3d-volumetric-spacings.json"


@pytest.fixture(autouse=True)
def _small(request, monkeypatch):
    if "real_size" not in request.fixturenames:
        monkeypatch.setattr("flarekit.conventions.uls23.layout.SHAPE_ZYX", SHAPE)


@pytest.fixture
def real_size():
    """Leave volumes as large as the organisers' are."""


def beside(z=0, y=0, x=0):
    """Return a voxel so far from the centre."""
    return CENTRE[0] + z, CENTRE[1] + y, CENTRE[2] + x


def voi(seed, dtype=np.int16, shape=SHAPE):
    """Return a volume of interest that compresses well and differs from others everywhere."""
    ramp = np.arange(shape[2]) * (seed % 3 + 1) + 100 * seed
    plane = (ramp + np.arange(shape[1])[:, None]) % 1000
    return np.broadcast_to(plane - 500, shape).astype(dtype)


def write_input(folder, vois, spacings=None, compress=True, name="stack-uuid.mha"):
    image = SimpleITK.GetImageFromArray(np.concatenate(vois))
    image.SetSpacing((0.123456789, 7.0, 3.3))
    image.SetOrigin((1.5, -2.25, 1 / 3))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    (folder / STACK).mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(folder / STACK / name), compress)
    spacings = [[0.7, 0.8, 2.0 + k] for k in range(len(vois))] if spacings is None else spacings
    (folder / SPACINGS).write_text(json.dumps(spacings))
    return image


def blob(at, size=3, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[tuple(slice(n - size, n + size + 1) for n in at)] = 1
    return mask


def run(folder, output, label_maps, order=None):
    """Do what a run does, with a network that finds these; return the masks."""
    convention = conventions.get("uls23")
    cases = convention.find_cases(folder, 1)
    for index in order or range(len(cases)):
        (volume,) = convention.read_case(cases[index])
        convention.write_mask(cases[index], label_maps[index], volume.geometry, output)
    conventions.finish_run(convention, cases, output)
    written = SimpleITK.ReadImage(str(output / "images/ct-binary-uls/stack-uuid.mha"))
    return written, SimpleITK.GetArrayFromImage(written).reshape(-1, *SHAPE)


@pytest.mark.parametrize(
    ("dtype", "compress"), [(np.int16, True), (np.int32, False), (np.float32, True)]
)
def test_every_volume_is_read_as_stored_with_its_own_spacing(tmp_path, dtype, compress):
    vois = [voi(k, dtype) for k in range(3)]
    write_input(tmp_path, vois, compress=compress)
    convention = conventions.get("uls23")
    cases = convention.find_cases(tmp_path, 1)
    assert [case.case_id for case in cases] == [f"stack-uuid-{k:04d}" for k in range(3)]
    for k in (0, 1, 2, 0, 2):  # going back is allowed
        (volume,) = convention.read_case(cases[k])
        np.testing.assert_array_equal(volume.voxels_ZYX, vois[k])
        assert volume.voxels_ZYX.dtype == dtype
        assert volume.geometry.spacing_mm_ZYX == (2.0 + k, 0.8, 0.7)
        assert volume.geometry.shape_ZYX == SHAPE


def test_a_volume_is_handed_over_with_its_axes_as_stored(tmp_path):
    from flarekit.core.volume import orientation_of

    write_input(tmp_path, [voi(0)])
    convention = conventions.get("uls23")
    (volume,) = convention.read_case(convention.find_cases(tmp_path, 1)[0])
    orientation = orientation_of(volume.geometry.affine)
    assert orientation.axes == (0, 1, 2)
    assert orientation.flipped == (False, False, False)


def test_the_masks_are_one_file_with_the_stack_s_header(tmp_path):
    stack = write_input(tmp_path / "in", [voi(k) for k in range(4)])
    shifted = [blob(beside(k, -k, 2 * k)) for k in range(4)]
    written, masks = run(tmp_path / "in", tmp_path / "out", shifted)
    np.testing.assert_array_equal(masks, shifted)
    assert written.GetPixelID() == SimpleITK.sitkUInt8
    for field in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(written, field)() == getattr(stack, field)()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 1


def test_one_volume_makes_a_stack(tmp_path):
    write_input(tmp_path / "in", [voi(0)])
    _, masks = run(tmp_path / "in", tmp_path / "out", [blob(CENTRE)])
    np.testing.assert_array_equal(masks, [blob(CENTRE)])


def test_the_order_in_which_cases_end_does_not_matter(tmp_path):
    write_input(tmp_path / "in", [voi(k) for k in range(3)])
    label_maps = [blob(beside(z=k - 4)) for k in range(3)]
    _, masks = run(tmp_path / "in", tmp_path / "out", label_maps, order=(2, 0, 1))
    np.testing.assert_array_equal(masks, label_maps)


def test_each_mask_is_one_component_at_the_centre_and_never_nothing(tmp_path):
    write_input(tmp_path / "in", [voi(k) for k in range(4)])
    at_centre_and_elsewhere = blob(CENTRE) | blob(beside(x=32), 12)
    beside_the_centre = blob(beside(x=12)) | blob(beside(x=-28), 10)
    by_a_corner = blob(beside(-1, -1, -1), 0) | blob(CENTRE, 0)
    label_maps = [
        at_centre_and_elsewhere,
        beside_the_centre,
        np.zeros(SHAPE, np.uint8),
        by_a_corner,
    ]
    _, masks = run(tmp_path / "in", tmp_path / "out", label_maps)
    np.testing.assert_array_equal(masks[0], blob(CENTRE))
    np.testing.assert_array_equal(masks[1], blob(beside(x=12)))
    assert masks[2][CENTRE] == 1
    assert [ndimage.label(mask)[1] for mask in masks] == [1, 1, 1, 1]
    assert set(np.unique(masks)) == {0, 1}


def test_nothing_is_segmented_in_the_padding(tmp_path):
    for lowest in (-1001, -1000):  # below the scan's minimum, or equal to it
        padded = np.full(SHAPE, lowest, np.int16)
        padded[12:, :80, 10:] = -1000 + np.arange(86) % 8
        padded[20, 30, 40] = -1000
        write_input(tmp_path / "in", [padded])
        everywhere = np.ones(SHAPE, np.uint8)
        _, (mask,) = run(tmp_path / "in", tmp_path / "out", [everywhere])
        inside = np.zeros(SHAPE, bool)
        inside[12:, :80, 10 if lowest < -1000 else 11 :] = True
        np.testing.assert_array_equal(mask, inside)


def test_a_volume_of_one_value_is_no_padding(tmp_path):
    write_input(tmp_path / "in", [np.zeros(SHAPE, np.int16)])
    _, (mask,) = run(tmp_path / "in", tmp_path / "out", [blob(beside(6, -20, -20))])
    np.testing.assert_array_equal(mask, blob(beside(6, -20, -20)))


def test_permuting_the_stack_permutes_the_masks(tmp_path):
    order = [2, 0, 1]
    vois = [voi(k) for k in range(3)]
    spacings = [[0.7, 0.7, 1.0], [0.9, 0.9, 5.0], [0.5, 0.5, 2.0]]
    empty = [np.zeros(SHAPE, np.uint8)] * 3  # the ball depends on the spacing
    write_input(tmp_path / "a", vois, spacings)
    write_input(tmp_path / "b", [vois[k] for k in order], [spacings[k] for k in order])
    _, masks = run(tmp_path / "a", tmp_path / "out_a", empty)
    _, permuted = run(tmp_path / "b", tmp_path / "out_b", empty)
    np.testing.assert_array_equal(permuted, masks[order])
    assert len({mask.sum() for mask in masks}) == 3


def test_two_runs_give_the_same_bytes(tmp_path):
    write_input(tmp_path / "in", [voi(k) for k in range(2)])
    for name in "ab":
        run(tmp_path / "in", tmp_path / name, [blob(CENTRE), blob(beside(-4, -8, -8))])
    first, second = (
        (tmp_path / name / "images/ct-binary-uls/stack-uuid.mha").read_bytes() for name in "ab"
    )
    assert first == second


def test_a_failed_volume_gets_a_ball_at_its_centre_and_others_keep_theirs(tmp_path):
    write_input(tmp_path / "in", [voi(k) for k in range(3)])
    path = tmp_path / "in" / STACK / "stack-uuid.mha"
    path.write_bytes(path.read_bytes()[:-100])
    convention = conventions.get("uls23")
    cases = convention.find_cases(tmp_path / "in", 1)
    for case in cases[:2]:
        volumes = convention.read_case(case)
        convention.write_mask(case, blob(CENTRE), volumes[0].geometry, tmp_path / "out")
    with pytest.raises(InputError, match="stack-uuid.mha: (ends before slice 144|its zlib)"):
        convention.read_case(cases[2])
    mask = convention.write_empty_mask(cases[2], tmp_path / "out")
    masks = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(mask))).reshape(-1, *SHAPE)
    np.testing.assert_array_equal(masks[0], blob(CENTRE))
    assert masks[2][CENTRE] == 1
    assert masks[2].sum() * 0.7 * 0.8 * 4.0 == pytest.approx(4 / 3 * np.pi * 125, rel=0.2)


def test_a_run_that_leaves_masks_out_says_which(tmp_path):
    write_input(tmp_path / "in", [voi(k) for k in range(2)])
    convention = conventions.get("uls23")
    cases = convention.find_cases(tmp_path / "in", 1)
    convention.write_mask(
        cases[0], blob(CENTRE), convention.read_case(cases[0])[0].geometry, tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match="1 masks are missing .stack-uuid-0001"):
        conventions.finish_run(convention, cases, tmp_path / "out")


@pytest.mark.parametrize(
    ("spacings", "words"),
    [
        ([[1, 1, 1e-300]] * 2, "entry 0 .* is not a spacing"),
        ([[1] * 100_000] * 2, r"entry 0 \([\[1, ]{60}\) is not a spacing"),
        ([[1, 1, 1]], "has 1 spacings for 2 volumes"),
        ([[1, 1, 1]] * 3, "has 3 spacings for 2 volumes"),
        ([[1, 1, 1], [1, 1]], "entry 1"),
        ([[1, 1, 1], [1, 0, 1]], "entry 1"),
        ({"a": 1}, "is not a list"),
    ],
)
def test_spacings_that_do_not_fit_are_errors(tmp_path, spacings, words):
    write_input(tmp_path, [voi(0), voi(1)], spacings)
    with pytest.raises(InputError, match=words):
        conventions.get("uls23").find_cases(tmp_path, 1)


def test_input_that_is_no_stack_is_named(tmp_path):
    convention = conventions.get("uls23")
    with pytest.raises(InputError, match="not a folder"):
        convention.find_cases(tmp_path / "none", 1)
    with pytest.raises(InputError, match="no file named"):
        convention.find_cases(tmp_path, 1)
    write_input(tmp_path, [np.zeros((40, 96, 96), np.int16)])
    with pytest.raises(InputError, match="is 40 x 96 x 96 voxels, not N x 48"):
        convention.find_cases(tmp_path, 1)
    write_input(tmp_path, [voi(0)], name="another.mha")
    with pytest.raises(InputError, match="holds 2 images"):
        convention.find_cases(tmp_path, 1)
    with pytest.raises(PredictorError, match="one channel"):
        convention.find_cases(tmp_path, 2)


def test_without_spacings_there_is_nothing_to_go_by(tmp_path):
    write_input(tmp_path, [voi(0)])
    (tmp_path / SPACINGS).unlink()
    with pytest.raises(InputError, match="spacings.json: cannot be read"):
        conventions.get("uls23").find_cases(tmp_path, 1)


@pytest.mark.long
@pytest.mark.parametrize("compress", [True, False])
def test_memory_does_not_grow_with_the_number_of_volumes(tmp_path, monkeypatch, compress):
    small = (8, 96, 96)  # the same code on smaller volumes
    monkeypatch.setattr("flarekit.conventions.uls23.layout.SHAPE_ZYX", small)
    voi_bytes = int(np.prod(small)) * 2
    rng = np.random.default_rng(0)
    peaks = {}
    for count in (30, 130):
        folder = tmp_path / f"{count}-{compress}"
        write_input(
            folder, [rng.integers(0, 99, small, np.int16) for _ in range(count)], compress=compress
        )
        convention = conventions.get("uls23")
        cases = convention.find_cases(folder, 1)
        found = np.zeros(small, np.uint8)
        found[1:3, 40:60, 40:60] = 1
        tracemalloc.start()
        for case in cases:
            convention.write_mask(
                case, found, convention.read_case(case)[0].geometry, folder / "out"
            )
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        written = SimpleITK.ReadImage(str(folder / "out" / cases[0].mask))
        assert SimpleITK.GetArrayFromImage(written).sum() == count * found.sum()
    assert peaks[130] < peaks[30] + 3 * voi_bytes  # and not a hundred of them


@pytest.mark.slow
@pytest.mark.usefixtures("real_size")
def test_a_hundred_real_sized_volumes_stay_far_below_four_gigabytes(tmp_path):
    import resource

    write_input(tmp_path, [voi(0, shape=REAL)] * 100)
    convention = conventions.get("uls23")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in convention.find_cases(tmp_path, 1):
        convention.write_mask(
            case,
            blob((64, 128, 128), shape=REAL),
            convention.read_case(case)[0].geometry,
            tmp_path / "out",
        )
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 500


@pytest.mark.long
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_checksums_of_parts_join_to_that_of_the_whole(parts):
    import zlib

    joined = 1
    for part in parts:
        joined = _stack._joined(joined, zlib.adler32(part), len(part))
    assert joined == zlib.adler32(b"".join(parts))


def test_threads_may_share_a_stack(tmp_path):
    geometry = geometry_from((40, 6, 7), np.eye(4))
    stack = _stack.MaskStack(geometry, count=20)
    masks = np.random.default_rng(0).integers(0, 2, (20, 2, 6, 7)).astype(bool)
    threads = [
        threading.Thread(target=stack.put, args=(k, masks[k], tmp_path / "m.mha"))
        for k in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "m.mha")))
    np.testing.assert_array_equal(written.reshape(masks.shape), masks)


@pytest.mark.long
@pytest.mark.usefixtures("real_size")
def test_padding_on_both_sides_is_left_out_and_comes_back(tmp_path):
    voxels = np.full(REAL, -1500, np.int16)
    inside = (slice(30, 90), slice(50, 256), slice(60, 190))  # not padded on one side of Y
    shown = (slice(30, 98), slice(0, 256), slice(60, 196))
    voxels[inside] = voi(1, shape=REAL)[inside]
    write_input(tmp_path, [voxels])
    convention = conventions.get("uls23")
    (case,) = convention.find_cases(tmp_path, 1)
    (volume,) = convention.read_case(case)
    np.testing.assert_array_equal(volume.voxels_ZYX, voxels[shown])
    found = blob((66, 130, 126), shape=REAL)
    convention.write_mask(case, found[shown], volume.geometry, tmp_path)
    conventions.finish_run(convention, [case], tmp_path)
    (written,) = (tmp_path / "images/ct-binary-uls").iterdir()
    masks = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(written)))
    np.testing.assert_array_equal(masks, found)
