"""FLARE25, task 1: `predict.sh` on a folder of `.npz` files, a mask for every line in them."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.flare_recist import IMAGE, LINES, MASKS, SPACING, samples
from flarekit.core.npz_files import read_arrays
from flarekit.evaluation.diameters import longest_line, recist_diameter_mm
from flarekit.verification.check import (
    PASS,
    Finding,
    check,
    checks_in,
    fail,
    skip,
    verdict_of,
    verdict_of_trial,
    warn,
)
from flarekit.verification.contents import (
    agreement,
    name_faults,
    over_old_masks,
    unlike_usual,
)
from flarekit.verification.run_checks import nothing_done
from flarekit.verification.shell_checks import SUBMITTED_BY_FILE
from flarekit.verification.trials import ImageUnderTest, TaskFacts, TrialResult

_ENDING = ".npz"
_FAR = 1.5  # lengths of its line that a lesion may begin away from it
_SMALLEST_MM = 10.0
_ODD_RATIO = 2.0  # of a mask's diameter to its line, or the other way round
_ALIKE = 0.9
_Spacing = tuple[float, float, float]  # in mm, (Z, Y, X)


def write_sample(folder: Path, task: TaskFacts) -> None:
    """Write the inputs of the usual run."""
    del task
    samples.usual(folder)


def _wanted(trial: TrialResult) -> dict[str, Path]:
    """Return the files that a trial's inputs ask for, with the inputs that they belong to."""
    return _inputs_in(trial.inputs)


def _inputs_in(folder: Path) -> dict[str, Path]:
    paths = sorted(folder.glob(f"*{_ENDING}"))
    return {path.name: path for path in paths if not path.name.startswith(".")}


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return a file's arrays; none where it cannot be read, which `stored_type` tells."""
    try:
        return read_arrays(path)
    except ValueError:
        return {}


def _spacing_mm(scan: Mapping[str, NDArray[Any]]) -> _Spacing:
    """Return the spacing (Z, Y, X) of an input; 1 mm where it says none."""
    stated = scan.get(SPACING)
    x, y, z = (1.0, 1.0, 1.0) if stated is None else stated.astype(float).ravel().tolist()
    return z, y, x


def _input_faults(path: Path) -> Iterator[str]:
    """Yield why an input that a user gave is none of this task."""
    try:
        content = read_arrays(path)
    except ValueError as error:
        yield f"{path} cannot be read ({error})"
        return
    yield from (f"{path} has no array {name}" for name in (IMAGE, LINES) if name not in content)
    if SPACING in content and content[SPACING].size != 3:
        yield f"{path}: {SPACING} is {content[SPACING].tolist()}, not x, y and z"


def _stored_faults(trial: TrialResult) -> Iterator[str]:
    for name in _wanted(trial):
        if name not in trial.files:
            continue
        try:
            content = read_arrays(trial.outputs / name)
        except ValueError as error:
            yield f"{name} cannot be read ({error})"
            continue
        if MASKS not in content:
            yield f"{name} has no array {MASKS}, it holds {', '.join(content) or 'nothing'}"
        elif content[MASKS].dtype != np.uint8:
            yield f"{name}: {MASKS} is {content[MASKS].dtype}"


def _grid_faults(trial: TrialResult) -> Iterator[str]:
    for name, given in _wanted(trial).items():
        content = _arrays(trial.outputs / name) if name in trial.files else {}
        if MASKS not in content:
            continue
        scan = read_arrays(given)
        if content[MASKS].shape != scan[IMAGE].shape:
            yield f"{name}: {MASKS} is {content[MASKS].shape}, {IMAGE} {scan[IMAGE].shape}"
        stated, wanted = content.get(SPACING), scan.get(SPACING)
        if stated is None:
            yield f"{name} has no array {SPACING}"
        elif wanted is not None and (
            stated.shape != wanted.shape or not np.allclose(stated, wanted.astype(float))
        ):
            yield f"{name}: {SPACING} is {stated.tolist()}, given was {wanted.tolist()}"


