from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from flarekit import conventions
from flarekit.conventions.uls23 import mask_checks, samples
from flarekit.conventions.uls23.mask_checks import Masks, components
from flarekit.core.central import central_component
from flarekit.core.errors import FlarekitError
from flarekit.verification.trials import TaskFacts
from tests.verification.fake_images import Failure, failed, findings, read

SHAPE = (16, 32, 32)  # the organiser's is a thousand times as many voxels
FOLDER = f"/input/{samples.IMAGES}"
ULS23 = conventions.checks_of("uls23")
WANTED = TaskFacts(values=frozenset({0, 1}), time_s=600)


@pytest.fixture(autouse=True, scope="module")
def _small_volumes():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(samples, "SHAPE_ZYX", SHAPE)
        monkeypatch.setattr(mask_checks, "SHAPE_ZYX", SHAPE)
        samples.volume_of_interest.cache_clear()
        yield
        samples.volume_of_interest.cache_clear()


@dataclass
class Image:
    """A program that segments stacks well; each fault that is set spoils one thing."""

    fault: str = ""
    each_s: float = 0.1
    each_mib: float = 0.0

    def __call__(self, inside):
        path = inside.image_of(FOLDER)
        stack = read(path)
        volumes = SimpleITK.GetArrayFromImage(stack).reshape(-1, *SHAPE)
        spacings = json.loads(inside.path(f"/input/{samples.SPACINGS}").read_text())
        if len(spacings) != len(volumes) and self.fault != "takes any spacings":
            raise Failure(f"{len(spacings)} spacings for {len(volumes)} volumes")
        inside.seconds = 2.0 + self.each_s * len(volumes)
        inside.peak_mib = 300.0 + self.each_mib * len(volumes)
        self.complain(volumes, stack)
        pairs = zip(volumes, spacings, strict=False)
        masks = [self.mask(k, *pair) for k, pair in enumerate(pairs)]
        self.write(inside, path.name, self.stacked(masks), stack)

    def complain(self, volumes, stack):
        if self.fault == "one volume only" and len(volumes) != 1:
            raise Failure("one volume was expected and more were found")
        if self.fault == "sixteen bits only" and "16" not in stack.GetPixelIDTypeAsString():
            raise Failure("voxels of sixteen bits were expected here")
        if self.fault == "fewer than fifty" and len(volumes) >= 50:
            raise Failure("no memory is left for another volume")

    def mask(self, index, voxels, spacing):
        mask = np.zeros(SHAPE, np.bool_)
        mask[7:10, 14:19, 14 - 4 * (spacing[2] == 8.0) : 19] = True  # the last scene's is larger
        if self.fault == "depends on its place" and index % 2:
            mask[6, 14:19, 14:19] = True
        if self.fault == "one is empty" and spacing[2] == 24.0:
            return np.zeros(SHAPE, np.bool_)
        if self.fault == "speckle":
            mask[2, 2, 20] = mask[13, 4, 28] = True
        if self.fault == "largest":
            mask = np.roll(mask, (4, -8, 10), axis=(0, 1, 2))
        inside = voxels > voxels.min()
        faces = np.ix_(*(inside.any(axis=axes) for axes in ((1, 2), (0, 2), (0, 1))))
        allowed = np.zeros(SHAPE, np.bool_)
        allowed[faces] = True
        if self.fault == "fills the padding":
            allowed[:] = True
        if self.fault in ("speckle", "largest"):
            return mask & allowed
        return central_component(mask, tuple(spacing[::-1]), allowed)

    def stacked(self, masks):
        if self.fault == "mixes them up" and len(masks) > 1:
            masks[0], masks[-1] = masks[-1], masks[0]
        if self.fault == "leaves the last ones out" and len(masks) > 50:
            masks[-1] = np.zeros_like(masks[-1])
        return np.concatenate(masks).astype(self.dtype)

    @property
    def dtype(self):
        return np.int16 if self.fault == "sixteen bits" else np.uint8

    def write(self, inside, name, masks, stack):
        folder = f"/output/{mask_checks.OUTPUT}"
        if self.fault == "another name":
            name = "mask.mha"
        if self.fault == "255":
            masks = masks * np.uint8(255)
        if self.fault == "own header":
            inside.write(f"{folder}/{name}", masks, stack, Origin=(0.0, 0.0, 0.0))
        elif self.fault == "own size":
            inside.write(f"{folder}/{name}", masks[::2], stack)
        else:
            inside.write(f"{folder}/{name}", masks, stack)
        if self.fault == "two files":
            inside.write(f"{folder}/logits.mha", masks, stack)
        if self.fault == "damaged":
            written = inside.path(f"{folder}/{name}")
            written.write_bytes(written.read_bytes()[:-20])


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    ("image", "names"),
    [
        (Image(), set()),
        (Image("another name"), {"output_tree"}),
        pytest.param(Image("two files"), {"output_tree"}, marks=pytest.mark.long),
        (Image("sixteen bits"), {"stored_type"}),
        pytest.param(Image("255"), {"stored_type"}, marks=pytest.mark.long),
        (Image("own header"), {"geometry"}),
        pytest.param(Image("own size"), {"geometry"}, marks=pytest.mark.long),
        (Image("one volume only"), {"four_volumes"}),
        (Image("one is empty"), {"one_component"}),
        pytest.param(Image("speckle"), {"one_component"}, marks=pytest.mark.long),
        (Image("largest"), {"central"}),
        (Image("fills the padding"), {"padding"}),
        (Image("mixes them up"), {"order", "hundred_volumes"}),
        pytest.param(Image("depends on its place"), {"order"}, marks=pytest.mark.long),
        (Image("sixteen bits only"), {"voxel_types"}),
        (Image("takes any spacings"), {"spacing_count"}),
        (Image("fewer than fifty"), {"hundred_volumes"}),
        pytest.param(
            Image("leaves the last ones out"), {"hundred_volumes"}, marks=pytest.mark.long
        ),
        (Image(each_mib=17.0), {"flat_memory"}),
    ],
    ids=lambda value: getattr(value, "fault", ""),
)
def test_each_misbehaviour_is_named_by_its_check(tmp_path, image, names):
    found = findings(ULS23, image, WANTED, tmp_path)
    assert failed(found) == names
    if not names:
        skipped = {name for name, finding in found.items() if finding.state != "pass"}
        assert skipped == {"given_inputs"}


