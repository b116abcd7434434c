"""Playing autoPET's organiser on images: what each call is given, and what it comes to."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK

from flarekit.containers import ProcessResult
from flarekit.core.errors import InputError
from flarekit.images.interactive import ImagePlayer, Play, find_examinations, play
from tests.verification.fake_images import Failure, FakeSandbox

SHAPE = (10, 20, 24)


def lesions(case):
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:7, 5 + case : 11 + case, 8:16] = 1
    return mask


@pytest.fixture
def cases(tmp_path, write_scan):
    """Return a folder of truths with scans beside it, in nnU-Net's layout."""
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    affine = np.array([[-2.0, 0, 0, 30], [0, -2, 0, 10], [0, 0, 3, -50], [0, 0, 0, 1]])
    for case in range(3):
        mask = lesions(case)
        write_scan(tmp_path / "labelsTr" / f"c{case}.nii.gz", mask, affine)
        write_scan(
            tmp_path / "imagesTr" / f"c{case}_0000.nii.gz", np.zeros(SHAPE, np.int16), affine
        )
        suv = (mask * 5 + 1).astype(np.float32)
        write_scan(tmp_path / "imagesTr" / f"c{case}_0001.nii.gz", suv, affine)
    return tmp_path / "labelsTr"


@dataclass
class Image:
    """A program that takes away or adds what is marked; it notes what it was given."""

    needs_cache: bool = False
    fails_at: int | None = None

    def __post_init__(self):
        self.points, self.cached = [], []

    def __call__(self, inside):
        if self.fails_at == len(self.points):
            raise Failure("no memory is left for this case")
        points = json.loads(inside.path("/input/lesion-clicks.json").read_text())["points"]
        self.points.append(points)
        note = inside.path("/cache") / "note"
        self.cached.append(note.is_file())
        if self.needs_cache and points and not note.is_file():
            raise Failure("what the call before has left is missing")
        note.write_text("seen")
        pet = SimpleITK.ReadImage(str(inside.image_of("/input/images/pet")))
        mask = (SimpleITK.GetArrayFromImage(pet) > 2).astype(np.uint8)
        mask[:, :, 12:] = 0
        for each in points:
            x, y, z = each["point"]
            mask[z, y, x] = each["name"] == "tumor"
        name = inside.image_of("/input/images/ct").name
        folder = "/output/images/tumor-lesion-segmentation"
        inside.write(f"{folder}/{name}", mask, pet)
        inside.seconds = 2.5


def played(image, cases, tmp_path, **how):
    player = ImagePlayer(FakeSandbox(image), timeout_s=60.0)
    return list(play(find_examinations(cases, None), player, Play(**how), tmp_path / "scratch"))


def test_six_calls_a_case_with_one_more_scribble_each(cases, tmp_path):
    image = Image()
    sessions = played(image, cases, tmp_path)
    assert [session.kind for session in sessions] == ["centerline", "random", "boundary"]
    assert [len(session.steps) for session in sessions] == [6, 6, 6]
    counts = [len(points) for points in image.points]
    for first in (0, 6, 12):
        assert counts[first] == 0
        assert all(
            a < b for a, b in zip(counts[first:], counts[first + 1 : first + 6], strict=False)
        )
    truth = lesions(0)
    assert all(truth[z, y, x] for x, y, z in (p["point"] for p in image.points[1]))
    dice = sessions[0].curve("dice")
    assert all(b > a for a, b in zip(dice[:-1], dice[1:], strict=True))
    assert sessions[0].steps[1].seconds == 2.5


@pytest.mark.long
def test_the_same_seed_plays_the_same_game(cases, tmp_path):
    one, same, other = Image(), Image(), Image()
    for image, seed in ((one, 1), (same, 1), (other, 2)):
        played(image, cases, tmp_path, seed=seed)
    assert one.points == same.points
    assert one.points != other.points


def test_edition_iv_gives_growing_sets_of_clicks_in_eleven_calls(cases, tmp_path):
    image = Image()
    sessions = played(image, cases, tmp_path, edition="4")
    assert {len(session.steps) for session in sessions} == {11}
    assert [len(points) for points in image.points[:11]] == [2 * k for k in range(11)]
    assert image.points[3][:3] == image.points[2][:2] + image.points[3][2:3]


