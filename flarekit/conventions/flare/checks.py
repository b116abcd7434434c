"""FLARE: `predict.sh` on a folder of CTs, one mask each; arrays are compared index by index."""

from collections.abc import Iterator
from functools import partial
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flarekit.conventions.flare import samples
from flarekit.core.errors import UnreadableVolumeError
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
from flarekit.verification.masks import geometry_faults, read_mask
from flarekit.verification.run_checks import nothing_done
from flarekit.verification.shell_checks import SUBMITTED_BY_FILE
from flarekit.verification.trials import ImageUnderTest, TaskFacts, TrialResult

_ENDING, _MASK_ENDING = "_0000.nii.gz", ".nii.gz"
_ALIKE, _BETTER = 0.5, 0.1  # agreement with the untouched scan's mask; of a turned one above it


def write_sample(folder: Path, task: TaskFacts) -> None:
    """Write the inputs of the usual run."""
    del task
    samples.usual(folder)


def _wanted(trial: TrialResult) -> dict[str, Path]:
    """Return the masks that a trial's inputs ask for, with the scans that they belong to."""
    scans = sorted(trial.inputs.glob(f"*{_ENDING}"))
    return {scan.name.removesuffix(_ENDING) + _MASK_ENDING: scan for scan in scans}


def _stored_faults(trial: TrialResult) -> Iterator[str]:
    """Yield what is wrong with how masks are stored."""
    for name in _wanted(trial):
        path = trial.outputs / name
        if name in trial.files:
            try:
                mask = read_mask(path)
            except UnreadableVolumeError as error:
                yield f"{name}: {error.fault}"
                continue
            if mask.voxels_ZYX.dtype != np.uint8:
                yield f"{name} is {mask.voxels_ZYX.dtype}"
            if mask.scaled:
                yield f"{name} has a slope or intercept in its header"


def _grid_faults(trial: TrialResult) -> Iterator[str]:
    for name, scan in _wanted(trial).items():
        if name in trial.files:
            mask = read_mask(trial.outputs / name)
            yield from (f"{name}: {fault}" for fault in geometry_faults(mask, read_mask(scan)))


def _value_faults(trial: TrialResult, values: frozenset[int]) -> Iterator[str]:
    for name in _wanted(trial):
        if name in trial.files:
            found = np.unique(read_mask(trial.outputs / name).voxels_ZYX).tolist()
            odd = sorted(set(found) - values)
            if odd:
                yield f"{name} holds {', '.join(map(str, odd[:5]))}"


@check(fix="name masks by removing the last _0000; put logs and temporary files into /tmp")
def output_tree(image: ImageUnderTest) -> Finding:
    """X_0000.nii.gz gives X.nii.gz, and nothing else is written."""
    return verdict_of(name_faults(image.base(), _wanted(image.base())))


@check(fix="make a new header: set_data_dtype(uint8), set_slope_inter(1, 0)")
def stored_type(image: ImageUnderTest) -> Finding:
    """Masks are uint8 with slope 1 and intercept 0."""
    return verdict_of(list(_stored_faults(image.base())))


@check(fix="copy affine, qform and sform; write in the stored order of axes")
def geometry(image: ImageUnderTest) -> Finding:
    """A mask has its scan's voxels and header geometry."""
    return verdict_of(list(_grid_faults(image.base())))


@check(fix="map the network's classes to the task's values; --labels where the task has others")
def labels(image: ImageUnderTest) -> Finding:
    """Masks hold the task's labels only."""
    return verdict_of(list(_value_faults(image.base(), image.task.values)))


@check(fix="loop over all files; remove the last _0000.nii.gz only; quote paths in shell")
def odd_names(image: ImageUnderTest) -> Finding:
    """Several inputs, with _0000, dots or spaces in their names, all get their mask."""
    trial = image.kept("odd_names", samples.odd_names)
    faults = [fault for fault in name_faults(trial, _wanted(trial)) if "too" not in fault]
    return verdict_of_trial(trial, faults or list(_unlike_each_other(image, trial)))


def _unlike_each_other(image: ImageUnderTest, trial: TrialResult) -> Iterator[str]:
    """Yield which masks of the usual CT under other names are not the usual mask."""
    (usual,) = (read_mask(image.base().outputs / name).voxels_ZYX for name in _wanted(image.base()))
    for name in _wanted(trial):
        share = agreement(usual, read_mask(trial.outputs / name).voxels_ZYX)
        if share < 1 - _BETTER:
            yield f"{name} agrees in only {share:.2f} of its voxels with the usual CT's mask"


@check(fix="take *_0000.nii.gz only")
def other_files(image: ImageUnderTest) -> Finding:
    """Files that are not inputs are ignored."""
    trial = image.kept("odd_names", samples.odd_names)
    return verdict_of_trial(
        trial, [fault for fault in name_faults(trial, _wanted(trial)) if "too" in fault]
    )