def our_own(inside):
    """Segment a stack with the project's convention and a network that finds what is not dark."""
    convention = conventions.get("uls23")
    try:
        cases = convention.find_cases(inside.path("/input"), 1)
        for case in cases:
            (volume,) = convention.read_case(case)
            found = (volume.voxels_ZYX > -500).astype(np.uint8)
            convention.write_mask(case, found, volume.geometry, inside.path("/output"))
        conventions.finish_run(convention, cases, inside.path("/output"))
    except FlarekitError as error:
        raise Failure(str(error)) from None


def test_the_project_s_own_convention_passes(tmp_path, monkeypatch):
    monkeypatch.setattr("flarekit.conventions.uls23.layout.SHAPE_ZYX", SHAPE)
    found = findings(ULS23, our_own, WANTED, tmp_path)
    assert not failed(found)
    skipped = {name for name, finding in found.items() if finding.state != "pass"}
    assert skipped == {"given_inputs"}


def test_a_damaged_mask_is_named(tmp_path):
    found = findings(ULS23, Image("damaged"), WANTED, tmp_path)
    assert "stored_type" in failed(found)
    assert "ends before slice" in found["stored_type"].reason


@pytest.mark.long
def test_reasons_give_figures(tmp_path):
    found = findings(ULS23, Image(each_mib=16.0), WANTED, tmp_path / "memory")
    assert found["flat_memory"].reason == (
        "364 MiB for 4 volumes, 1900 MiB for 100: 16.0 MiB more with each"
    )
    found = findings(ULS23, Image("one is empty"), WANTED, tmp_path / "empty")
    assert found["one_component"].reason == "volume 2 has no components"
    found = findings(ULS23, Image("another name"), WANTED, tmp_path / "name")
    wanted = f"{mask_checks.OUTPUT}/{samples.NAME}"
    assert found["output_tree"].reason.startswith(
        f"no {wanted}; wrote {mask_checks.OUTPUT}/mask.mha"
    )


@pytest.mark.long
def test_a_slow_image_gets_as_many_volumes_as_there_is_time_for(tmp_path):
    found = findings(ULS23, Image(each_s=10.0, each_mib=16.0), WANTED, tmp_path / "slow")
    hundred = found["hundred_volumes"]
    assert hundred.state == "skip"
    assert hundred.reason == "47 volumes go well, but 100 volumes take too long here; " + (
        "give --timeout 1320"
    )
    assert failed(found) == {"flat_memory"}
    found = findings(ULS23, Image(each_s=60.0), WANTED, tmp_path / "slower")
    assert found["hundred_volumes"].reason.startswith("100 volumes take too long here")
    assert found["flat_memory"].state == "skip"
    roomy = findings(ULS23, Image(each_s=60.0), WANTED, tmp_path / "roomy", timeout_s=7800)
    assert roomy["hundred_volumes"].state == "pass"