def test_what_a_call_leaves_in_its_cache_is_there_in_the_next_of_the_case(cases, tmp_path):
    image = Image(needs_cache=True)
    sessions = played(image, cases, tmp_path)
    assert [session.error for session in sessions] == [None] * 3
    assert image.cached == ([False] + [True] * 5) * 3


def test_an_image_that_needs_its_cache_is_found_out(cases, tmp_path):
    sessions = played(Image(needs_cache=True), cases, tmp_path, forget=True)
    assert all("is missing" in session.error for session in sessions)
    assert all(len(session.steps) == 1 for session in sessions)


def test_an_image_that_forgets_is_played_to_the_end(cases, tmp_path):
    image = Image()
    sessions = played(image, cases, tmp_path, forget=True)
    assert not any(image.cached)
    assert [session.error for session in sessions] == [None] * 3


def test_a_case_that_fails_does_not_end_the_others(cases, tmp_path):
    sessions = played(Image(fails_at=2), cases, tmp_path)
    assert [len(session.steps) for session in sessions] == [2, 0, 0]
    assert "no memory" in sessions[0].error


def test_a_call_that_takes_too_long_or_writes_nothing_is_said(cases, tmp_path):
    class Slow(FakeSandbox):
        def run(self, _run):
            return ProcessResult(exit_code=137, seconds=60.0, timed_out=True)

    (session, *_) = play(
        find_examinations(cases, None),
        ImagePlayer(Slow(None), timeout_s=1.0),
        Play(),
        tmp_path / "scratch",
    )
    assert "not done in time" in session.error
    (session, *_) = played(lambda _inside: None, cases, tmp_path)
    assert "wrote 0 masks" in session.error


@pytest.mark.parametrize("shape", [(9, 20, 24), (10, 24, 20), (1, 1, 1)])
def test_a_mask_of_another_size_fails_its_case_alone(shape, cases, tmp_path):
    right = Image()

    def image(inside):
        if len(right.points) != 1:
            return right(inside)
        right.points.append([])
        name = inside.image_of("/input/images/ct").name
        pet = SimpleITK.GetImageFromArray(np.zeros(shape, np.uint8))
        return inside.write(
            f"/output/images/tumor-lesion-segmentation/{name}", np.zeros(shape, np.uint8), pet
        )

    first, *others = played(image, cases, tmp_path)
    size = " x ".join(map(str, shape[::-1]))
    assert first.error == f"call 2 wrote a mask of {size} voxels, the PET has 24 x 20 x 10"
    assert [session.error for session in others] == [None, None]


def test_truths_are_one_a_case_and_no_hidden_files(cases):
    (cases / "._c0.nii.gz").write_bytes(b"what a Mac leaves")
    assert [case.case_id for case in find_examinations(cases, None)] == ["c0", "c1", "c2"]
    (cases / "c1.mha").write_bytes(b"")
    with pytest.raises(InputError, match=r"c1\.mha and c1\.nii\.gz are masks of one case"):
        find_examinations(cases, None)


def test_scans_are_found_in_both_layouts_or_named_as_missing(cases, tmp_path):
    assert [case.case_id for case in find_examinations(cases, None)] == ["c0", "c1", "c2"]
    other = tmp_path / "platform"
    for name, channel in (("ct", 0), ("pet", 1)):
        (other / "images" / name).mkdir(parents=True)
        for case in range(3):
            source = tmp_path / "imagesTr" / f"c{case}_000{channel}.nii.gz"
            (other / "images" / name / f"c{case}.nii.gz").symlink_to(source)
    assert len(find_examinations(cases, other)) == 3
    (tmp_path / "imagesTr" / "c1_0001.nii.gz").unlink()
    with pytest.raises(InputError, match="no CT or PET of 'c1'"):
        find_examinations(cases, None)
    with pytest.raises(InputError, match="is not a folder"):
        find_examinations(tmp_path / "none", None)