def _lesion_faults(trial: TrialResult) -> Iterator[str]:
    """Yield which lesions have no mask at their line, and values that are no lesion's."""
    for name, given in _wanted(trial).items():
        segs = _arrays(trial.outputs / name).get(MASKS) if name in trial.files else None
        scan = read_arrays(given)
        lines = scan[LINES]
        if segs is None or segs.shape != lines.shape:
            continue
        values = [int(value) for value in np.unique(lines) if value]
        odd = sorted(set(np.unique(segs).tolist()) - {0, *values})
        if odd:
            yield f"{name} holds {', '.join(map(str, odd[:5]))}, which no line has"
        spacing_mm = _spacing_mm(scan)
        for value in values:
            away_mm, length_mm = _away_mm(segs == value, lines == value, spacing_mm)
            if away_mm is None:
                yield f"{name}: lesion {value} has no voxel"
            elif away_mm > _FAR * max(length_mm, _SMALLEST_MM):
                yield f"{name}: lesion {value} begins {away_mm:.0f} mm from its line"


def _away_mm(
    mask: NDArray[np.bool_], line: NDArray[np.bool_], spacing_mm: _Spacing
) -> tuple[float | None, float]:
    """Return how far a mask is from its line (None where it is empty), and the line's length."""
    from scipy.spatial import KDTree

    _, one, other = longest_line(line)
    length_mm = float(np.linalg.norm((other - one) * np.array(spacing_mm[1:])))
    if not mask.any():
        return None, length_mm
    tree = KDTree(np.argwhere(line) * spacing_mm)
    return float(tree.query(np.argwhere(mask) * spacing_mm)[0].min()), length_mm


def _all_faults(trial: TrialResult) -> list[str]:
    faults = [*name_faults(trial, _wanted(trial)), *_stored_faults(trial)]
    return faults or [*_grid_faults(trial), *_lesion_faults(trial)]


@check(fix="write each mask under the name of its input; put temporary files into /tmp")
def output_tree(image: ImageUnderTest) -> Finding:
    """X.npz gives X.npz, and nothing else is written."""
    return verdict_of(name_faults(image.base(), _wanted(image.base())))


@check(fix="numpy.savez_compressed(path, segs=mask.astype(numpy.uint8), spacing=spacing)")
def stored_type(image: ImageUnderTest) -> Finding:
    """Each file has segs, uint8, and can be read without unpickling."""
    return verdict_of(list(_stored_faults(image.base())))


@check(fix="keep the order (D, H, W), and write the spacing as it came")
def geometry(image: ImageUnderTest) -> Finding:
    """The array segs has the shape of imgs, and spacing is the input's."""
    return verdict_of(list(_grid_faults(image.base())))


@check(fix="write k where lesion k is; a small body around the line where nothing is found")
def lesion_at_its_line(image: ImageUnderTest) -> Finding:
    """Lesion k has the value k, and lies at its line."""
    return verdict_of(list(_lesion_faults(image.base())))


@check(fix="look at each value of recist by itself; clip volumes of interest at the edge")
def odd_lesions(image: ImageUnderTest) -> Finding:
    """Lesions with lines of one pixel, that touch, or on the edge, all have their masks."""
    trial = image.kept("odd_lesions", samples.odd_lesions)
    return verdict_of_trial(trial, _all_faults(trial))


@check(fix="compare the longest diameter of the mask with the line")
def diameters(image: ImageUnderTest) -> Finding:
    """The longest diameter of the usual mask is about as long as its line."""
    for name, given in _wanted(image.base()).items():
        scan, content = read_arrays(given), _arrays(image.base().outputs / name)
        if MASKS not in content or content[MASKS].shape != scan[LINES].shape:
            return skip("there is no mask to measure")
        spacing_mm = _spacing_mm(scan)
        of_line, of_mask = (
            recist_diameter_mm(array > 0, spacing_mm) for array in (scan[LINES], content[MASKS])
        )
        if not of_line / _ODD_RATIO <= of_mask <= of_line * _ODD_RATIO:
            return warn(f"{name}: the line is {of_line:.0f} mm long, the mask {of_mask:.0f} mm")
    return PASS


