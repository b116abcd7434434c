"""autoPET I to V, the PET/CT tasks: one mask of the lesions, with clicks or without.

Which edition an image serves is known from its label `flarekit.facts` (`settings.edition`, 1 to 5
or `auto`), or from the folder that it writes to with and without clicks.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path

from flarekit.conventions.autopet import samples
from flarekit.conventions.autopet.lesion_places import on_lesions, placed
from flarekit.conventions.autopet.mask_checks import (
    CLICKED,
    FLAG,
    PLAIN,
    edition_clear,
    edition_of,
    faults_of,
    lesions,
    unlike_usual,
    without_clicks,
)
from flarekit.conventions.autopet.samples import CLICKS, Variation, writer
from flarekit.verification.check import PASS, Finding, check, checks_in, fail, skip, verdict_of
from flarekit.verification.platform_checks import PLATFORM_IMAGE, PLATFORM_RUNS
from flarekit.verification.run_checks import RUNS
from flarekit.verification.trials import ImageUnderTest, TaskFacts, TrialResult

_NO_CLICKS = "it serves editions that have no clicks"

_ODD_CASES: Mapping[str, Variation] = {
    "differing_stems": Variation(pet_stem=samples.OTHER_PET),
    "ct_rounding": Variation(ct_off_mm=1e-5),
    "stored_otherwise": Variation(raw=True),
    "nan_in_pet": Variation(nan=True),
}
_ODD_TOGETHER = Variation(pet_stem=samples.OTHER_PET, ct_off_mm=1e-5, raw=True, nan=True)
_ODD_CLICKS: Mapping[str, Variation] = {
    "clicks_outside": Variation(clicks=samples.STRAY_CLICKS),
    "clicks_floats": Variation(clicks=samples.FLOAT_CLICKS),
    "scribbles": Variation(clicks=samples.SCRIBBLES),
}
_CLICKS_TOGETHER = Variation(clicks=samples.STRAY_CLICKS + samples.FLOAT_CLICKS + samples.SCRIBBLES)


def write_sample(folder: Path, task: TaskFacts) -> None:
    """Write the inputs of the usual run: with clicks, which editions without ignore."""
    del task
    samples.write(folder, Variation())


def _serves_clicks(image: ImageUnderTest) -> bool:
    return edition_of(image, clicked=True) >= 4


def _output(image: ImageUnderTest, name: str) -> Finding:
    """Look for one kind of fault in the output, with clicks and without."""
    faults = faults_of(image, image.base())[name]
    if not faults and edition_of(image, clicked=False) < 4:
        trial = without_clicks(image)
        if trial.failure is None:
            faults = [f"without {CLICKS}: {fault}" for fault in faults_of(image, trial)[name]]
    return verdict_of(faults)


@check(fix='state it in a label: LABEL flarekit.facts=\'{"settings": {"edition": 3}}\'', runs=False)
def edition(image: ImageUnderTest) -> Finding:
    """What it writes, with clicks and without, belongs to one edition or to both kinds."""
    return edition_clear(image)


def _unlike(
    image: ImageUnderTest, name: str, variation: Variation, *, same_mask: bool
) -> list[str]:
    return unlike_usual(image, image.kept(name, writer(variation)), same_mask=same_mask)


def _odd_case(image: ImageUnderTest, name: str) -> Finding:
    return _odd(image, name, _ODD_CASES, _ODD_TOGETHER, same_mask=True)


def _odd_clicks(image: ImageUnderTest, name: str) -> Finding:
    return _odd(image, name, _ODD_CLICKS, _CLICKS_TOGETHER, same_mask=False)


def _odd(
    image: ImageUnderTest,
    name: str,
    group: Mapping[str, Variation],
    together: Variation,
    *,
    same_mask: bool,
) -> Finding:
    """Look at one oddity; all of a group are tried at once, then one by one."""
    faults = _unlike(image, "_and_".join(group), together, same_mask=same_mask)
    if not faults:
        return PASS
    alone = {
        each: _unlike(image, each, variation, same_mask=same_mask)
        for each, variation in group.items()
    }
    if not any(alone.values()):
        return fail(f"{', '.join(group)} pass alone, but not together: {faults[0]}")
    return verdict_of(alone[name])


def _if_clicked(look: Callable[[ImageUnderTest], Finding]) -> Callable[[ImageUnderTest], Finding]:
    """Return what looks only at images that are given clicks."""

    @wraps(look)
    def looked(image: ImageUnderTest) -> Finding:
        return look(image) if _serves_clicks(image) else skip(_NO_CLICKS)

    return looked


@check(fix=f"write to {PLAIN} (I to III) or {CLICKED} (IV, V), under the CT's name")
def one_mask(image: ImageUnderTest) -> Finding:
    """The edition's folder gets exactly one .mha, named after the CT."""
    return _output(image, "one_mask")


@check(fix="put logs and temporary files into /tmp")
def nothing_else(image: ImageUnderTest) -> Finding:
    """No other files are written."""
    return _output(image, "nothing_else")


@check(fix="cast before writing: mask.astype(numpy.uint8), with 1 for every lesion")
def binary(image: ImageUnderTest) -> Finding:
    """The mask is uint8 and holds 0 and 1 only."""
    return _output(image, "binary")


@check(fix="image.CopyInformation(pet) on the PET as it was read, before any resampling")
def geometry(image: ImageUnderTest) -> Finding:
    """The mask has the PET's voxels, spacing, origin and directions."""
    return _output(image, "geometry")


