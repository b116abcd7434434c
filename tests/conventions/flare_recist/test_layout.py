"""Files of CTs with lines across lesions, whoever wrote them, and the masks that become of them."""

from __future__ import annotations

import json
import pickle
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from flarekit import conventions
from flarekit.conventions.flare_recist import samples
from flarekit.conventions.flare_recist.scan import WINDOWS_HU, stored_window
from flarekit.core.errors import InputError, OutputError, PredictorError
from flarekit.report.ledger import LEDGER, Ledger
from flarekit.segmentation.folder import Options, segment_folder

RECIST = conventions.get("flare_recist", labels={"lesion": 1})
USUAL = samples.arrays(samples.ONE)


def save(path, content, version=None, order="C", method=zipfile.ZIP_DEFLATED):
    """Write arrays as other programs do."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, array in content.items():
            with archive.open(f"{name}.npy", "w") as member:
                npy.write_array(member, np.asarray(array, order=order), version)


def run(inputs, outputs, convention=RECIST, found=lambda volume: volume.voxels_ZYX > 100):
    """Read, "segment" and write all cases; return the files that were written."""
    cases = convention.find_cases(inputs, 1)
    for case in cases:
        (volume,) = convention.read_case(case)
        label_map = found(volume).astype(np.uint8)
        convention.write_mask(case, label_map, volume.geometry, outputs)
    convention.finish_run(cases, outputs)
    return {path.name: load(path) for path in outputs.iterdir()}, cases


def load(path):
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def test_a_mask_comes_in_the_shape_and_with_the_spacing_of_its_file(tmp_path):
    save(tmp_path / "a.npz", USUAL)
    written, _ = run(tmp_path, tmp_path / "out")
    assert list(written) == ["a.npz"]
    assert set(written["a.npz"]) == {"segs", "spacing"}
    segs = written["a.npz"]["segs"]
    assert (segs.dtype, segs.shape) == (np.uint8, USUAL["imgs"].shape)
    assert written["a.npz"]["spacing"].tolist() == USUAL["spacing"].tolist()
    assert set(np.unique(segs)) == {0, 1}
    assert (segs[USUAL["recist"] == 1] == 1).all()


WAYS = {
    "version 1": {"version": (1, 0)},
    "version 2": {"version": (2, 0)},
    "stored": {"method": zipfile.ZIP_STORED},
    "columns first": {"order": "F"},
}


@pytest.mark.quick(3)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.bool_])
def test_however_a_file_is_stored_its_mask_is_the_same(way, kind, tmp_path):
    for name, how, lines in (("a", {}, np.uint8), ("b", WAYS[way], kind)):
        folder = tmp_path / name
        folder.mkdir()
        save(folder / "x.npz", {**USUAL, "recist": USUAL["recist"].astype(lines)}, **how)
    one, other = (run(tmp_path / n, tmp_path / f"{n}_out")[0]["x.npz"]["segs"] for n in "ab")
    assert one.any()
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ({"direction": np.eye(3).ravel(), "origin": np.zeros(3)}, False),
        ({"direction": np.eye(3), "origin": np.array([1, 2, 3])}, False),
        ({"spacing": np.array([[1.5, 1.5, 3.0]])}, False),
        ({"spacing": np.array([1.5, 1.5, 3.0], np.float32)}, False),
        ({"spacing": np.array([1, 1, 3])}, False),
        ({"spacing": np.array([0.0, 1.5, 3.0])}, True),
        ({"spacing": np.array([np.nan, 1.5, 3.0])}, True),
        ({"spacing": np.array([1.5, 3.0])}, True),
    ],
)
def test_what_a_file_says_of_its_geometry_may_be_missing_or_odd(more, warned, tmp_path):
    save(tmp_path / "a.npz", {**USUAL, **more})
    (case,) = RECIST.find_cases(tmp_path, 1)
    (volume,) = RECIST.read_case(case)
    assert bool(volume.warnings) == warned
    assert min(volume.geometry.spacing_mm_ZYX) > 0


def test_a_file_without_a_spacing_is_taken_for_cubes_of_one_mm(tmp_path):
    save(tmp_path / "a.npz", {name: USUAL[name] for name in ("imgs", "recist")})
    written, cases = run(tmp_path, tmp_path / "out")
    assert written["a.npz"]["spacing"].tolist() == [1.0, 1.0, 1.0]
    assert "cubes of 1 mm" in cases[0].notes[0]


@pytest.mark.parametrize("spacing", [[1e300, 1, 5], [1e-300, 1, 5], [np.nan, 1, 5], [-1, 1, 5]])
def test_a_spacing_that_cannot_be_is_told_and_taken_for_cubes(tmp_path, spacing):
    save(tmp_path / "a.npz", {**USUAL, "spacing": np.array(spacing)})
    (case,) = RECIST.find_cases(tmp_path, 1)
    assert "cubes of 1 mm" in case.notes[0]


@pytest.mark.parametrize("one", [np.array(1.5), np.array([1.5]), np.float32(1.5)])
def test_a_single_spacing_is_that_of_every_axis(one, tmp_path):
    save(tmp_path / "a.npz", {**USUAL, "spacing": one})
    (case,) = RECIST.find_cases(tmp_path, 1)
    (volume,) = RECIST.read_case(case)
    assert volume.geometry.spacing_mm_ZYX == (1.5, 1.5, 1.5)
    assert "such cubes" in case.notes[0]


def test_a_spacing_that_looks_turned_is_told_and_taken_as_it_is_stated(tmp_path):
    save(tmp_path / "a.npz", {**USUAL, "spacing": np.array([3.0, 1.5, 1.5])})
    (case,) = RECIST.find_cases(tmp_path, 1)
    (volume,) = RECIST.read_case(case)
    assert volume.geometry.spacing_mm_ZYX == (1.5, 1.5, 3.0)
    assert "is it (z, y, x)?" in case.notes[0]


@pytest.mark.parametrize("name", ["spacing", "direction", "origin", "meta"])
def test_objects_beside_the_volumes_are_never_unpickled(name, tmp_path):
    np.savez(tmp_path / "a.npz", **{**USUAL, name: np.array([Trap()], object)})
    written, _ = run(tmp_path, tmp_path / "out")
    assert written["a.npz"]["segs"].any()


@pytest.mark.parametrize("kind", [">i2", ">i4", "<u4", ">f4"])
def test_bytes_in_either_order_are_the_same_file(kind, tmp_path):
    for name, lines in (("a", USUAL["recist"]), ("b", USUAL["recist"].astype(kind))):
        folder = tmp_path / name
        folder.mkdir()
        spacing = USUAL["spacing"].astype(">f8" if name == "b" else "<f8")
        save(folder / "x.npz", {**USUAL, "recist": lines, "spacing": spacing})
    one, other = (run(tmp_path / n, tmp_path / f"{n}_out")[0]["x.npz"] for n in "ab")
    np.testing.assert_array_equal(one["segs"], other["segs"])
    assert one["spacing"].tolist() == other["spacing"].tolist()


def test_voxels_that_are_no_numbers_or_beyond_a_ct_are_counted(tmp_path):
    imgs = USUAL["imgs"].astype(np.float32)
    imgs[0, 0, :3], imgs[0, 1, :2] = np.nan, 1e30
    save(tmp_path / "a.npz", {**USUAL, "imgs": imgs})
    (case,) = RECIST.find_cases(tmp_path, 1)
    (volume,) = RECIST.read_case(case)
    told = " ".join(volume.warnings)
    assert "3 voxels of imgs are not finite" in told
    assert "2 voxels of imgs lie beyond" in told


def test_a_ct_without_a_finite_voxel_is_refused(tmp_path):
    save(tmp_path / "a.npz", {**USUAL, "imgs": np.full(USUAL["imgs"].shape, np.nan)})
    (case,) = RECIST.find_cases(tmp_path, 1)
    with pytest.raises(InputError, match=r"a\.npz.*none of its .* voxels is a finite number"):
        RECIST.read_case(case)


def test_lines_of_one_pixel_that_touch_or_lie_on_the_edge_all_get_their_lesion(tmp_path):
    content = samples.arrays(samples.MANY)
    save(tmp_path / "a.npz", content)
    written, cases = run(tmp_path, tmp_path / "out")
    segs = written["a.npz"]["segs"]
    assert len(cases) == len(samples.MANY)
    np.testing.assert_array_equal(np.unique(segs), np.arange(len(samples.MANY) + 1))
    for value in range(1, len(samples.MANY) + 1):
        assert (segs[content["recist"] == value] == value).all()


def test_what_two_lesions_claim_goes_to_the_nearer_line(tmp_path):
    recist = np.zeros((9, 40, 40), np.uint8)
    recist[4, 20, 10:18], recist[4, 20, 20:32] = 1, 2
    imgs = np.full(recist.shape, 200, np.uint8)
    save(tmp_path / "a.npz", {"imgs": imgs, "recist": recist, "spacing": np.ones(3)})
    written, _ = run(tmp_path, tmp_path / "out", found=lambda volume: volume.voxels_ZYX > -1e9)
    segs = written["a.npz"]["segs"][4, 20]
    assert segs[10:19].tolist() == [1] * 9
    assert segs[20:32].tolist() == [2] * 12
    assert np.count_nonzero(np.diff(segs[10:32].astype(int))) == 1


def test_values_of_lines_are_kept_whatever_they_are(tmp_path):
    recist = np.zeros((5, 30, 30), np.int32)
    recist[1, 5, 5:12], recist[3, 20, 5:12], recist[2, 12, 20:28] = 3, 200, 77
    save(
        tmp_path / "a.npz", {**USUAL, "recist": recist, "imgs": np.full(recist.shape, 9, np.uint8)}
    )
    written, cases = run(tmp_path, tmp_path / "out")
    assert set(np.unique(written["a.npz"]["segs"])) == {0, 3, 77, 200}
    assert [case.case_id for case in cases] == ["a_lesion_3", "a_lesion_77", "a_lesion_200"]


def test_a_lesion_that_is_marked_on_several_slices_is_taken_where_its_line_is_longest(tmp_path):
    recist = USUAL["recist"].copy()
    recist[3, 40, 40:43] = 1
    save(tmp_path / "a.npz", {**USUAL, "recist": recist})
    (case,) = RECIST.find_cases(tmp_path, 1)
    assert "marked on 2 slices: slice 15 is taken" in case.notes[0]


def test_numbers_that_are_no_lesion_are_left_out_and_counted(tmp_path):
    recist = USUAL["recist"].astype(np.float32)
    recist[2, 2, 2:5] = (0.5, -3.0, np.nan)
    save(tmp_path / "a.npz", {**USUAL, "recist": recist})
    (case,) = RECIST.find_cases(tmp_path, 1)
    assert "3 voxels hold no lesion's number" in case.notes[0]


def test_a_file_without_lines_gets_zeros(tmp_path):
    save(tmp_path / "a.npz", samples.arrays(()))
    written, _ = run(tmp_path, tmp_path / "out")
    segs = written["a.npz"]["segs"]
    assert segs.shape == USUAL["imgs"].shape
    assert not segs.any()


def test_the_window_is_told_from_the_histogram():
    rng = np.random.default_rng(0)
    hu = np.full((20, 64, 64), -1000.0)
    hu[:, 8:56, 8:56] = rng.choice([-100.0, 45.0], (20, 48, 48))
    hu[:, 20:40, 20:40] = -820.0
    hu += rng.normal(0, 15, hu.shape)
    for low, high in WINDOWS_HU:
        stored = np.rint((np.clip(hu, low, high) - low) / (high - low) * 255).astype(np.uint8)
        assert stored_window(stored) == (low, high)


def test_a_window_that_is_stated_is_taken(tmp_path):
    save(tmp_path / "a.npz", USUAL)
    stated = conventions.get("flare_recist", {"window_hu": [-100.0, 155.0]}, labels={"lesion": 1})
    (case,) = stated.find_cases(tmp_path, 1)
    (volume,) = stated.read_case(case)
    shown = USUAL["imgs"][volume.geometry.inside]
    seen = volume.voxels_ZYX[volume.geometry.placed]
    np.testing.assert_allclose(seen[shown > 0], shown[shown > 0] - 100.0, atol=1e-3)


@pytest.mark.parametrize(("by", "below"), [(4, 500), (1, 300), (3, 0)])
def test_values_beyond_a_byte_are_taken_for_hu_and_said_to_be(by, below, tmp_path):
    hu = USUAL["imgs"].astype(np.int16) * by - below
    save(tmp_path / "a.npz", {**USUAL, "imgs": hu})
    (case,) = RECIST.find_cases(tmp_path, 1)
    (volume,) = RECIST.read_case(case)
    assert "taken for HU" in volume.warnings[0]
    np.testing.assert_array_equal(
        volume.voxels_ZYX[volume.geometry.placed], hu[volume.geometry.inside]
    )


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_a_ct_between_0_and_1_is_refused_rather_than_rounded(kind, tmp_path):
    save(tmp_path / "a.npz", {**USUAL, "imgs": USUAL["imgs"].astype(kind) / kind(255)})
    (case,) = RECIST.find_cases(tmp_path, 1)
    with pytest.raises(InputError, match="lies between 0 and 1, not 0 and 255"):
        RECIST.read_case(case)
    save(tmp_path / "a.npz", {**USUAL, "imgs": USUAL["imgs"].astype(kind)})
    (case,) = RECIST.find_cases(tmp_path, 1)
    assert RECIST.read_case(case)[0].warnings == ()


def test_a_predictor_may_see_the_line_as_a_channel(tmp_path):
    save(tmp_path / "a.npz", USUAL)
    line = {"kind": "exp", "scale": 5.0, "unit": "mm"}
    settings = {"channels": ["CT", "line"], "line": line}
    convention = conventions.get("flare_recist", settings, labels={"lesion": 1})
    (case,) = convention.find_cases(tmp_path, 2)
    ct, line = convention.read_case(case)
    places = convention.read_points(case, [ct])["line"]
    assert line.voxels_ZYX.shape == ct.voxels_ZYX.shape
    np.testing.assert_allclose(line.voxels_ZYX[tuple(places.T)], 1.0)
    one, _ = (places[places[:, 2].argsort()][k] for k in (0, -1))
    beside = line.voxels_ZYX[one[0], one[1], one[2] - 1]
    assert beside == pytest.approx(np.exp(-1.5 / 5.0), rel=1e-5)
    with pytest.raises(PredictorError, match="which 1 channels"):
        convention.find_cases(tmp_path, 1)


class Trap:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def without(name):
    return {key: value for key, value in USUAL.items() if key != name}


BROKEN = {
    "no zip": (lambda path: path.write_bytes(b"not a zip"), "not a whole .npz"),
    "no image": (lambda path: save(path, without("imgs")), "no array 'imgs'"),
    "no lines": (lambda path: save(path, without("recist")), "no array 'recist'"),
    "other size": (
        lambda path: save(path, {**USUAL, "recist": USUAL["recist"][:, 1:]}),
        "is 32 x 95 x 112",
    ),
    "two axes": (lambda path: save(path, {**USUAL, "imgs": USUAL["imgs"][0]}), "no volume"),
    "a mask": (
        lambda path: save(
            path,
            {
                "imgs": np.zeros((64, 300, 300), np.uint8),
                "recist": np.ones((64, 300, 300), np.uint8),
            },
        ),
        "not its mask",
    ),
    "words": (
        lambda path: np.savez(path, imgs=np.array(["a"]), recist=USUAL["recist"]),
        "holds <U1",
    ),
    "objects": (
        lambda path: np.savez(
            path, imgs=np.array([Trap()], object), recist=USUAL["recist"], allow_pickle=True
        ),
        "never unpickled",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_says_why_and_costs_no_other(name, tmp_path):
    break_it, words = BROKEN[name]
    save(tmp_path / "good.npz", USUAL)
    break_it(tmp_path / "broken.npz")
    broken, good = RECIST.find_cases(tmp_path, 1)
    with pytest.raises(InputError, match=words) as caught:
        RECIST.read_case(broken)
    assert str(tmp_path / "broken.npz") in str(caught.value)
    pickle.loads(pickle.dumps(caught.value))
    RECIST.write_empty_mask(broken, tmp_path / "out")
    assert not load(tmp_path / "out" / "broken.npz")["segs"].any()
    (volume,) = RECIST.read_case(good)
    assert volume.voxels_ZYX.any()


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<u1', 'fortran_order': False, 'shape': (1, 2,",
        b"{'descr': '<u1', 3: False, 'shape': (1, 2, 3)}",
        b"{'descr': ',,', 'fortran_order': False, 'shape': (1, 2, 3)}",
        b"{'descr': 5, 'fortran_order': False, 'shape': (1, 2, 3)}",
        b"{[]: 3}",
        b"  x\n y",
        b"-" * 5000 + b"1",
        b"\xff\xfe",
    ],
)
def test_a_damaged_header_of_an_array_costs_no_other_file(header, tmp_path):
    save(tmp_path / "good.npz", USUAL)
    with zipfile.ZipFile(tmp_path / "broken.npz", "w") as archive:
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        archive.writestr("imgs.npy", content)
        archive.writestr("spacing.npy", content)
    broken, good = RECIST.find_cases(tmp_path, 1)
    with pytest.raises(InputError, match=r"broken\.npz"):
        RECIST.read_case(broken)
    RECIST.write_empty_mask(broken, tmp_path / "out")
    assert not load(tmp_path / "out" / "broken.npz")["segs"].any()
    assert RECIST.read_case(good)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_file_that_ends_too_early_is_told(share, tmp_path):
    save(tmp_path / "a.npz", USUAL)
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[: int(len(content) * share)])
    (case,) = RECIST.find_cases(tmp_path, 1)
    with pytest.raises(InputError, match=r"a\.npz"):
        RECIST.read_case(case)


def test_a_header_that_claims_more_than_there_is_allocates_nothing(tmp_path):
    def claim(shape):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            for name in ("imgs", "recist"):
                with archive.open(f"{name}.npy", "w") as member:
                    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    npy.write_array_header_1_0(member, header)
                    member.write(b"\0" * 64)
        (case,) = RECIST.find_cases(tmp_path, 1)
        with pytest.raises(InputError) as caught:
            RECIST.read_case(case)
        return str(caught.value)

    assert "claims to have" in claim((4096, 4096, 4096))
    assert "ends too early" in claim((600, 512, 512))


def test_a_lesion_that_failed_gets_a_body_along_its_line(tmp_path):
    save(tmp_path / "a.npz", USUAL)
    (case,) = RECIST.find_cases(tmp_path, 1)
    RECIST.write_empty_mask(case, tmp_path / "out")
    segs = load(tmp_path / "out" / "a.npz")["segs"]
    assert (segs[USUAL["recist"] == 1] == 1).all()
    assert segs.sum() > 100


def test_a_lesion_without_a_mask_is_named_at_the_end(tmp_path):
    save(tmp_path / "a.npz", samples.arrays(samples.MANY))
    cases = RECIST.find_cases(tmp_path, 1)
    RECIST.write_empty_mask(cases[0], tmp_path / "out")
    with pytest.raises(OutputError, match="6 masks are missing"):
        RECIST.finish_run(cases, tmp_path / "out")


def test_other_files_and_folders_are_left_alone(tmp_path):
    save(tmp_path / "a.b.npz", USUAL)
    (tmp_path / ".hidden.npz").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.npz").mkdir()
    (case,) = RECIST.find_cases(tmp_path, 1)
    assert str(case.mask) == "a.b.npz"
    with pytest.raises(InputError, match="is not a folder"):
        RECIST.find_cases(tmp_path / "none", 1)


def test_the_record_has_the_length_of_the_line_and_the_diameter_of_the_mask(toy, tmp_path):
    inputs = tmp_path / "in"
    inputs.mkdir()
    save(inputs / "a.npz", USUAL)
    ledger = Ledger(tmp_path / "report")
    record = segment_folder(
        toy, inputs, tmp_path / "out", Options(convention="flare_recist", device="cpu")
    )
    ledger.add(record.cases[0])
    (line,) = (tmp_path / "report" / LEDGER).read_text().splitlines()
    measured = json.loads(line)["measured"]
    row = np.flatnonzero(USUAL["recist"][15, 48])
    assert measured["line_mm"] == pytest.approx(1.5 * (row[-1] - row[0]))
    assert measured["diameter_mm"] > 0
    assert measured["volume_ml"] > 0


def test_each_file_that_lacks_a_mask_is_named_with_its_lesions_and_no_other(tmp_path):
    for name in ("a", "b", "c"):
        save(tmp_path / f"{name}.npz", samples.arrays(samples.MANY[:2]))
    cases = RECIST.find_cases(tmp_path, 1)
    for case in cases:
        if case.case_id not in ("b_lesion_2", "c_lesion_1", "c_lesion_2"):
            RECIST.write_empty_mask(case, tmp_path / "out")
    with pytest.raises(OutputError) as caught:
        RECIST.finish_run(cases, tmp_path / "out")
    out = tmp_path / "out"
    assert caught.value.message == (
        f"{out / 'b.npz'}: not written, 1 masks are missing (b_lesion_2); "
        f"{out / 'c.npz'}: not written, 2 masks are missing (c_lesion_1, c_lesion_2)"
    )
    assert [path.name for path in out.iterdir()] == ["a.npz"]


def test_a_file_that_is_called_as_another_s_lesion_has_a_name_of_its_own(tmp_path):
    save(tmp_path / "a.npz", USUAL)
    save(tmp_path / "a_lesion_1.npz", samples.arrays(()))
    (tmp_path / "a_lesion_1_lesion_1.npz").write_bytes(b"damaged")
    ids = {case.mask.name: case.case_id for case in RECIST.find_cases(tmp_path, 1)}
    assert ids == {
        "a.npz": "a_lesion_1",
        "a_lesion_1.npz": "a_lesion_1.npz",
        "a_lesion_1_lesion_1.npz": "a_lesion_1_lesion_1",
    }