@check(fix="write zeros of the shape of imgs")
def no_lesion(image: ImageUnderTest) -> Finding:
    """A CT without a line gets a mask of zeros."""
    trial = image.kept("no_lesion", samples.no_lesion)
    return verdict_of_trial(trial, _all_faults(trial))


@check(fix="read arrays by name with numpy.load; expect that direction and origin may be missing")
def ways_to_store(image: ImageUnderTest) -> Finding:
    """Compressed or not, of any integer type or order of axes, a file gets the same mask."""
    trial = image.kept("ways_to_store", samples.ways_to_store)
    faults = _all_faults(trial)
    usual = _arrays(image.base().outputs / f"{samples.USUAL}{_ENDING}").get(MASKS)
    if faults or trial.failure is not None or usual is None:
        return verdict_of_trial(trial, faults)
    for name in _wanted(trial):
        share = agreement(usual, _arrays(trial.outputs / name)[MASKS])
        if share < _ALIKE:
            faults.append(f"{name} agrees in only {share:.2f} of its voxels with the usual mask")
    return verdict_of(faults)


@check(fix="loop over all files; keep everything of the name; quote paths in shell")
def odd_names(image: ImageUnderTest) -> Finding:
    """Several inputs, with dots or spaces in their names, get their masks; others do not."""
    trial = image.kept("odd_names", samples.odd_names)
    return verdict_of_trial(trial, _all_faults(trial))


@check(fix="say that there is nothing to do")
def no_inputs(image: ImageUnderTest) -> Finding:
    """A folder without .npz files writes nothing, and ends with exit code 0 or a clear message."""
    return nothing_done(image.trial(image.inputs("nothing", samples.nothing)))


@check(fix="write to a temporary name, then rename over the old one")
def overwrites(image: ImageUnderTest) -> Finding:
    """Masks that lie in the output folder already are replaced."""
    trial = over_old_masks(image, _wanted(image.base()))
    return verdict_of_trial(trial, name_faults(trial, _wanted(trial)) or unlike_usual(image, trial))


@check(fix="catch errors file by file")
def damaged_input(image: ImageUnderTest) -> Finding:
    """A damaged file does not cost the others their masks."""
    trial = image.trial(image.inputs("damaged", samples.damaged))
    if trial.outcome.timed_out:
        return fail("did not end")
    name = f"{samples.USUAL}{_ENDING}"
    if name not in trial.files:
        return fail(f"no {name}, because {samples.DAMAGED}{_ENDING} is damaged")
    usual, mask = (_arrays(each.outputs / name).get(MASKS) for each in (image.base(), trial))
    if usual is None:
        return skip("there is no usual mask to compare with")
    if mask is None:
        return fail(f"{name} has no array {MASKS}")
    share = agreement(usual, mask)
    return PASS if share >= _ALIKE else fail(f"{name} is not the usual mask")


@check(fix="numpy.load(path, allow_pickle=False), which is its default")
def no_pickles(image: ImageUnderTest) -> Finding:
    """Nothing in a file is ever unpickled, which would run whatever it says."""
    write = partial(samples.pickled, target=image.run_line.outputs)
    trial = image.trial(image.inputs("pickled", write))
    marked = [name for name in trial.files if samples.MARK in name]
    return fail("it ran a program that was hidden in an input") if marked else PASS


@check(fix="correct what the reason names")
def given_inputs(image: ImageUnderTest) -> Finding:
    """The inputs that were given pass the same checks."""
    given = image.task.user_inputs
    if given is None:
        return skip("no --input was given")
    if not any(given.glob(f"*{_ENDING}")):
        return fail(f"{given} holds no *{_ENDING}")
    unusable = [fault for path in _inputs_in(given).values() for fault in _input_faults(path)]
    if unusable:
        return verdict_of(unusable)
    trial = image.trial(given)
    return verdict_of_trial(trial, _all_faults(trial))


CHECKS = (*SUBMITTED_BY_FILE, *checks_in(globals()))