@check(fix="say that there is nothing to do")
def no_inputs(image: ImageUnderTest) -> Finding:
    """A folder without scans writes nothing, and ends with exit code 0 or a clear message."""
    return nothing_done(image.trial(image.inputs("nothing", samples.nothing)))


@check(fix="write to a temporary name, then rename over the old one")
def overwrites(image: ImageUnderTest) -> Finding:
    """Masks that lie in the output folder already are replaced.

    Old masks lie in the output folder: they give way, and do not disturb the run.
    """
    base = image.base()
    trial = over_old_masks(image, _wanted(base))
    if not base.files:
        return verdict_of_trial(trial, [])
    faults = list(_stored_faults(trial)) + name_faults(trial, _wanted(trial))
    return verdict_of_trial(trial, faults or unlike_usual(image, trial))


@check(fix="catch errors case by case, and write zeros of the header's shape")
def damaged_input(image: ImageUnderTest) -> Finding:
    """A damaged scan gets an empty mask in its header's geometry."""
    trial = image.trial(image.inputs("damaged", samples.damaged))
    name = samples.DAMAGED + _MASK_ENDING
    if trial.outcome.timed_out:
        return fail("did not end")
    if name not in trial.files:
        return fail(f"no {name}: a missing case scores 0 and the worst time")
    faults = [*_stored_faults(trial)]
    if not faults:
        mask = read_mask(trial.outputs / name)
        scan = read_mask(image.usual_inputs() / f"{samples.USUAL}{_ENDING}")
        faults = geometry_faults(mask, scan)
        faults += ["is not empty"] if mask.voxels_ZYX.any() else []
    return verdict_of([f"{name} {fault}" for fault in faults])


@check(fix="undo every transpose and flip before writing")
def orientations(image: ImageUnderTest) -> Finding:
    """A scan stored in any of the 48 orientations gets a mask in the same orientation."""
    masks: dict[str, NDArray[np.generic]] = {}
    for number, axes in enumerate(samples.ORDERS):
        trial = image.kept(f"turned_{number}", partial(samples.turned, axes=axes))
        faults = name_faults(trial, _wanted(trial)) or _turned_back(trial, axes, masks)
        if faults or trial.failure is not None:
            return verdict_of_trial(trial, faults)
    reference = masks["RAS"]
    if not reference.any():
        return skip("the mask of the generated CT is empty, so it shows no direction")
    found = {name: _aligned(mask, reference) for name, mask in masks.items()}
    wrong = [f"stored as {name}: {words}" for name, (_, words) in found.items() if words]
    if wrong:
        return verdict_of(wrong)
    share, least = min((share, name) for name, (share, _) in found.items())
    if share < _ALIKE:
        return warn(f"stored as {least} the mask agrees in only {share:.2f} of its voxels")
    return PASS


def _turned_back(
    trial: TrialResult, axes: samples.Triple, masks: dict[str, NDArray[np.generic]]
) -> list[str]:
    """Add a trial's masks, axes as in the world; return in which grids are not their scans'."""
    faults = []
    for name, order, flips in samples.orientations(axes):
        path = trial.outputs / f"{name}{_MASK_ENDING}"
        mask = read_mask(path)
        grid = geometry_faults(mask, read_mask(trial.inputs / f"{name}{_ENDING}"))
        faults += [f"{path.name}: {fault}" for fault in grid]
        if not grid:
            masks[name] = samples.as_canonical(mask.voxels_ZYX.T, order, flips)
    return faults


def _aligned(mask: NDArray[np.generic], reference: NDArray[np.generic]) -> tuple[float, str]:
    """Return how well a mask agrees with another, and how it is turned where that fits better."""
    own = agreement(mask, reference)
    if own >= 1 - _BETTER:
        return own, ""
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = mask.transpose(order)[tuple(slice(None, None, flip) for flip in flips)]
        if turned.shape == reference.shape and agreement(turned, reference) > own + _BETTER:
            flipped = [axis for axis, flip in zip("xyz", flips, strict=True) if flip < 0]
            return own, f"the mask fits when turned back (axes {order}, flipped {flipped})"
    return own, ""


@check(fix="correct what the reason names")
def given_inputs(image: ImageUnderTest) -> Finding:
    """The inputs that were given pass the same checks."""
    if image.task.user_inputs is None:
        return skip("no --input was given")
    given = image.task.user_inputs
    if not any(given.glob(f"*{_ENDING}")):
        return fail(f"{given} holds no *{_ENDING}")
    trial = image.trial(given)
    faults = [*name_faults(trial, _wanted(trial)), *_stored_faults(trial)]
    if not faults:
        faults = [*_grid_faults(trial), *_value_faults(trial, image.task.values)]
    return verdict_of_trial(trial, faults)


CHECKS = (*SUBMITTED_BY_FILE, *checks_in(globals()))
