from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from flarekit import conventions
from flarekit.conventions.autopet import samples
from flarekit.conventions.autopet.lesion_places import on_lesions, placed
from flarekit.conventions.autopet.samples import Variation
from flarekit.images.stated_task import stated_task
from flarekit.postprocess import clicks as click_rule
from flarekit.postprocess._scan import Scan
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import TaskFacts
from tests.conventions.autopet.petct_script import BROKEN, script
from tests.verification.fake_images import Failure, image_under_test

WANTED = TaskFacts(values=frozenset({0, 1}))
AUTOPET = conventions.checks_of("autopet")
SHARED = len(PLATFORM_IMAGE) + len(RUNS) + len(PLATFORM_RUNS)
OWN = AUTOPET.checks[SHARED:]


@pytest.fixture(scope="session", autouse=True)
def _cases_written_once(made_once):
    """Write each generated case once for all tests."""
    write = samples.write

    def copied(folder, variation):
        name = hashlib.sha256(repr(variation).encode()).hexdigest()
        case = made_once(name, lambda path: write(path, variation))
        shutil.copytree(case, folder, dirs_exist_ok=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "write", copied)
        yield


def program(**faults):
    """Return what runs the algorithm of `petct_script` in this process."""
    source = script(**faults)

    def run(inside):
        here = source
        for there in ("/input", "/output"):
            here = here.replace(f'Path("{there}")', f'Path("{inside.path(there)}")')
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(compile(here, "algorithm", "exec"), {"__name__": "algorithm"})
        except SystemExit as end:
            raise Failure(str(end.code)) from None
        except Exception as error:  # noqa: BLE001 - as Python does at the end of a program
            raise Failure(f"{type(error).__name__}: {error}") from None

    return run


def look(program, folder, *, labels=None, wanted=WANTED, only=None):
    """Run the convention's own checks, or some; return the findings by name."""
    image = image_under_test(AUTOPET, program, wanted, folder)
    image.sandbox.facts = replace(image.facts, labels=labels or {})
    image.task = replace(wanted, settings=stated_task(image.facts, "autopet").settings)
    checks = [check for check in OWN if only is None or check.name in only]
    return {check.name: check.look(image) for check in checks}


def failed(found):
    return {name: each.reason for name, each in found.items() if each.state == "fail"}


def skipped(found):
    return {name: each.reason for name, each in found.items() if each.state == "skip"}


def stating(**settings):
    return {"flarekit.facts": json.dumps({"settings": settings})}


@pytest.mark.slow
def test_an_algorithm_that_behaves_passes_everything(tmp_path):
    found = look(program(), tmp_path)
    assert failed(found) == {}
    assert skipped(found) == {"given_inputs": "no --input was given"}
    assert found["edition"].reason == "judged as III and IV (task 1) and V, by where it writes"


FIRST = {min(names): fault for fault, (_, names, _) in reversed(BROKEN.items())}


@pytest.mark.long
@pytest.mark.parametrize("check", [check.name for check in OWN if check.name != "given_inputs"])
def test_every_check_catches_a_fault_and_says_which(tmp_path, check):
    faults, _, words = BROKEN[FIRST[check]]
    found = look(program(**faults), tmp_path, only={check})
    assert found[check].state == "fail"
    assert words in found[check].reason


@pytest.mark.slow
@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_caught_by_the_check_that_is_about_it_and_by_no_other(tmp_path, fault):
    faults, names, words = BROKEN[fault]
    found = failed(look(program(**faults), tmp_path))
    assert found.keys() == names
    assert words in found[min(names)]


PLAIN = "folder = 'automated-petct-lesion-segmentation'"
CLICKED = "folder = 'tumor-lesion-segmentation'"
NO_CLICKS = "clicks = []"


@pytest.mark.long
def test_an_algorithm_for_iii_is_judged_without_clicks(tmp_path):
    found = look(program(mask=NO_CLICKS, image=PLAIN), tmp_path)
    assert failed(found) == {}
    assert found["edition"].reason == "judged as III, by where it writes"
    unasked = {"clicks_empty", "clicks_outside", "clicks_floats", "scribbles", "clicks_placed"}
    assert {name for name, why in skipped(found).items() if "have no clicks" in why} == unasked