def _no_clicks(image: ImageUnderTest) -> TrialResult:
    return image.kept("clicks_empty", writer(Variation(clicks=())))


@check(fix="undo every flip before writing; arrays are (z, y, x) as SimpleITK gives them")
def aligned(image: ImageUnderTest) -> Finding:
    """The mask is not a mirror image: it holds hot lesions where they are."""
    return on_lesions(lesions(image.base()))


@check(fix=f"json.dump(False, file) to /output/{FLAG}; I and II: state the edition in the label")
def data_centric(image: ImageUnderTest) -> Finding:
    """data-centric-model.json holds true or false and nothing else (edition III)."""
    editions = {edition_of(image, clicked=clicked) for clicked in (True, False)}
    if 3 not in editions:
        return skip("it does not serve edition III")
    return _output(image, "data_centric")


@check(fix="take the only file of each folder, and name the mask after the CT")
def differing_stems(image: ImageUnderTest) -> Finding:
    """CT and PET may have different names; the mask has the CT's."""
    return _odd_case(image, "differing_stems")


@check(fix="compare geometries with a tolerance of 0.01 voxel, or resample always")
def ct_rounding(image: ImageUnderTest) -> Finding:
    """A CT that lies 0.00001 mm off the PET's grid is accepted."""
    return _odd_case(image, "ct_rounding")


@check(fix="SimpleITK.Resample(ct, pet, SimpleITK.Transform(), SimpleITK.sitkLinear, -1024)")
def ct_other_grid(image: ImageUnderTest) -> Finding:
    """A CT on another grid is resampled; the mask stays on the PET's."""
    return verdict_of(_unlike(image, "ct_other_grid", Variation(finer_ct=True), same_mask=True))


@check(fix="read with SimpleITK, then cast to float32")
def stored_otherwise(image: ImageUnderTest) -> Finding:
    """Uncompressed .mha files are read like compressed ones, wide numbers like narrow."""
    return _odd_case(image, "stored_otherwise")


@check(fix="numpy.nan_to_num right after reading")
def nan_in_pet(image: ImageUnderTest) -> Finding:
    """NaN in the air around the patient changes nothing in the patient."""
    return _odd_case(image, "nan_in_pet")


@check(fix="guard divisions by the maximum or the deviation; write zeros where no voxel is above 0")
def no_uptake(image: ImageUnderTest) -> Finding:
    """A PET that is 0 everywhere gives an empty mask."""
    no_list = _serves_clicks(image) and _no_clicks(image).failure is not None
    clicks = samples.USUAL_CLICKS if no_list else ()
    trial = image.kept("no_uptake", writer(Variation(uptake=False, clicks=clicks)))
    faults = unlike_usual(image, trial, same_mask=False)
    found = lesions(trial)
    if not faults and found is not None and found.any():
        faults = [f"{int(found.sum())} voxels of the mask are not 0 where every PET voxel is 0"]
    return verdict_of(faults)


@check(fix="take a missing file for an empty list")
def clicks_missing(image: ImageUnderTest) -> Finding:
    """It runs without lesion-clicks.json."""
    trial = without_clicks(image)
    if trial.failure is not None or edition_of(image, clicked=False) >= 4:
        return verdict_of(unlike_usual(image, trial, same_mask=False))
    return PASS


@check(fix="start from the mask without clicks")
@_if_clicked
def clicks_empty(image: ImageUnderTest) -> Finding:
    """It runs with an empty list of clicks, which is the first step."""
    return verdict_of(unlike_usual(image, _no_clicks(image), same_mask=False))


@check(fix="leave out points below 0 or beyond the last voxel")
@_if_clicked
def clicks_outside(image: ImageUnderTest) -> Finding:
    """Clicks outside the volume do not end it."""
    return _odd_clicks(image, "clicks_outside")


@check(fix="round to the nearest voxel")
@_if_clicked
def clicks_floats(image: ImageUnderTest) -> Finding:
    """Clicks between voxels do not end it."""
    return _odd_clicks(image, "clicks_floats")


@check(fix="loop over all points, however many of each name there are")
@_if_clicked
def scribbles(image: ImageUnderTest) -> Finding:
    """Rows of points (edition V) are read like clicks."""
    return _odd_clicks(image, "scribbles")


@check(fix="mask[z, y, x] for a point (x, y, z); no transform from physical space")
@_if_clicked
def clicks_placed(image: ImageUnderTest) -> Finding:
    """Clicks act where they lie: indices of voxels, x first."""
    if aligned.look(image).state == "fail":
        return skip("the whole mask is turned")
    trial = image.kept("clicks_placed", writer(Variation(clicks=samples.PLACED_CLICKS)))
    if trial.failure is not None:
        return fail(trial.failure)
    return placed(lesions(_no_clicks(image)), lesions(trial))


@check(fix="correct what the reason names")
def given_inputs(image: ImageUnderTest) -> Finding:
    """The inputs that were given lead to a mask that passes all of these checks."""
    given = image.task.user_inputs
    if given is None:
        return skip("no --input was given")
    for kind in ("ct", "pet"):
        if not any((given / "images" / kind).glob("*.mha")):
            return fail(f"{given / 'images' / kind} holds no *.mha")
    trial = image.trial(given)
    if trial.failure is not None:
        return fail(trial.failure)
    return verdict_of([fault for faults in faults_of(image, trial).values() for fault in faults])


CHECKS = (*PLATFORM_IMAGE, *RUNS, *PLATFORM_RUNS, *checks_in(globals()))