def test_in_another_order_every_one_of_four_volumes_stands_elsewhere(tmp_path):
    orders = set()

    def noted(inside):
        spacings = json.loads(inside.path(f"/input/{samples.SPACINGS}").read_text())
        orders.add(tuple(map(tuple, spacings)))
        Image()(inside)

    findings(ULS23, noted, WANTED, tmp_path)
    usual = tuple(samples.spacing_mm(scene)[::-1] for scene in samples.SCENES)
    assert usual in orders
    other = [each for each in orders if len(each) == 4 and each != usual]
    assert any(
        sorted(each) == sorted(usual) and all(a != b for a, b in zip(each, usual, strict=True))
        for each in other
    )


def test_memory_that_is_not_seen_is_not_judged(tmp_path):
    def unseen(inside):
        Image()(inside)
        inside.peak_mib = None

    found = findings(ULS23, unseen, WANTED, tmp_path)
    assert found["flat_memory"].state == "skip"
    assert "not seen" in found["flat_memory"].reason


def test_parts_that_touch_by_corners_only_are_worth_a_warning(tmp_path):
    image = SimpleITK.GetImageFromArray(np.zeros(SHAPE, np.uint8))
    image[16, 16, 8] = image[17, 17, 9] = 1
    SimpleITK.WriteImage(image, str(tmp_path / "m.mha"))
    header = mask_checks.read_header(tmp_path / "m.mha")
    masks = Masks(path=tmp_path / "m.mha", header=header, spacings_mm_ZYX=[(1.0, 1.0, 1.0)])
    finding = components(masks)
    assert finding.state == "warn"
    assert finding.reason == "volume 0 has 2 parts that touch by edges or corners only"


@pytest.mark.long
def test_inputs_that_are_given_are_run_too(tmp_path):
    given = tmp_path / "given"
    given.mkdir()
    samples.write_stack(given, samples.SCENES[:2], dtype="float32")
    stack = next((given / samples.IMAGES).iterdir())
    stack.rename(stack.with_name("own.mha"))
    wanted = replace(WANTED, user_inputs=given)
    assert findings(ULS23, Image(), wanted, tmp_path / "a")["given_inputs"].state == "pass"
    found = findings(ULS23, Image("speckle"), wanted, tmp_path / "b")
    assert found["given_inputs"].reason == ("volume 0 has 3 components; volume 1 has 2 components")
    (given / samples.SPACINGS).unlink()
    found = findings(ULS23, Image(), wanted, tmp_path / "c")
    assert "are needed" in found["given_inputs"].reason


def written(folder: Path, scenes, **how):
    folder.mkdir()
    samples.write_stack(folder, scenes, **how)
    return SimpleITK.ReadImage(str(folder / samples.IMAGES / samples.NAME))


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_every_reader_reads_the_generated_stacks(tmp_path, dtype, compressed):
    scenes = [samples.SCENES[k] for k in (0, 1, 2, 3, 1, 1)]
    image = written(tmp_path / "inputs", scenes, dtype=dtype, compressed=compressed)
    voxels = SimpleITK.GetArrayFromImage(image)
    assert voxels.dtype == dtype
    expected = np.concatenate([samples.volume_of_interest(scene) for scene in scenes])
    np.testing.assert_array_equal(voxels, expected)
    spacings = json.loads((tmp_path / "inputs" / samples.SPACINGS).read_text())
    assert spacings[3] == [220 / 32, 220 / 32, 128 / 16]
    assert len(spacings) == 6


def test_a_node_lies_in_a_corner_of_the_scan_and_a_lung_at_its_lower_end():
    padded = [
        {
            axis
            for axis, part in enumerate(samples.scan_box(scene))
            if part != slice(0, samples.SHAPE_ZYX[axis])
        }
        for scene in samples.SCENES
    ]
    assert padded == [set(), {0}, {1, 2}, set()]


@pytest.mark.quick(2)
@pytest.mark.parametrize("scene", samples.SCENES)
def test_a_scene_has_its_lesion_at_the_centre_and_its_padding_at_the_faces(scene, monkeypatch):
    monkeypatch.setattr(samples, "SHAPE_ZYX", (64, 128, 128))
    samples.volume_of_interest.cache_clear()
    voxels = samples.volume_of_interest(scene)
    assert abs(voxels[32, 64, 64] - scene.lesion_hu) < 50
    around = voxels[31:34, 63:66, 64:67].mean(), voxels[30:35, 20:30, 90:100].mean()
    assert abs(around[0] - scene.lesion_hu) < 10
    assert abs(around[1] - scene.tissue_hu) < 40
    box = samples.scan_box(scene)
    outside = np.ones(voxels.shape, np.bool_)
    outside[box] = False
    if scene.padding:
        assert set(np.unique(voxels[outside])) == {voxels[box].min() - scene.below}
    else:
        assert not outside.any()
    again = voxels.copy()
    samples.volume_of_interest.cache_clear()
    np.testing.assert_array_equal(samples.volume_of_interest(scene), again)