@pytest.mark.long
def test_an_algorithm_for_iv_is_judged_as_such_without_clicks_too(tmp_path):
    only = {"edition", "one_mask", "nothing_else", "data_centric", "clicks_missing"}
    found = look(program(image=CLICKED), tmp_path, only=only)
    assert failed(found) == {}
    assert found["edition"].reason == "judged as IV (task 1) and V, by where it writes"
    assert skipped(found) == {"data_centric": "it does not serve edition III"}


@pytest.mark.long
def test_a_label_says_which_edition_is_served(tmp_path):
    only = {"edition", "one_mask", "data_centric", "nothing_else"}
    three = {"mask": NO_CLICKS, "image": PLAIN}
    without_flag = program(**three, done="(OUTPUTS / 'data-centric-model.json').unlink()")
    found = look(without_flag, tmp_path / "2", labels=stating(edition=2), only=only)
    assert failed(found) == {}
    assert found["edition"].reason == "judged as I and II, by its label"
    found = look(program(**three), tmp_path / "1", labels=stating(edition=1), only=only)
    assert failed(found) == {"nothing_else": "wrote data-centric-model.json too"}
    found = look(program(**three), tmp_path / "4", labels=stating(edition=4), only=only)
    assert "no mask in images/tumor-lesion-segmentation: " in failed(found)["one_mask"]
    found = look(program(), tmp_path / "auto", labels=stating(data_centric=True), only=only)
    assert failed(found) == {}
    assert found["edition"].reason == "judged as III and IV (task 1) and V, by its label"


@pytest.mark.long
@pytest.mark.parametrize("label", ["{", "[1]", "{}", '{"settings": 3}'])
def test_a_label_that_says_nothing_leaves_the_edition_to_be_seen(tmp_path, label):
    labels = {"flarekit.facts": label}
    found = look(program(mask=NO_CLICKS, image=PLAIN), tmp_path, labels=labels, only={"edition"})
    assert found["edition"].reason == "judged as III, by where it writes"


def test_the_second_task_of_iv_is_not_judged(tmp_path):
    found = look(program(), tmp_path, labels=stating(edition=4, task=2), only={"edition"})
    assert "task 2" in skipped(found)["edition"]


@pytest.mark.long
def test_clicks_that_change_nothing_are_not_judged(tmp_path):
    found = look(program(mask=NO_CLICKS), tmp_path, only={"edition", "clicks_placed"})
    assert found["edition"].state == "pass"
    assert "changes the mask" in skipped(found)["clicks_placed"]


@pytest.mark.long
def test_a_fault_of_two_oddities_together_is_caught(tmp_path):
    fault = "if np.isnan(raw).any() and raw.dtype == np.float64: sys.exit('Error: NaN')"
    found = look(program(mask=fault), tmp_path, only={"nan_in_pet"})
    reason = failed(found)["nan_in_pet"]
    assert "pass alone, but not together" in reason
    assert "NaN" in reason


@pytest.mark.long
def test_given_inputs_are_judged_alike(tmp_path):
    given = tmp_path / "given"
    samples.write(given, Variation(finer_ct=True, clicks=None))
    wanted = replace(WANTED, user_inputs=given)
    good = look(program(), tmp_path / "good", wanted=wanted, only={"given_inputs"})
    assert good["given_inputs"].state == "pass"
    for fault, words in (
        ("same_size", "the sizes differ"),
        ("int16", "case_0001.mha is int16, not uint8"),
        ("no_flag", "no data-centric-model.json"),
    ):
        faulty = program(**BROKEN[fault][0])
        found = look(faulty, tmp_path / fault, wanted=wanted, only={"given_inputs"})
        assert words in failed(found)["given_inputs"]
    shutil.rmtree(given / "images" / "pet")
    found = look(program(), tmp_path / "gone", wanted=wanted, only={"given_inputs"})
    assert "images/pet holds no *.mha" in failed(found)["given_inputs"]


def clicked(mask, clicks):
    """Return a mask after flarekit's own rule for clicks."""
    points = {
        name: np.array([place[::-1] for place, kind in clicks if kind == name])
        for name in ("tumor", "background")
    }
    scan = Scan(
        channels={"PET": samples.petct().suv_ZYX},
        spacing_mm_ZYX=samples.SPACING_MM_XYZ[::-1],
        points=points,
    )
    return click_rule.apply_to_scan(mask.astype(np.uint8), [1], 0.41, scan) > 0


@pytest.mark.long
def test_the_rule_for_clicks_is_found_to_read_them_right_and_misreadings_are_named():
    before = samples.petct().suv_ZYX > 4
    assert placed(before, clicked(before, samples.PLACED_CLICKS)).state == "pass"
    for name in samples.readings(samples.FAINT):
        misread = [(samples.readings(at)[name], kind) for at, kind in samples.PLACED_CLICKS]
        inside = [click for click in misread if (np.array(click[0]) < samples.SHAPE_XYZ).all()]
        finding = placed(before, clicked(before, inside))
        assert finding.state == "fail"
        assert f"they are read as {name}" in finding.reason


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_mirror_image_is_told_from_the_mask(count):
    mask = samples.petct().suv_ZYX > 4
    assert on_lesions(mask).state == "pass"
    for axes in combinations(range(3), count):
        assert on_lesions(np.flip(mask, axes)).state == "fail"
    assert on_lesions(np.zeros_like(mask)).state == "skip"


@pytest.mark.long
def test_faint_uptake_lies_wherever_the_click_on_it_could_be_read():
    suv, hu = samples.petct().suv_ZYX, samples.petct().hu_ZYX
    places = [samples.FAINT, *samples.readings(samples.FAINT).values()]
    assert len(set(samples.SHAPE_XYZ)) == 3
    for x, y, z in places:
        assert 2 < suv[z, y, x] < 2.5
        assert suv[z - 4 : z + 5, y - 5 : y + 6, x - 5 : x + 6].max() < 2.5
        assert hu[z, y, x] > -200
    positions = np.multiply(places, samples.SPACING_MM_XYZ)
    assert min(np.linalg.norm(one - other) for one, other in combinations(positions, 2)) > 55
    assert all(suv[place[::-1]] > 8 for place in samples.HOT)


@pytest.mark.quick(2)
@pytest.mark.parametrize(
    "variation",
    [
        Variation(),
        Variation(clicks=None),
        Variation(pet_stem=samples.OTHER_PET, raw=True, nan=True, ct_off_mm=1e-5),
        Variation(finer_ct=True, clicks=samples.STRAY_CLICKS + samples.FLOAT_CLICKS),
        Variation(uptake=False, clicks=()),
    ],
)
def test_generated_cases_are_what_the_convention_reads(tmp_path, variation):
    samples.write(tmp_path, variation)
    convention = conventions.get("autopet", labels={"lesion": 1})
    (case,) = convention.find_cases(tmp_path, 2)
    ct, pet = convention.read_case(case)
    assert case.mask.stem == samples.USUAL
    body = samples.petct().hu_ZYX > 0
    assert np.abs(ct.voxels_ZYX - samples.petct().hu_ZYX)[body].mean() < 60
    assert (pet.voxels_ZYX > 0).any() == variation.uptake
    points = conventions.points_of(convention, case, [pet, ct])
    assert sum(len(places) for places in points.values()) == (
        {None: 0, (): 0, samples.USUAL_CLICKS: 2}.get(variation.clicks, 4)
    )


@pytest.mark.slow
def test_the_seed_decides_what_is_generated():
    make = samples.petct.__wrapped__
    assert np.array_equal(make().suv_ZYX, samples.petct().suv_ZYX)
    assert not np.array_equal(make(1).suv_ZYX, samples.petct().suv_ZYX)
